"""One token budget for a whole lineage. Workers are killed during calls, and the model server reports wrong usage."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.process import Member
from midwatch.workers.simulator import Conversation, Faults, ModelServer, Say, Use
from midwatch.workers.simulator.metering import Meter, count_output_tokens
from tests.faults.budget_agents import LOOKS, MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS, MODEL, SCOUTS
from tests.faults.crew import Crew, children, ready
from tests.patience import PATIENCE_S, wait_for

CHILDREN = 4
"""Processes of each of the two workers. Each makes one call at a time."""
KILLS = 8


class Truth:
    """The model server's brain. It records the tokens that each request really used, even if it reports other usage."""

    def __init__(self) -> None:
        self.read = self.written = self.calls = 0
        self._meter = Meter()
        self._lock = threading.Lock()

    def __call__(self, conversation: Conversation) -> Say | Use:
        answer = self._answer(conversation)
        made = ((name, str(said)) for name, said in (answer.calls if isinstance(answer, Use) else ()))
        with self._lock:
            self.calls += 1
            self.read += self._meter.count(conversation)
            self.written += count_output_tokens(answer.text, made)
        return answer

    def _answer(self, conversation: Conversation) -> Say | Use:
        if conversation.offers("scout"):
            if conversation.results("scout"):
                return Say("They have all been there.")
            return Use([("scout", {"input": f"sector {n}"}) for n in range(SCOUTS)])
        looked = len(conversation.results("look"))
        if looked < LOOKS:
            return Use([("look", {"sector": conversation.first_user, "times": looked + 1})])
        return Say(f"{conversation.first_user}: nothing but sea.")


def kill(pids: set[int], sign: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to all of them. Processes that are already dead are skipped."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sign)


def kill_a_crew(worker: Member, calls_under_way: Callable[[], int]) -> None:
    """Kill all children of one of the two workers, at least one of them certainly during a call.

    They are frozen first, so that none can settle between the check and the kill. If more calls are in progress than the other
    worker has children, a frozen child must have made one of them. If not, they are thawed, and it is tried again.
    """

    def struck() -> bool:
        victims = children(worker)
        kill(victims, signal.SIGSTOP)
        certain = calls_under_way() > CHILDREN
        kill(victims, signal.SIGKILL if certain else signal.SIGCONT)
        return certain

    wait_for(struck, f"more than {CHILDREN} calls to be under way")


def kill_at_random(workers: list[Member], server: ModelServer, over: threading.Event) -> None:
    """Kill random processes while calls are in progress, some of them between reservation and settlement."""
    rng = random.Random(11)
    for _ in range(KILLS):
        wait_for(lambda: over.is_set() or server.stats().in_flight >= 4, "calls to be under way")
        victims = [pid for worker in workers for pid in children(worker)]
        if over.is_set() or not victims:
            return
        kill({rng.choice(victims)})
        over.wait(0.7)


FAULTS = {"honest": Faults(), "lying": Faults(no_usage=0.3, absurd_usage=0.2, seed=5)}
"""`lying` leaves out the usage of half its answers, or reports zero, a negative number, a trillion, or fifty times too much."""

SLOW = Faults(slow=1.0, slow_ms=5_000)
"""The first delay of all scouts, so that all of them call at the same time.

Long enough for a busy machine, below a call's bound.
"""


@pytest.mark.parametrize("usage", FAULTS)
def test_a_lineage_never_uses_more_than_its_budget(
    server: EmbeddedServer, prefix: str, tmp_path: Path, usage: str
) -> None:
    """By the server's own count the lineage stays within its budget, with eight children in eight processes.

    This holds in spite of kills and wrong usage. With correct usage the budget is used up. In the end nothing is reserved,
    although no more calls are made.
    """
    truth = Truth()
    with (
        ModelServer(truth, faults=SLOW, latency_ms=(100, 400)) as model,
        Crew(tmp_path, server, prefix, **model.environment(), MIDWATCH_AGENTS="tests.faults.budget_agents") as crew,
    ):
        workers = [crew.start(f"worker-{n}", "prefork", CHILDREN) for n in range(2)]
        ready(*workers)
        crew.fleet.watch()
        job = crew.enqueue("send them all", agent="chief")
        gate, client = crew.client.gate, crew.client.store.client
        model.wait_until(lambda stats: stats.requests > CHILDREN, PATIENCE_S)
        kill_a_crew(workers[0], lambda: gate.show(MODEL).live)
        model.use(FAULTS[usage])
        over = threading.Event()
        killer = threading.Thread(target=kill_at_random, args=(workers, model, over))
        killer.start()
        try:
            result = job.result(PATIENCE_S)
        finally:
            over.set()
            killer.join()
        assert result.status in (JobStatus.COMPLETED, JobStatus.DEAD_LETTERED)
        wait_for(lambda: gate.show(MODEL).live == 0, "every reservation to return")
        assert gate.show(MODEL).lost > 0, "at least one process was killed during a call"
        raw = client.hmget(crew.client.operations.keys.lineage(job.id), "ri", "ro", "ui")
        reserved_in, reserved_out, charged_in = (float(figure or 0) for figure in raw)
        assert (reserved_in, reserved_out) == (0, 0)
        assert truth.read <= MAX_INPUT_TOKENS
        assert truth.written <= MAX_OUTPUT_TOKENS
        assert charged_in >= 0.75 * MAX_INPUT_TOKENS, "the budget was used up"
        if usage == "honest":
            assert truth.read >= 0.5 * MAX_INPUT_TOKENS, "the charge equals the used tokens, except for dead workers"
        letters = [letter.failure for letter in crew.client.dead_letters.list()]
        assert any(failure.kind is FailureKind.BUDGET_EXCEEDED for failure in letters), "the budget ended the job"
