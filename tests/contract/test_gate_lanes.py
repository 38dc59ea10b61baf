"""Lanes: calls of jobs that have begun go before first calls, first calls are fair among themselves, and replays go last."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.step import Priority, StepRef
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits

Make = Callable[..., GateBench]
HIGH, NORMAL, LOW, REPLAY = Priority


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(**fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**fields)})
        bench.warm()
        return bench

    return make


def closed(bench: Make, **fields: object) -> GateBench:
    """A bench of one call a second, whose bucket is empty."""
    gate = bench(**{"rpm": 60, **fields})
    gate.admit_all(gate.call("now", step="2"))
    return gate


def wait(gate: GateBench, *calls: Call) -> None:
    """Ask to start each call. Each must wait in line."""
    for call in calls:
        assert gate.ask(call) in ("rate", "queued")


def drain(gate: GateBench, seconds: int) -> list[str]:
    """The jobs whose calls are woken, one a second. Each woken call starts."""
    went = []
    for _ in range(seconds):
        gate.time.pass_s(1)
        for ref in gate.board.release()[0]:
            gate.admit_all(again(gate, ref))
            went.append(ref.job_id)
    return went


def again(gate: GateBench, ref: StepRef) -> Call:
    """The call of a woken step."""
    return gate.call(ref.job_id, step=ref.step, priority=ref.priority)


def test_steps_of_begun_jobs_go_before_first_steps(bench: Make) -> None:
    """Ten jobs wait to begin. A later step of another job comes after them, and goes first."""
    gate = closed(bench)
    wait(gate, *(gate.call(f"new-{n}") for n in range(10)), gate.call("begun", step="2"))
    assert drain(gate, 3) == ["begun", "new-0", "new-1"]


def test_a_new_first_step_waits_behind_begun_steps(bench: Make) -> None:
    """There are tokens for one call, and a begun step waits. A first step that asks now must not take them."""
    gate = closed(bench)
    wait(gate, gate.call("begun", step="2"))
    gate.time.pass_s(1)
    assert gate.ask(gate.call("new")) == "queued"
    assert drain(gate, 1) == ["begun"]


def test_a_begun_step_does_not_wait_behind_first_steps(bench: Make) -> None:
    """Only first steps wait, and there are tokens. A later step that asks is admitted."""
    gate = closed(bench)
    wait(gate, gate.call("new"))
    gate.time.pass_s(1)
    gate.admit_all(gate.call("begun", step="2"))


def test_first_step_of_a_child_counts_as_begun(bench: Make) -> None:
    """A parent waits for its child. If the child waited behind all new jobs, no parent would end."""
    gate = closed(bench)
    child = gate.call("child")
    job = child.claim.job.model_copy(update={"parent": StepRef(job_id="p", session_id="s", step="1.0")})
    object.__setattr__(child.claim, "job", job)
    wait(gate, gate.call("new"), child)
    assert gate.status().waiting["rest"] == 1
    assert drain(gate, 1) == ["child"]


def test_retry_of_a_first_step_is_no_first_step(bench: Make) -> None:
    """Its job has begun: it has made a call."""
    gate = closed(bench)
    wait(gate, gate.call("new"), gate.call("retry", attempt=1))
    assert gate.status().waiting["retry"] == 1
    assert drain(gate, 2) == ["retry", "new"]


def test_first_steps_of_priority_high_wait_for_begun_ones_of_high(bench: Make) -> None:
    """Interactive work that has begun ends before other interactive work begins."""
    gate = closed(bench)
    wait(gate, *(gate.call(f"new-{n}", priority=HIGH) for n in range(5)))
    wait(gate, *(gate.call(f"begun-{n}", step="2", priority=HIGH) for n in range(5)))
    assert [job.partition("-")[0] for job in drain(gate, 10)] == ["begun"] * 5 + ["new"] * 5


def test_first_steps_of_priority_high_share_with_begun_steps(bench: Make) -> None:
    """A flood of interactive work that begins does not stop other work that has begun: high and normal share four to two."""
    gate = closed(bench)
    wait(gate, *(gate.call(f"high-{n}", priority=HIGH) for n in range(60)))
    wait(gate, *(gate.call(f"begun-{n}", step="2") for n in range(60)))
    went = Counter(job.partition("-")[0] for job in drain(gate, 30))
    assert went["high"] == pytest.approx(20, abs=2)
    assert went["begun"] == pytest.approx(10, abs=2)


def test_replays_wait_behind_all_live_work(bench: Make) -> None:
    """Also behind first steps of priority low, and behind retries."""
    gate = closed(bench)
    wait(gate, gate.call("replay", step="3", priority=REPLAY), gate.call("low", priority=LOW))
    wait(gate, gate.call("begun", step="2"), gate.call("retry", step="2", attempt=1))
    assert gate.status().waiting == {
        "high": 0, "high_first": 0, "rest": 1, "retry": 1, "rest_first": 1, "replay": 1
    }  # fmt: skip
    assert drain(gate, 4) == ["begun", "retry", "low", "replay"]


def test_replays_leave_half_of_the_bucket_to_live_calls(bench: Make) -> None:
    """A live call that comes while replays use the limit starts at once, again and again."""
    gate = bench(rpm=600, burst_s=1.0)
    for n in range(90):
        gate.ask(gate.call(f"replay-{n}", step="2", priority=REPLAY))
    for n in range(14):
        gate.time.pass_s(0.5)
        for ref in gate.board.release()[0]:
            gate.admit_all(again(gate, ref))
        assert gate.status().waiting["replay"]
        gate.held_ms.clear()
        gate.admit_all(gate.call(f"live-{n}", step="2"))
        assert gate.held_ms == [0]


def test_a_second_tenant_begins_beside_a_flood_of_the_first(bench: Make) -> None:
    """Two hundred jobs of one tenant wait to begin. Five of another tenant take turns with them, though they come last."""
    gate = closed(bench)
    wait(gate, *(gate.call(f"flood-{n}", tenant="flood") for n in range(200)))
    drain(gate, 5)
    wait(gate, *(gate.call(f"other-{n}", tenant="other") for n in range(5)))
    went = drain(gate, 12)
    assert sum(job.startswith("other") for job in went) == 5


def test_begun_work_does_not_cost_a_tenant_its_turn_to_begin(bench: Make) -> None:
    """Begun steps of the first tenant go for a long time. That puts a new tenant behind none of its waiting first steps."""
    gate = closed(bench)
    wait(gate, *(gate.call(f"flood-{n}", tenant="flood") for n in range(50)))
    for n in range(100):
        wait(gate, gate.call(f"begun-{n}", step="2", tenant="flood"))
        assert drain(gate, 1) == [f"begun-{n}"]
    wait(gate, gate.call("other", tenant="other"))
    assert "other" in drain(gate, 2)


@pytest.mark.parametrize("seed", range(6))
def test_no_call_starves(bench: Make, seed: int) -> None:
    """Calls of all kinds come in any order, below the limit on average. When no more come, all have gone, none of them twice."""
    chance, gate = random.Random(seed), closed(bench)
    asked: list[str] = []
    went: list[str] = []
    for n in range(60):
        for m in range(chance.choice((0, 0, 1, 1, 3))):
            priority, step = chance.choice(tuple(Priority)), chance.choice(("1", "2"))
            call = gate.call(f"{n}-{m}", step=step, priority=priority, tenant=chance.choice(("a", "b")))
            asked.append(call.claim.ref.job_id)
            if gate.ask(call) == "admitted":
                went.append(call.claim.ref.job_id)
        went += drain(gate, 1)
    went += drain(gate, len(asked))
    assert sorted(went) == sorted(asked)
    assert not any(gate.status().waiting.values())


def test_a_record_names_the_line_that_earlier_releases_know(bench: Make, redis: redis_py.Redis) -> None:
    """A worker of an earlier release that claims such a step reads the line `rest`, and puts the call there."""
    gate = closed(bench)
    wait(gate, gate.call("new"))
    _state, calls, _, rest, *_ = gate.keys.downstream(SHOP)
    assert b"\xa4lane\xa1n" in redis.hget(calls, "new|1")
    redis.zadd(rest, {"new|1": 1.0})  # what the earlier release does
    assert drain(gate, 2) == ["new"], "it is woken once"
    assert not any(gate.status().waiting.values())


def test_a_first_step_in_the_line_of_an_earlier_release_is_woken(bench: Make, redis: redis_py.Redis) -> None:
    """An earlier release put it into the line `rest`. A steward of this release finds it there."""
    gate = closed(bench)
    wait(gate, gate.call("old", step="2"))
    _state, calls, _, rest, *_ = gate.keys.downstream(SHOP)
    record = redis.hget(calls, "old|2")
    redis.hset(calls, "old|1", record.replace(b"|old|2", b"|old|1"))
    redis.zadd(rest, {"old|1": redis.zscore(rest, "old|2")})
    redis.hdel(calls, "old|2")
    assert drain(gate, 2) == ["old"]
    assert not any(gate.status().waiting.values())
