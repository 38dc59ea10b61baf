"""Run one step alone: `python -m midwatch.workers.process.isolation.isolated_step PIPE ORDER`. `isolation` starts this process.

It has the settings and agents of its worker. It continues the worker's claim, renews the lease, and commits the result itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.schemas.step import StepKind
from midwatch.workers import telemetry
from midwatch.workers.celery_app.flower_events import JobEvents
from midwatch.workers.process.isolation.order import BEGUN, DONE, REPORT_S, RUNS, Order
from midwatch.workers.process.prepare import find_providers, import_sdks
from midwatch.workers.process.runtime import runtime
from midwatch.workers.settings import settings


def main(arguments: list[str]) -> None:
    """Run the step and report. The worker notices if this process dies instead."""
    pipe, order = int(arguments[0]), Order.model_validate_json(arguments[1])
    os.set_inheritable(pipe, False)
    prepare_process()
    telemetry.configure(settings())
    runner = runtime().runner
    import_provider(order)
    runner.services.isolate = None
    if settings().events:
        runner.services.observe = JobEvents(node=order.node).observe
    os.write(pipe, BEGUN)
    threading.Thread(target=report, args=(pipe,), name="midwatch-reports", daemon=True).start()
    with suppress(StoreUnavailable):  # nothing was recorded: the lease ends, and the step is claimed again
        runner.run(order.ref, order.nonce)
    os.write(pipe, DONE)


def import_provider(order: Order) -> None:
    """Import the SDK for a model turn, so that the step begins with it."""
    agents = runtime().agents
    if order.ref.kind is StepKind.MODEL and order.agent in agents:
        import_sdks(find_providers([agents.find(order.agent)], ("model",)))


def prepare_process() -> None:
    """Leave the end of this process to the worker, and be the first to go if memory runs out.

    A service manager sends SIGTERM to every process. The worker then waits for its steps. A handler that does nothing is used
    and not SIG_IGN, which programs started by a tool would inherit.
    """
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda *_: None)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def report(pipe: int) -> None:
    """Report again and again that the threads of this process run."""
    waiting = threading.Event()
    while not waiting.wait(REPORT_S):
        try:
            os.write(pipe, RUNS)
        except OSError:  # the worker has stopped reading
            return


if __name__ == "__main__":
    main(sys.argv[1:])
