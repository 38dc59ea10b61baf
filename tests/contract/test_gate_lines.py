"""Waiting in line: which call is woken next, how large each share is, and what happens to calls that never return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import redis as redis_py

from midwatch.orchestration.admission.board import AT_MOST, Board
from midwatch.orchestration.admission.redis_gate import WAKE_MS
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.step import Priority
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Crowd

Make = Callable[..., GateBench]
HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW


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


def queue(gate: GateBench, *jobs: str, **fields: object) -> list[Call]:
    """Make calls that must wait, in this order."""
    calls = [gate.call(job, **fields) for job in jobs]  # type: ignore[arg-type]
    assert {gate.ask(call) for call in calls} <= {"rate", "queued"}
    return calls


def release_steps(gate: GateBench) -> list[str]:
    """Let a steward wake steps now. Return their jobs."""
    return [ref.job_id for ref in gate.board.release()[0]]


def drain(gate: GateBench, seconds: int, step_s: float = 1.0) -> list[str]:
    """Return the jobs in the order in which they start, if each call asks as soon as it is woken."""
    went: list[str] = []
    for _ in range(int(seconds / step_s)):
        gate.time.pass_s(step_s)
        for ref in gate.board.release()[0]:
            gate.admit_all(gate.call(ref.job_id))
            went.append(ref.job_id)
    return went


# --- order


def test_calls_of_one_flow_start_in_their_order(bench: Make) -> None:
    """First come, first served. A new call does not pass waiting ones, whether there are tokens or not."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    queue(gate, *(f"j{n}" for n in range(10)))
    gate.time.pass_s(1)
    assert gate.ask(gate.call("newcomer")) == "queued"
    assert drain(gate, 11) == [*(f"j{n}" for n in range(10)), "newcomer"]


def test_a_woken_call_keeps_its_tokens(bench: Make) -> None:
    """A woken call's message is on the way to a worker. Another call that asks meanwhile does not get its tokens."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    [call] = queue(gate, "woken")
    gate.time.pass_s(1)
    assert release_steps(gate) == ["woken"]
    gate.time.pass_s(0.5)
    assert gate.ask(gate.call("newcomer")) == "rate"
    gate.admit_all(gate.claim_again(call))


def test_a_large_call_is_not_starved_by_small_ones(bench: Make) -> None:
    """The bucket fills up for the first call in line, and small calls wait behind it."""
    gate = bench(itpm=60_000)
    gate.admit_all(gate.call("now", 1_000))
    queue(gate, "large", tokens=5_000)
    queue(gate, *(f"small-{n}" for n in range(5)), tokens=10)
    gate.time.pass_s(0.9)
    assert release_steps(gate) == []
    gate.time.pass_s(0.1)
    assert release_steps(gate) == ["large"]


def test_many_stewards_wake_a_step_once(bench: Make, redis: redis_py.Redis) -> None:
    """Every worker has a steward, and all of them look at the same moment."""
    gate = bench(rpm=60_000)
    gate.board.pause(SHOP, 1)
    calls = [gate.call(f"j{n}") for n in range(300)]
    assert {gate.ask(call) for call in calls} == {"paused"}
    gate.board.close(SHOP)
    gate.time.pass_s(120)
    boards = [Board(redis, gate.keys, gate.library) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda board: board.release(), boards))
    jobs = [ref.job_id for refs, _ in replies for ref in refs]
    assert len(jobs) == len(set(jobs)) == 300
    assert max(len(refs) for refs, _ in replies) <= AT_MOST


# --- shares


def shares(gate: GateBench, crowds: Mapping[str, Sequence[Call]], seconds: float) -> dict[str, float]:
    """Return each tenant's share of the calls that were sent while every tenant had calls in line."""
    crowd = Crowd(gate)
    crowd.submit(*chain.from_iterable(zip(*crowds.values(), strict=True)))
    crowd.run(seconds)
    names = Counter(call.claim.ref.job_id.rpartition("-")[0] for at_s, call in crowd.sent if at_s > 1)
    assert all(names[name] < len(calls) for name, calls in crowds.items()), (
        "every tenant needs calls in line to the end"
    )
    return {name: count / names.total() for name, count in names.items()}


def test_tenants_share_by_weight(bench: Make) -> None:
    """A tenant of weight three gets three times what a tenant of weight one gets, within a tenth, over a long line."""
    gate = bench(rpm=600, tenant_weights={"gold": 3.0})
    found = shares(
        gate, {name: [gate.call(f"{name}-{n}", tenant=name) for n in range(300)] for name in ("gold", "plain")}, 30
    )
    assert found["gold"] == pytest.approx(0.75, rel=0.1)
    assert found["plain"] == pytest.approx(0.25, rel=0.1)


def test_priorities_share_by_weight(bench: Make) -> None:
    """High, normal and low share as four, two and one. Each of them gets calls."""
    gate = bench(rpm=600)
    crowds = {p.value: [gate.call(f"{p.value}-{n}", priority=p) for n in range(200)] for p in Priority}
    found = shares(gate, crowds, 25)
    for priority, weight in ((HIGH, 4), (NORMAL, 2), (LOW, 1)):
        assert found[priority.value] == pytest.approx(weight / 7, rel=0.1)


def test_tenants_share_tokens_and_not_calls(bench: Make) -> None:
    """A tenant whose calls are four times as large gets a quarter as many calls."""
    gate = bench(itpm=60_000, reserve_output="none")
    sizes = {"large": 400, "small": 100}
    crowds = {
        name: [gate.call(f"{name}-{n}", tokens, tenant=name) for n in range(200)] for name, tokens in sizes.items()
    }
    crowd = Crowd(gate, lambda call, at_s: Answer.good(call.input_tokens, 1))
    crowd.submit(*chain.from_iterable(zip(*crowds.values(), strict=True)))
    crowd.run(25)
    tokens = Counter[str]()
    for at_s, call in crowd.sent:
        tokens[call.claim.job.tenant or ""] += call.input_tokens if at_s > 1 else 0
    assert tokens["large"] / tokens.total() == pytest.approx(0.5, rel=0.1)


def waits(gate: GateBench, flood: int) -> list[float]:
    """Waits of eight tenants that use four fifths of the limit, with and without a ninth tenant that sends a flood at once."""
    crowd = Crowd(gate, slots=10_000)
    crowd.submit(*(gate.call(f"flood-{n}", tenant="flood") for n in range(flood)))
    arrived: dict[str, float] = {}
    for second in range(1, 31):
        for tenant in range(8):
            job = f"light-{tenant}-{second}"
            arrived[job] = float(second)
            crowd.submit(gate.call(job, tenant=f"light-{tenant}"), at_s=second)
    crowd.run(60)
    waited = {call.claim.ref.job_id: at_s for at_s, call in crowd.sent if call.claim.ref.job_id in arrived}
    assert set(waited) == set(arrived), "none of them waits for the end of the flood"
    return sorted(at_s - arrived[job] for job, at_s in waited.items())


def test_a_flood_of_one_tenant_hardly_delays_the_others(bench: Make) -> None:
    """The 95th percentile of the other tenants' waits grows by less than half."""
    calm, flooded = waits(bench(rpm=600, burst_s=0.1), 0), waits(bench(rpm=600, burst_s=0.1), 1_000)
    p95 = int(0.95 * len(calm))
    assert calm[p95] > 0.5, "they already wait for each other"
    assert flooded[p95] <= 1.5 * calm[p95]


# --- head-room


def test_interactive_calls_keep_head_room(bench: Make) -> None:
    """Other calls leave a fifth of the bucket. So a call with priority high starts at once, although the line is long."""
    gate = bench(rpm=600, headroom=0.2)
    gate.admit_all(*(gate.call(f"j{n}") for n in range(10)))
    queue(gate, *(f"batch-{n}" for n in range(60)))
    assert 30 <= len(drain(gate, 4, 0.1)) <= 40
    assert gate.status().waiters >= 20
    gate.held_ms.clear()
    gate.admit_all(gate.call("human-1", priority=HIGH), gate.call("human-2", priority=HIGH))
    assert gate.held_ms[-2:] == [0, 0]


def test_interactive_calls_wait_only_behind_each_other(bench: Make) -> None:
    """When the head-room is used up too, calls of priority high wait in a separate line, which has a greater weight."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    queue(gate, *(f"batch-{n}" for n in range(20)))
    queue(gate, "human", priority=HIGH)
    gate.time.pass_s(1)
    first = release_steps(gate)
    gate.admit_all(gate.call(first[0]))
    gate.time.pass_s(1)
    assert "human" in [*first, *release_steps(gate)]


# --- calls that never return


def test_a_woken_call_that_is_not_claimed_is_overtaken(bench: Make) -> None:
    """After half a minute the next call may start. If the first one comes late, it has kept its place and its payment."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    [late, *_] = queue(gate, "late", *(f"j{n}" for n in range(5)))
    gate.time.pass_s(1)
    assert release_steps(gate) == ["late"]
    gate.time.pass_s(WAKE_MS / 1_000)
    assert release_steps(gate) == ["j0"]
    gate.admit_all(gate.call("j0"))
    assert gate.ask(gate.claim_again(late)) == "queued"
    gate.time.pass_s(1)
    assert release_steps(gate) == ["late"], "before the calls that came after it"
    gate.admit_all(gate.claim_again(late))
    assert gate.lineage("late")["n"] == 1


def test_late_woken_calls_do_not_exceed_the_rate(bench: Make) -> None:
    """Workers stall for half an hour. The calls woken meanwhile start at the limit's rate, not all at once."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    calls = {call.claim.ref.job_id: call for call in queue(gate, *(f"j{n}" for n in range(30)))}
    woken: list[str] = []
    for _ in range(60):
        gate.time.pass_s(30)
        woken += release_steps(gate)
    assert len(woken) == 30
    gate.held_ms.clear()
    answers = Counter(gate.ask(gate.claim_again(calls[job])) for job in woken)
    assert answers["admitted"] <= 2


def test_an_empty_line_leaves_nothing_behind(bench: Make, redis: redis_py.Redis) -> None:
    """Shares of absent tenants and records of ended calls are deleted, so keys do not grow with use."""
    gate = bench(rpm=600)
    crowd = Crowd(gate)
    crowd.submit(*(gate.call(f"j{n}", tenant=f"t{n}") for n in range(100)))
    crowd.run(60)
    assert len(crowd.done) == 100
    gate.time.pass_s(120)
    gate.board.release()
    kept = [name for name in gate.keys.downstream(SHOP) if redis.exists(name)]
    assert kept == [gate.keys.downstream(SHOP)[0], gate.keys.gate_index()]
