"""Run a step alone in a separate process, and find out how that process ends. See `orchestration.steps.losses.suspects`.

The process continues the claim of this worker (`isolated_step`). It dies with this worker, so its death is noticed only while
this worker lives. It reports over a pipe: one byte when the step begins, one every half second, one when the step is done.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import structlog

from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.isolation import AloneEnd, AloneRun, alone
from midwatch.orchestration.steps.losses.suspects import START_MS
from midwatch.schemas.loss import LossCause
from midwatch.workers.celery_app.flower_events import node_name
from midwatch.workers.process.die_with_parent import Process, start_process
from midwatch.workers.process.isolation.memory_kills import count_memory_kills
from midwatch.workers.process.isolation.order import BEGUN, DONE, Order

log = structlog.get_logger("midwatch.isolation")

MOST_AT_ONCE = 4
"""Most separate processes of one worker process. Each needs the memory of an idle worker (65 MB and the agents' imports), and a
second of CPU."""

ROOM_S = 10.0
"""How long a step waits for room, with its lease kept alive. Then it is put back."""

SILENT_S = 3.0
"""A process that is over its time, and has not reported for this long, hangs: no thread of it runs any more."""

OVERTIME_S = 120.0
"""A process that still reports is killed this long after its time. A commit waits at most 60 s for the server."""

EXIT_S = 5.0
"""How long a process may need to end after its step is done."""

SETTLE_S = 0.3
"""If a whole group of processes is killed, the separate process may die a moment before this one. Its death proves nothing
then. So this worker waits for that moment before it calls the death a proof."""

_POLL_S = 0.05

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)


class Isolation:
    """Runs suspects of one worker process. Thread-safe. It is the hook `Services.isolate`."""

    def __init__(self, most_at_once: int = MOST_AT_ONCE) -> None:
        self._room = threading.BoundedSemaphore(most_at_once)

    def __call__(self, claim: Claim, limit_ms: int) -> AloneRun:
        """Run the claimed step in a process that executes nothing else. Return how the process ended."""
        if not self._room.acquire(timeout=ROOM_S):
            return AloneRun(AloneEnd.NO_ROOM)
        try:
            return self._run(claim, limit_ms)
        finally:
            self._room.release()

    def _run(self, claim: Claim, limit_ms: int) -> AloneRun:
        reading, writing = os.pipe()
        order = Order(ref=claim.ref, nonce=alone(claim.nonce), agent=claim.job.agent, node=node_name())
        argv = [
            sys.executable,
            "-m",
            "midwatch.workers.process.isolation.isolated_step",
            str(writing),
            order.model_dump_json(),
        ]
        try:
            process = start_process(argv, log_path=None, pass_fds=(writing,))
        except OSError as error:
            os.close(reading)
            return AloneRun(AloneEnd.NOT_STARTED, detail=f"{error.strerror or error} (errno {error.errno})")
        finally:
            os.close(writing)
        log.info("isolation.started", job_id=claim.ref.job_id, step=claim.ref.step, pid=process.pid)
        watch = _Watch(process, reading, limit_ms / 1000)
        try:
            run = watch.wait()
        finally:
            watch.close()
        log.info("isolation.ended", job_id=claim.ref.job_id, step=claim.ref.step, pid=process.pid, end=run.end.value)
        return run


class _Watch:
    """Reads the reports of one process, and waits for its end."""

    def __init__(self, process: Process, pipe: int, limit_s: float) -> None:
        self._process = process
        self._pipe = pipe
        self._limit_s = limit_s
        self._marks: set[bytes] = set()
        self._is_open = True
        self._since_s = self._report_s = time.monotonic()
        """When the current phase began (start, step, exit), and when the process reported last."""
        self._most_bytes = 0
        os.set_blocking(pipe, False)

    def wait(self) -> AloneRun:
        """Wait until the process has ended. Kill it if it exceeds its time."""
        killed_because = ""
        memory_kills = count_memory_kills()
        while not self._has_ended():
            self._read_reports(_POLL_S)
            if not killed_because and (killed_because := self._find_excess()):
                self._process.kill()
        self._read_reports(0)
        cause = LossCause.HUNG if killed_because else self._find_cause(memory_kills)
        detail = killed_because or self._describe_end(cause)
        name = f"{socket.gethostname()}.{self._process.pid}"
        if DONE in self._marks:
            return AloneRun(AloneEnd.DONE, name)
        if BEGUN not in self._marks:
            return AloneRun(AloneEnd.NOT_STARTED, name, f"it {detail}", cause)
        time.sleep(SETTLE_S)
        return AloneRun(AloneEnd.DIED, name, detail, cause)

    def close(self) -> None:
        """Close the pipe. Kill the process if the wait was interrupted."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        os.close(self._pipe)

    def _has_ended(self) -> bool:
        """Collect the exit code of the process, with its use of memory."""
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._most_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return True

    def _read_reports(self, timeout_s: float) -> None:
        if not self._is_open:
            time.sleep(timeout_s)
            return
        with suppress(BlockingIOError):
            if select.select([self._pipe], [], [], timeout_s)[0]:
                self._note(os.read(self._pipe, 4096))

    def _note(self, reports: bytes) -> None:
        now = time.monotonic()
        self._is_open = bool(reports)
        self._report_s = now
        for mark in (BEGUN, DONE):
            if mark in reports:
                self._marks.add(mark)
                self._since_s = now

    def _find_excess(self) -> str:
        """Why the process must be killed now. Empty if it must not."""
        now = time.monotonic()
        phase_s, silent_s = now - self._since_s, now - self._report_s
        if DONE in self._marks:
            return "did not exit after its step" if phase_s > EXIT_S else ""
        if BEGUN not in self._marks:
            return f"was not ready within {START_MS // 1000} s" if phase_s > START_MS / 1000 else ""
        if phase_s > self._limit_s and silent_s > SILENT_S:
            return f"hung: it blocked all its threads, and was killed after {phase_s:.0f} s"
        return f"did not end within {phase_s:.0f} s and was killed" if phase_s > self._limit_s + OVERTIME_S else ""

    def _find_cause(self, memory_kills: int | None) -> LossCause:
        """Find out how the process ended. `memory_kills`: the kernel's counter when the process started."""
        code = self._process.returncode
        if code >= 0:
            return LossCause.EXITED
        if -code in CRASHES:
            return LossCause.CRASHED
        if -code != signal.SIGKILL:
            return LossCause.SIGNALLED
        now = count_memory_kills()
        if memory_kills is None or now is None:
            return LossCause.KILLED_OR_OUT_OF_MEMORY
        return LossCause.OUT_OF_MEMORY if now > memory_kills else LossCause.KILLED

    def _describe_end(self, cause: LossCause) -> str:
        code = self._process.returncode
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        match cause:
            case LossCause.EXITED:
                return f"ended with exit code {code} before the step was done"
            case LossCause.CRASHED:
                return f"was killed by {name} (a crash in native code)"
            case LossCause.OUT_OF_MEMORY:
                return f"was killed by the kernel, because memory ran out{self._describe_memory()}"
            case LossCause.KILLED:
                return f"was killed by {name} from outside (the kernel killed nothing for memory)"
            case LossCause.KILLED_OR_OUT_OF_MEMORY:
                return f"was killed by {name} (out of memory, or from outside{self._describe_memory()})"
            case _:
                return f"was killed by {name}"

    def _describe_memory(self) -> str:
        """How much memory the process used, if it used more than this one. A smaller number may be this process's own."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return f"; it used {self._most_bytes // 1_000_000:,} MB" if self._most_bytes > own else ""
