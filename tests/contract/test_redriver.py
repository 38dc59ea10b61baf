"""Letters that are replayed without a human: probes, batches, waits, the lease. Real Redis, and the Redis in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.code_version import code_version
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.letters.redriver import Redriver
from midwatch.orchestration.client.letters.replay_window import PROBES
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.steps.letter_cause import add_cause
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Priority, StepRef
from tests.contract.store_bench import Bench, ending_of, in_process_bench, redis_bench, trace_of
from tests.properties.two_servers import new_job


def agent(prompt: str = "Be brief.", **policy: Any) -> Agent:
    return Agent("clerk", "anthropic:claude-sonnet-4-6", prompt, retry_config=RetryConfig(redrive="auto", **policy))


class Stage:
    """A fleet whose steps fail while `broken` says so, and the redriver of one of its workers."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.agent = agent()
        self.broken: Callable[[StepRef], bool] = lambda _: False
        self.kind = FailureKind.OVERLOADED
        self.downstream: str | None = "shop"
        self.calls = 0

    def redriver(self, worker: str = "w1", first_wait_ms: int = 60_000) -> Redriver:
        agents = Registry([self.agent])
        gate = Board(self.bench.client, self.bench.keys)
        return Redriver(self.bench.operations, gate, agents, worker, first_wait_ms=first_wait_ms)

    def bury(self, count: int) -> None:
        """Run jobs whose first step fails."""
        self.broken = lambda _: True
        start = len(self.bench.operations.jobs(limit=1_000))
        for n in range(start, start + count):
            job = new_job(f"job-{n:03d}", f"s{n}")
            assert self.bench.store.enqueue(job)
        self.work()
        self.broken = lambda _: False

    def work(self) -> int:
        """Run all steps that were published. Returns their number."""
        refs, self.bench.sent.refs[:] = list(self.bench.sent.refs), []
        for ref in refs:
            self.calls += 1
            claim = self.bench.claim(ref)
            if not self.broken(ref):
                assert self.bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim))
                continue
            failure = Failure(kind=self.kind, detail="529")
            letter = DeadLetterRecord(
                job_id=ref.job_id, session_id=ref.session_id, agent="clerk", step=ref.step, kind=ref.kind,
                failure=failure, dead_ms=claim.now_ms,
            )  # fmt: skip
            ending = Ending(JobStatus.DEAD_LETTERED, failure=failure, letter=letter)
            ending = add_cause(ending, Registry([self.agent]), claim.job, self.downstream)
            assert self.bench.store.finish(claim, ending, trace_of(claim, "dead_letter"))
        return len(refs)

    def run(self, redriver: Redriver, looks: int = 12) -> list[int]:
        """Let the redriver look and the fleet work, in turn. Returns how many steps ran each time."""
        ran = []
        for _ in range(looks):
            redriver.look()
            self.skip_waits(first_only=True)
            ran.append(self.work())
        return ran

    def skip_waits(self, *, first_only: bool = False) -> None:
        """Let the time of the next batch come, or only that of the first batch. The clock of the bench may stand still."""
        key = self.bench.keys.redrive()
        for group, raw in self.bench.client.hgetall(key).items():
            state = json.loads(raw)
            if not (first_only and state["waits"]):
                self.bench.client.hset(key, group, json.dumps({**state, "next_ms": 0}))

    def statuses(self) -> dict[str, int]:
        found = [job.status.value for job in self.bench.operations.jobs(limit=1_000)]
        return {status: found.count(status) for status in set(found)}


@pytest.fixture(params=["in_process", "redis"])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "in_process":
        return Stage(in_process_bench())
    return Stage(redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix")))


def test_letters_are_replayed_when_the_downstream_is_back(stage: Stage) -> None:
    """Probes first, then growing batches, all below live work. Nothing is left behind."""
    stage.bury(60)
    assert stage.bench.operations.counters()["jobs.dead_lettered"] == 60
    ran = stage.run(stage.redriver())
    assert [count for count in ran if count] == [PROBES, 10, 20, 25]
    assert stage.statuses() == {"completed": 60}
    assert stage.bench.operations.counters()["letters.redriven"] == 60
    assert not stage.bench.client.exists(stage.bench.keys.redrive())
    assert {job.priority for job in stage.bench.operations.jobs()} == {Priority.REPLAY}


def test_cause_that_is_still_there_costs_one_batch_of_probes(stage: Stage) -> None:
    """The next batch comes after a wait, which doubles. It takes other letters."""
    stage.bury(20)
    redriver = stage.redriver()
    stage.broken = lambda _: True
    waits = []
    for _ in range(3):
        stage.calls = 0
        stage.skip_waits()
        stage.run(redriver)
        assert stage.calls == PROBES
        (raw,) = stage.bench.client.hvals(stage.bench.keys.redrive())
        waits.append(json.loads(raw)["next_ms"] - stage.bench.operations.letters.now_ms())
    assert [round(wait_ms / 60_000) for wait_ms in waits] == [2, 4, 8]
    generations = sorted(letter.generation for letter in stage.bench.operations.dead_letters())
    assert generations == [0] * 5 + [1] * 15


def test_letter_beyond_max_redrives_stays_for_a_human(stage: Stage) -> None:
    """It leaves the index. A replay by a human makes it count from zero."""
    stage.agent = agent(max_redrives=1)
    stage.bury(2)
    redriver = stage.redriver()
    stage.broken = lambda _: True
    for _ in range(3):
        stage.run(redriver, 4)
        stage.skip_waits()
    letters = stage.bench.operations.dead_letters()
    assert [(letter.generation, letter.redrive) for letter in letters] == [(1, False)] * 2
    stage.run(redriver, 2)
    assert not stage.bench.client.exists(stage.bench.keys.redrive())
    assert stage.bench.operations.replay(letters[0].job_id)
    stage.work()
    assert stage.bench.operations.dead_letter(letters[0].job_id).redrive


def test_letter_of_manual_policy_is_never_replayed(stage: Stage) -> None:
    """That is the default."""
    stage.agent = Agent("clerk", "anthropic:claude-sonnet-4-6", "Be brief.")
    stage.bury(3)
    assert stage.redriver().look() == "idle"
    assert stage.statuses() == {"dead_lettered": 3}


def test_only_the_holder_of_the_lease_redrives(stage: Stage) -> None:
    """When it is gone, another worker goes on with its batch."""
    stage.bury(30)
    first, second = stage.redriver("w1"), stage.redriver("w2")
    first.look()
    assert second.look() == "not_mine"
    stage.bench.client.delete(stage.bench.keys.redrive_lease())
    stage.run(second)
    assert first.look() == "not_mine"
    assert stage.statuses() == {"completed": 30}


def test_block_is_waited_for_without_a_probe(redis: redis_py.Redis, prefix: str) -> None:
    """The coordinator says when it is lifted, so nothing is tried before. (The Redis in this process has no coordinator.)"""
    stage = Stage(redis_bench(redis, prefix))
    stage.kind = FailureKind.QUOTA_EXHAUSTED
    stage.bury(6)
    board = Board(stage.bench.client, stage.bench.keys)
    board.set("shop", rpm=60)
    board.block("shop", "the cap is reached")
    assert sum(stage.run(stage.redriver())) == 0
    board.unblock("shop")
    stage.run(stage.redriver())
    assert stage.statuses() == {"completed": 6}


def test_failure_in_the_code_waits_for_other_code(stage: Stage) -> None:
    """The version that failed is not tried again. A version under which a batch failed again is not tried twice."""
    stage.kind, stage.downstream = FailureKind.INTERNAL, None
    stage.bury(12)
    assert sum(stage.run(stage.redriver())) == 0
    stage.agent = agent("Be very brief.")
    stage.broken = lambda _: True
    redriver = stage.redriver()
    stage.run(redriver)
    stage.skip_waits()
    assert sum(stage.run(redriver)) == 0, "this version was tried"
    assert stage.calls == 12 + PROBES
    stage.agent, stage.broken = agent("Be brief, please."), lambda _: False
    mended = stage.redriver()
    for _ in range(4):
        stage.run(mended)
        stage.skip_waits()
    assert stage.statuses() == {"completed": 12}
    assert code_version(stage.agent) != code_version(agent())


def test_entry_of_a_letter_leaves_with_it(stage: Stage) -> None:
    """By a discard, by a human's replay, by a cancellation. An entry that was left behind is dropped."""
    stage.bury(4)
    operations, client, keys = stage.bench.operations, stage.bench.client, stage.bench.keys

    def entries() -> int:
        return sum(client.zcard(keys.index(p, "redrive")) for p in range(16))

    assert entries() == 4
    operations.discard("job-000")
    operations.cancel("job-001")
    operations.replay("job-002")
    assert entries() == 1
    letter = operations.dead_letter("job-003")
    client.hdel(keys.session(letter.session_id).split(":session:")[0] + ":letters", "job-003")
    stage.run(stage.redriver(), 3)
    assert entries() == 0


def test_damaged_index_keeps_no_letter_from_being_written(stage: Stage) -> None:
    """The letter is then for a human. Other partitions go on."""
    keys, client = stage.bench.keys, stage.bench.client
    p = keys.session("s0").split(":session:")[0]
    client.set(f"{p}:redrive", "x", ex=60)
    stage.bury(12)
    assert len(stage.bench.operations.dead_letters()) == 12
    stage.run(stage.redriver())
    left = [letter.job_id for letter in stage.bench.operations.dead_letters()]
    assert "job-000" in left
    assert len(left) < 6
    client.delete(f"{p}:redrive")
