"""One budget of tokens for a whole lineage, workers that are killed in mid-call, a model server that lies about usage."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from schemas.failure import FailureKind
from schemas.job import JobStatus
from tests.faults.budget_agents import LOOKS, MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS, MODEL, SCOUTS
from tests.faults.crew import Crew, children, ready, until
from workers.embedded import EmbeddedServer
from workers.fleet import Member
from workers.simulator import Conversation, Faults, ModelServer, Say, Use
from workers.simulator.metering import Meter, spoken

KILLS = 8
RETURNED_WITHIN_S = 40.0
"""The bound on a call (3 s), time to commit, a grace of 15 s, a steward's next look."""


class Truth:
    """The brain of the model server, which writes down what each request made it read and write, whatever it says later."""

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
            self.written += spoken(answer.text, made)
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


def kill_in_mid_call(workers: list[Member], server: ModelServer, over: threading.Event) -> None:
    """Processes at random, while calls are under way: some of them between what they reserved and what they would settle."""
    rng = random.Random(11)
    for _ in range(KILLS):
        until(lambda: over.is_set() or server.stats().in_flight >= 4, 60, "calls to be under way")
        victims = [pid for worker in workers for pid in children(worker)]
        if over.is_set() or not victims:
            return
        os.kill(rng.choice(victims), signal.SIGKILL)
        over.wait(0.7)


FAULTS = {"honest": Faults(), "lying": Faults(no_usage=0.3, absurd_usage=0.2, seed=5)}
"""The second leaves out the usage of half its answers, or says nought, below nought, a trillion, fifty times too much."""


@pytest.mark.parametrize("usage", FAULTS)
def test_a_lineage_never_uses_more_than_its_budget(
    server: EmbeddedServer, prefix: str, tmp_path: Path, usage: str
) -> None:
    """Eight processes, eight children at once, kills and lies: by the server's own count within the budget, which binds.

    It is used to its end where usage is told; and in the end nothing is reserved any more, though nobody calls.
    """
    truth = Truth()
    with (
        ModelServer(truth, faults=FAULTS[usage], latency_ms=(100, 400)) as model,
        Crew(tmp_path, server, prefix, **model.environment(), MIDWATCH_AGENTS="tests.faults.budget_agents") as crew,
    ):
        workers = [crew.start(f"worker-{n}", "prefork", 4) for n in range(2)]
        ready(*workers)
        crew.fleet.watch()
        job = crew.enqueue("send them all", agent="chief")
        over = threading.Event()
        killer = threading.Thread(target=kill_in_mid_call, args=(workers, model, over))
        killer.start()
        try:
            result = job.result(100)
        finally:
            over.set()
            killer.join()
        assert result.status in (JobStatus.COMPLETED, JobStatus.DEAD_LETTERED)
        gate, client = crew.client.gate, crew.client.store.client
        until(lambda: gate.show(MODEL).live == 0, RETURNED_WITHIN_S, "every reservation to return")
        assert gate.show(MODEL).lost > 0, "somebody was killed in mid-call"
        raw = client.hmget(crew.client.operations.keys.lineage(job.id), "ri", "ro", "ui")
        reserved_in, reserved_out, charged_in = (float(figure or 0) for figure in raw)
        assert (reserved_in, reserved_out) == (0, 0)
        assert truth.read <= MAX_INPUT_TOKENS
        assert truth.written <= MAX_OUTPUT_TOKENS
        assert charged_in >= 0.75 * MAX_INPUT_TOKENS, "it was used to its end"
        if usage == "honest":
            assert truth.read >= 0.5 * MAX_INPUT_TOKENS, "and for what was read, but for those who died"
        letters = [letter.failure for letter in crew.client.dead_letters.list()]
        assert any(failure.kind is FailureKind.BUDGET_EXCEEDED for failure in letters), "the budget was what ended it"
