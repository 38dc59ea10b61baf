"""A fleet whose model drifts in long conversations. No call fails silently, and the rate of invalid calls can be read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.simulator import Conversation, ModelServer, Say, Use
from midwatch.workers.simulator.metering import Meter
from tests.faults.crew import ROOT, Crew, ready
from tests.faults.drift_agents import MODEL
from tests.patience import PATIENCE_S

ORDERS = 4
DRIFT, ABOVE_TOKENS = 0.08, 50_000
LONG = "The customer's file. " * 10_000
"""52,500 tokens as the server counts them."""

MISTAKES = (
    "{}",
    '{"order_id":"W1","amount":"100"}',
    '{"order_id":null,"amount":1}',
    '{"order_id":"W1","amount":1',
    "{'order_id': 1}",
)


class Drifting:
    """The model books four orders and says so. In a long conversation, 8 % of its calls are invalid."""

    def __init__(self) -> None:
        self.wrong = self.calls_when_long = 0
        self._luck = random.Random(5)
        self._meter = Meter()
        self._lock = threading.Lock()

    def __call__(self, conversation: Conversation) -> Say | Use:
        booked = sum(turn.tool == "book" and not turn.is_error for turn in conversation.turns)
        if booked >= ORDERS:
            return Say(f"Booked {booked}.")
        right = json.dumps({"order_id": f"W{booked}", "amount": 100 + booked})
        with self._lock:
            if self._meter.count(conversation) <= ABOVE_TOKENS:
                return Use([("book", right)])
            self.calls_when_long += 1
            if self._luck.random() >= DRIFT:
                return Use([("book", right)])
            self.wrong += 1
            return Use([("book", self._luck.choice(MISTAKES))])


def midwatch(arguments: list[str], url: str, prefix: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as an operator does."""
    env = {**os.environ, "MIDWATCH_REDIS_URL": url, "MIDWATCH_PREFIX": prefix}
    command = [sys.executable, "-c", "from midwatch.workers.cli import main; raise SystemExit(main())", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("jobs", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_drifting_model_loses_no_booking(server: EmbeddedServer, prefix: str, tmp_path: Path, jobs: int) -> None:
    """Each job booked what it says, or is a dead letter with a reason. `midwatch findings` has the same rate as the server."""
    brain = Drifting()
    with (
        ModelServer(brain) as model,
        Crew(tmp_path, server, prefix, **model.environment(), MIDWATCH_AGENTS="tests.faults.drift_agents") as crew,
    ):
        ready(*[crew.start(f"worker-{n}", "threads", 8) for n in range(2)])
        made = [crew.enqueue(f"Job {n}. {LONG if n % 2 else ''}", agent="clerk") for n in range(jobs)]
        ends = Counter[JobStatus]()
        for job in made:
            result = job.result(PATIENCE_S)
            ends[result.status] += 1
            if result.status is JobStatus.DEAD_LETTERED:
                assert result.failure is not None
                assert result.failure.detail.startswith("repeated_failure: book: ")
                continue
            assert result.output == f"Booked {ORDERS}."
            said = crew.client.sessions.messages(job.session_id)
            done = [message.content for message in said if isinstance(message, ToolMessage) and not message.is_error]
            assert done == [f"booked W{n}: {100 + n}" for n in range(ORDERS)]
        assert ends[JobStatus.COMPLETED] + ends[JobStatus.DEAD_LETTERED] == jobs
        assert ends[JobStatus.COMPLETED] >= 0.99 * jobs
        assert len(crew.client.dead_letters.list()) == ends[JobStatus.DEAD_LETTERED]
        shown = midwatch(["findings", "--json", "--all"], server.url, prefix)
    found = {(row["tool"], row["context"]): row for row in json.loads(shown.stdout)["rows"]}
    long, short = found["book", "50k-100k"], found["book", "under 10k"]
    assert (long["model"], long["calls"], long["invalid"]) == (MODEL, brain.calls_when_long, brain.wrong)
    assert (short["calls"], short["invalid"]) == (ORDERS * (jobs - jobs // 2), 0)
    assert shown.returncode == int(long["over"])
