"""The circuit breaker of a downstream: what opens it, what never opens it, and how it closes after a recovery."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Key
from midwatch.schemas.failure import FailureKind
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits, said
from tests.contract.gate_crowd import Answer, Crowd

Make = Callable[..., GateBench]
NUMBERS = itertools.count()
JITTER = 0.25
"""The jitter of the time that a breaker stays open. It keeps many fleets from probing at the same moment."""


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(**fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**{"rpm": 60_000, "trial_gap_s": 0, **fields})})
        bench.warm()
        return bench

    return make


def lose(gate: GateBench, count: int, kind: FailureKind = FailureKind.OVERLOADED) -> None:
    """Make a number of calls, and let them fail."""
    calls = [gate.call(f"lost-{next(NUMBERS)}") for _ in range(count)]
    gate.admit_all(*calls)
    for call in calls:
        gate.fail(call, kind)


def until_half_open(gate: GateBench) -> None:
    """Let time pass until the open breaker becomes half open."""
    gate.time.move_to(gate.time.us + gate.status().open_ms * 1_000 + 1)


# --- what opens the breaker


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.OVERLOADED,
        FailureKind.PROVIDER_ERROR,
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
    ],
)
def test_failures_in_a_row_open_it(bench: Make, kind: FailureKind) -> None:
    """Eight failures open the breaker, and seven don't. Then no call is admitted, and failed calls know how long to wait."""
    gate = bench()
    lose(gate, 7, kind)
    call, waiting = gate.call("eighth"), gate.call("waiting")
    gate.admit_all(call)
    assert gate.status().breaker == "closed"
    settled = gate.fail(call, kind)
    assert (settled.why, gate.status().breaker) == ("open", "open")
    assert 2_000 * (1 - JITTER) <= settled.closed_ms <= 2_000 * (1 + JITTER) + 1
    assert gate.ask(waiting) == "open"


@pytest.mark.parametrize(
    ("good", "bad", "state"), [(5, 15, "open"), (6, 14, "closed"), (0, 9, "closed"), (0, 10, "open")]
)
@pytest.mark.parametrize("apart_s", [0, 0.25])
def test_a_share_of_failures_opens_it(bench: Make, good: int, bad: int, state: str, apart_s: float) -> None:
    """The breaker opens when half of the calls and five more fail, within one second or over several."""
    gate = bench(failures_in_a_row=100)
    for n in range(good):
        call = gate.call(f"good-{n}")
        gate.admit_all(call)
        gate.ok(call, 10, 10)
        gate.time.pass_s(apart_s)
    for _ in range(bad):
        lose(gate, 1)
        gate.time.pass_s(apart_s)
    assert gate.status().breaker == state


def test_quick_failures_alone_are_not_an_outage(bench: Make) -> None:
    """Thirty of a hundred calls fail at once, and the others still run. The breaker stays closed.

    All ended calls failed, but most begun calls did not.
    """
    gate = bench()
    gate.admit_all(*(gate.call(f"slow-{n}") for n in range(70)))
    lose(gate, 30)
    assert gate.status().breaker == "closed"
    lose(gate, 200)
    assert gate.status().breaker == "open"


def test_old_failures_are_forgotten(bench: Make) -> None:
    """The window is seconds long. Failures of a minute ago don't open the breaker now."""
    gate = bench(failures_in_a_row=100)
    lose(gate, 9)
    gate.time.pass_s(60)
    lose(gate, 9)
    assert gate.status().breaker == "closed"


def test_a_429_never_opens_it(bench: Make) -> None:
    """A downstream that sends a 429 works. A hundred in a row only pause it, also when a probe gets one."""
    gate = bench(open_s=1)
    lose(gate, 100, FailureKind.RATE_LIMITED)
    assert (gate.status().breaker, gate.status().throttled) == ("closed", 100)
    gate.time.pass_s(30)
    lose(gate, 8)
    until_half_open(gate)
    probe = gate.call("probe")
    gate.admit_all(probe)
    settled = gate.fail(probe, FailureKind.RATE_LIMITED)
    assert (settled.why, settled.free, gate.status().breaker) == ("paused", True, "half_open")


def test_the_failures_of_one_outage_open_it_once(bench: Make) -> None:
    """Five hundred calls were live when the breaker opened. Their late timeouts don't count, even after it has closed again."""
    gate = bench()
    old = [gate.call(f"old-{n}") for n in range(500)]
    gate.admit_all(*old)
    gate.time.pass_s(2)
    lose(gate, 8)
    open_ms = gate.status().open_ms
    for call in old[:100]:
        gate.fail(call, FailureKind.TIMEOUT)
    assert gate.status().open_ms == open_ms
    until_half_open(gate)
    for n in range(3):
        probe = gate.call(f"probe-{n}")
        gate.admit_all(probe)
        for call in old[100 * (n + 1) : 100 * (n + 2)]:
            assert gate.fail(call, FailureKind.TIMEOUT).free, "the first failure of a call never counts"
        assert gate.status().breaker == "half_open"
        gate.ok(probe, 10, 10)
    for call in old[400:]:
        gate.fail(call, FailureKind.TIMEOUT)
    assert gate.status().breaker == "closed"


# --- half open


def test_few_probe_however_many_ask_at_once(bench: Make, redis: redis_py.Redis) -> None:
    """Forty threads with their own clients ask. One call is admitted. After its success, five at a time in the whole fleet."""
    gate = bench()
    lose(gate, 8)
    until_half_open(gate)
    gates = [gate.another_gate({SHOP: limits(rpm=60_000)}) for _ in range(40)]

    def rush(name: str) -> list[object]:
        calls = [gate.call(f"{name}-{n}") for n in range(40)]
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda each: said(each[0].admit(each[1])), zip(gates, calls, strict=True)))
        assert set(answers) <= {"admitted", "half_open", "queued"}, Counter(answers)
        return [call for call, answer in zip(calls, answers, strict=True) if answer == "admitted"]

    first = rush("first")
    assert len(first) == 1
    assert gate.status().probes == 1
    gate.ok(first[0], 10, 10)  # type: ignore[arg-type]
    woken: list[str] = []
    for _ in range(5):
        woken += [ref.job_id for ref in gate.board.release()[0]]
    assert len(woken) == 5
    probes = [gate.call(job) for job in woken]
    assert [gate.ask(call) for call in probes] == ["admitted"] * 5
    assert (rush("second"), gate.board.release()[0]) == ([], [])
    for call in probes[:2]:
        gate.ok(call, 10, 10)
    assert gate.status().breaker == "closed"


def test_it_closes_after_successful_probes_and_starts_slowly(bench: Make) -> None:
    """Three answers of five close the breaker. The rate rises from a tenth, so waiting calls don't all start at once."""
    gate = bench(rpm=6_000, ramp_s=5)
    lose(gate, 8)
    until_half_open(gate)
    for n in range(3):
        probe = gate.call(f"probe-{n}")
        gate.admit_all(probe)
        gate.ok(probe, 10, 10)
    assert gate.status().breaker == "closed"
    assert gate.status().rate_factor == pytest.approx(0.1)
    assert gate.status().levels["requests"] <= 0
    gate.time.pass_s(5)
    assert gate.status().rate_factor == 1.0


def test_failed_probes_open_it_again_for_longer(bench: Make) -> None:
    """If most of five probes fail, it opens for twice as long, up to ten seconds.

    A failed probe is not an attempt of its call.
    """
    gate = bench()
    lose(gate, 8)
    opened_ms = [gate.status().open_ms]
    for n in range(5):
        until_half_open(gate)
        for m in range(3):
            assert gate.status().breaker == "half_open"
            probe = gate.call(f"probe-{n}-{m}")
            gate.admit_all(probe)
            assert gate.fail(probe).free
            gate.time.pass_s(0 if m == 2 else 2)
        opened_ms.append(gate.status().open_ms)
    for ms, planned in zip(opened_ms, (2_000, 4_000, 8_000, 10_000, 10_000, 10_000), strict=True):
        assert planned * (1 - JITTER) <= ms <= planned * (1 + JITTER)


def test_probes_that_hang_do_not_delay_recovery(bench: Make) -> None:
    """Once one probe is answered, others may start. Late failures of hanging probes don't count, not even as attempts."""
    gate = bench()
    lose(gate, 8)
    until_half_open(gate)
    hung = []
    for n in range(8):
        hung.append(gate.call(f"hung-{n}"))
        gate.admit_all(hung[-1])
        gate.time.pass_s(2)
    answered = gate.call("answered")
    gate.admit_all(answered)
    assert all(gate.fail(call, FailureKind.TIMEOUT).free for call in hung[:3])
    gate.ok(answered, 10, 10)
    assert gate.status().breaker == "half_open"
    others = [gate.call(f"other-{n}") for n in range(5)]
    gate.admit_all(*others)
    for call in others[:2]:
        gate.ok(call, 10, 10)
    assert gate.status().breaker == "closed"


def test_a_probe_without_an_answer_makes_room_for_another(bench: Make) -> None:
    """The probe's worker died, or the downstream hangs. The next probe starts seconds later, not after the whole timeout."""
    gate = bench()
    lose(gate, 8)
    until_half_open(gate)
    gate.admit_all(gate.call("silent"))
    other = gate.call("other")
    assert gate.ask(other) == "half_open"
    gate.time.pass_s(2)
    assert len(gate.board.release()[0]) == 1
    gate.admit_all(gate.claim_again(other))


def test_an_outage_costs_few_calls_and_loses_none(bench: Make) -> None:
    """In a minute of 529s over 600 calls, only live calls and a few probes fail. No job ends, and all are done afterwards."""
    gate = bench(rpm=600)

    def provider(call: object, at_s: float) -> Answer:
        return Answer.bad(FailureKind.OVERLOADED, after_s=0.3) if 10 <= at_s < 70 else Answer.good(after_s=3)

    crowd = Crowd(gate, provider, slots=64)
    crowd.submit(*(gate.call(f"j{n}") for n in range(600)))
    crowd.run(180)
    assert (len(crowd.done), crowd.ended) == (600, [])
    seconds = crowd.calls_per_second()
    assert sum(seconds[15:70]) <= 3 * 55 / 10, "probes"
    assert len(crowd.sent) <= 1.08 * 600
    assert max(seconds[70:]) <= 10, "no recovery peak"


# --- operators


def test_an_operator_opens_and_closes_it(bench: Make) -> None:
    """The breaker stays open for as long as the operator says. Then probes start. Closed by hand, it starts at a low rate."""
    gate = bench()
    gate.board.open(SHOP, 30)
    assert gate.ask(gate.call("a")) == "open"
    assert gate.status().open_ms == 30_000
    gate.board.close(SHOP)
    assert gate.status().breaker == "closed"
    assert gate.status().rate_factor == pytest.approx(0.1)
    gate.board.open(SHOP, 30)
    gate.time.pass_s(30.001)
    assert gate.status().breaker == "half_open"
