"""What a downstream's answers change: a 429 and its Retry-After, headers, spend caps, silence, a new server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.errors import ConfigError, NotFound
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Report, Settlement
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits, said
from tests.contract.gate_crowd import Answer, Bucket, Crowd

Make = Callable[..., GateBench]
THROTTLED = FailureKind.RATE_LIMITED


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(*, warm: bool = True, **fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**fields)})
        if warm:
            bench.warm()
        return bench

    return make


# --- a 429


def test_retry_after_pauses_all_calls_until_it_ends(bench: Make) -> None:
    """One worker reports the 429. New calls, waiting calls and calls woken a moment ago all wait."""
    gate = bench(rpm=60)
    throttled, waiting = gate.call("a"), gate.call("b")
    gate.admit_all(throttled)
    gate.ask(waiting)
    gate.time.pass_s(1)
    assert len(gate.board.release()[0]) == 1
    settled = gate.fail(throttled, THROTTLED, retry_after_s=20)
    assert (settled.closed_ms, settled.why, settled.free, settled.retry_after_ms) == (20_000, "paused", True, 20_000)
    woken = gate.claim_again(waiting)
    other = gate.another_gate({SHOP: limits(rpm=60)})
    assert [gate.ask(woken), said(other.admit(gate.call("c")))] == ["paused", "paused"]
    gate.time.pass_s(19.99)
    assert gate.ask(gate.call("d")) == "paused"
    assert gate.board.release() == ([], 10)
    assert gate.status().paused_ms == 10


def test_after_a_pause_waiting_calls_go_slowly_at_first(bench: Make) -> None:
    """A pause saves up no burst. It ends with an empty bucket and a low rate, and no second has more calls than the limit."""
    gate = bench(rpm=600)

    def provider(call: object, at_s: float) -> Answer:
        return Answer.bad(THROTTLED, retry_after_s=20) if at_s < 1 else Answer.good()

    crowd = Crowd(gate, provider)
    crowd.submit(*(gate.call(f"j{n}") for n in range(100)))
    crowd.run(60)
    paused_s = 0.1 + 20
    again = [at_s for at_s, _ in crowd.sent if at_s > 1]
    assert min(again) > paused_s, "the first answer came at 0.1 s with a Retry-After of 20 s"
    seconds = crowd.calls_per_second(paused_s)
    assert len(crowd.done) == 100
    assert max(seconds) <= 10
    assert seconds[0] <= 3, "slow start"
    assert sum(seconds[5:9]) >= 30, "calls go on after the pause"
    assert crowd.ended == []


def test_without_a_retry_after_a_429_pauses_for_a_second(bench: Make) -> None:
    """Calls must slow down. One second is short enough to lose little."""
    gate = bench(rpm=600)
    call = gate.call("a")
    gate.admit_all(call)
    assert gate.fail(call, THROTTLED).closed_ms == 1_000


def test_an_absurd_retry_after_is_cut(bench: Make) -> None:
    """A Retry-After of a year is a mistake. It is shortened to a quarter of an hour."""
    gate = bench(rpm=600)
    call = gate.call("a")
    gate.admit_all(call)
    assert gate.fail(call, THROTTLED, retry_after_s=31_536_000).closed_ms == 900_000


def test_in_a_pause_of_a_month_waiting_steps_ask_again(bench: Make) -> None:
    """An operator paused the downstream. Each step asks again within ten minutes, so that its claim keeps the job's keys."""
    gate = bench(rpm=600)
    gate.board.pause(SHOP, 31 * 86_400)
    answer = gate.gate.admit(gate.call("a"))
    assert isinstance(answer, Defer)
    assert answer.after_ms <= 600_000


def test_a_shorter_retry_after_does_not_end_a_longer_one(bench: Make) -> None:
    """The longest Retry-After counts, not the last one."""
    gate = bench(rpm=600)
    calls = [gate.call(f"j{n}") for n in range(3)]
    gate.admit_all(*calls)
    for call, wait_s in zip(calls, (10, 60, 1), strict=True):
        gate.fail(call, THROTTLED, retry_after_s=wait_s)
    assert gate.status().paused_ms == 60_000


@pytest.mark.parametrize("spread_s", [0.0, 0.02, 0.2], ids=["at once", "within a second", "over six seconds"])
def test_a_burst_of_429s_is_one_signal(bench: Make, spread_s: float) -> None:
    """Thirty live calls are refused. The rate is cut once, however late their answers arrive."""
    gate = bench(rpm=6_000, cut=0.7, recover_s=600)
    calls = [gate.call(f"j{n}") for n in range(30)]
    gate.admit_all(*calls)
    for call in calls:
        gate.fail(call, THROTTLED, retry_after_s=10)
        gate.time.pass_s(spread_s)
    gate.time.move_to(gate.time.us + gate.status().paused_ms * 1_000 + 10e6)
    assert gate.status().rate_factor == pytest.approx(0.7, abs=0.02)


def test_the_rate_climbs_back_after_a_cut(bench: Make) -> None:
    """The rate rises linearly: from 0.7 to 1 in three tenths of `recover_s`. Further 429s cut it again, never to zero."""
    gate = bench(rpm=6_000, recover_s=60)
    factors = []
    for n in range(12):
        calls = [gate.call(f"j{n}-{each}") for each in range(6)]
        gate.admit_all(*calls)
        for is_answered, call in zip((False, False, True) * 2, calls, strict=True):
            _ = gate.ok(call, 10, 10) if is_answered else gate.fail(call, THROTTLED)
        gate.time.pass_s(2)
        factors.append(gate.status().rate_factor)
    assert factors[0] == pytest.approx(0.7 + 0.9 / 60, abs=0.02)
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] >= 0.1
    gate.time.pass_s(60)
    assert gate.status().rate_factor == 1.0


@pytest.mark.parametrize("kind", [FailureKind.OVERLOADED, FailureKind.PROVIDER_ERROR, FailureKind.TIMEOUT])
def test_a_5xx_does_not_cut_the_rate(bench: Make, kind: FailureKind) -> None:
    """A 5xx comes at any rate. With a cut, a provider that loses every tenth call would stay at its lowest rate."""
    gate = bench(rpm=6_000, trial_gap_s=0)
    for n in range(40):
        call = gate.call(f"j{n}")
        gate.admit_all(call)
        _ = gate.fail(call, kind) if n % 4 == 0 else gate.ok(call, 10, 10)
    assert (gate.status().rate_factor, gate.status().paused_ms, gate.status().breaker) == (1.0, 0, "closed")


def test_a_5xx_with_a_retry_after_pauses_too(bench: Make) -> None:
    """A wait that a downstream names counts with every status."""
    gate = bench(rpm=600)
    call = gate.call("a")
    gate.admit_all(call)
    settled = gate.fail(call, FailureKind.OVERLOADED, retry_after_s=7)
    assert (settled.closed_ms, settled.why, settled.retry_after_ms) == (7_000, "paused", 7_000)


# --- limits that were not set


ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "120",
    "anthropic-ratelimit-input-tokens-limit": "60000",
    "anthropic-ratelimit-output-tokens-limit": "6000",
}
OPENAI = {"x-ratelimit-limit-requests": "120", "x-ratelimit-limit-tokens": "90000"}


@pytest.mark.parametrize(
    ("headers", "learned"),
    [
        (ANTHROPIC, {"requests": 120, "input_tokens": 60_000, "output_tokens": 6_000}),
        (OPENAI, {"requests": 120, "tokens": 90_000}),
    ],
    ids=["anthropic", "openai"],
)
def test_limits_are_learned_from_headers(bench: Make, headers: dict[str, str], learned: dict[str, float]) -> None:
    """Headers of an answer and of a failure count. Tokens used before a limit was known are no debt."""
    gate = bench()
    calls = [gate.call(f"j{n}", 400, 80) for n in range(100)]
    gate.admit_all(*calls)
    gate.gate.settle(calls[0], Report(usage=Usage(input_tokens=400, output_tokens=10), headers=headers))
    assert gate.status().limits == learned
    assert min(gate.status().levels.values()) >= 0
    gate.time.pass_s(2)
    gate.admit_all(gate.call("next", 400, 80))


def test_an_operators_limit_wins_over_a_header(bench: Make) -> None:
    """The operator may have reasons: other users of the same key, or a bill."""
    gate = bench(rpm=60)
    call = gate.call("a")
    gate.admit_all(call)
    gate.gate.settle(call, Report(usage=Usage(input_tokens=1, output_tokens=1), headers=OPENAI))
    assert gate.status().limits == {"requests": 60, "tokens": 90_000}


@pytest.mark.parametrize(
    ("left", "level"), [("2", 2), ("99", 9), ("0", 0), ("-5", 9), ("many", 9), ("1e9", 9), ("", 9)]
)
def test_a_lower_remaining_count_of_the_provider_wins(bench: Make, left: str, level: float) -> None:
    """Other programs may use the same key. A header that is not a number is ignored."""
    gate = bench(rpm=600)
    call = gate.call("a")
    gate.admit_all(call)
    headers = {"x-ratelimit-remaining-requests": left}
    gate.gate.settle(call, Report(usage=Usage(input_tokens=1, output_tokens=1), headers=headers))
    assert gate.status().levels["requests"] == level


@pytest.mark.parametrize("slots", [4, 16])
def test_an_unknown_limit_is_guessed_from_its_429s(bench: Make, slots: int) -> None:
    """The fleet finds the limit with few refusals, and uses most of what it allows."""
    gate = bench()
    provider = Bucket(120, depth=2)
    crowd = Crowd(gate, provider, slots=slots)
    crowd.submit(*(gate.call(f"j{n}") for n in range(800)))
    crowd.run(300)
    assert gate.status().guessed
    assert len(crowd.done) >= 0.8 * 600
    assert provider.refused <= 0.08 * len(crowd.sent)


# --- a spend cap


def test_a_spend_cap_blocks_the_downstream_for_the_whole_fleet(bench: Make) -> None:
    """One failed call blocks it, with a visible reason. Waiting calls are denied, no call is retried, and unblock lifts it."""
    gate = bench(rpm=60)
    spent, waiting = gate.call("a"), gate.call("b")
    gate.admit_all(spent)
    gate.ask(waiting)
    gate.board.release()
    failure = Failure(kind=FailureKind.QUOTA_EXHAUSTED, detail="insufficient_quota: the credit is used up")
    assert gate.gate.settle(spent, Report(failure=failure)).why == "blocked"
    assert gate.status().blocked_reason == "insufficient_quota: the credit is used up"
    assert [ref.job_id for ref in gate.board.release()[0]] == ["b"], "a waiting call is woken at once and denied"
    for call in (gate.claim_again(waiting), gate.call("c")):
        answer = gate.another_gate({SHOP: limits(rpm=60)}).admit(call)
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.QUOTA_EXHAUSTED
        assert "insufficient_quota: the credit is used up" in answer.detail
        assert f"midwatch gate unblock {SHOP}" in answer.detail
    assert gate.status().waiters == 0
    gate.board.unblock(SHOP)
    gate.time.pass_s(1)
    gate.admit_all(gate.call("d"))


def test_a_block_ends_by_itself_in_time(bench: Make) -> None:
    """After an hour one call may test whether the cap is lifted."""
    gate = bench(rpm=60)
    call = gate.call("a")
    gate.admit_all(call)
    gate.fail(call, FailureKind.QUOTA_EXHAUSTED)
    gate.time.pass_s(3_601)
    gate.admit_all(gate.call("b"))


@pytest.mark.parametrize("kind", [FailureKind.AUTH_ERROR, FailureKind.FORMAT_ERROR, FailureKind.REFUSED])
def test_the_callers_own_error_changes_nothing(bench: Make, kind: FailureKind) -> None:
    """A hundred bad requests open no breaker and pause no call."""
    gate = bench(rpm=6_000)
    for n in range(100):
        call = gate.call(f"j{n}")
        gate.admit_all(call)
        assert gate.fail(call, kind) == Settlement(downstream=SHOP)
        gate.time.pass_s(0.01)
    assert (gate.status().breaker, gate.status().failed) == ("closed", 0)


# --- clocks and servers


def test_a_clock_that_jumps_back_an_hour_does_no_harm(bench: Make) -> None:
    """A failover leads to a server whose clock is behind. No bucket refills twice, and a pause keeps its length."""
    gate = bench(rpm=60)
    throttled = gate.call("a")
    gate.admit_all(throttled)
    gate.fail(throttled, THROTTLED, retry_after_s=20)
    waiting = gate.call("b")
    assert gate.ask(waiting) == "paused"
    gate.time.pass_s(5 - 3_600)
    assert gate.ask(gate.call("c")) == "paused"
    assert gate.status().paused_ms == pytest.approx(20_000, abs=1)
    gate.time.pass_s(20)
    assert gate.status().levels["requests"] <= 0
    woken: list[str] = []
    for _ in range(40):
        gate.time.pass_s(0.25)
        woken += [ref.job_id for ref in gate.board.release()[0]]
    assert woken[0] == "b"
    gate.admit_all(gate.claim_again(waiting))


def test_a_clock_that_jumps_ahead_refills_one_bucket_at_most(bench: Make) -> None:
    """An hour ahead fills the bucket once. It does not give an hour's calls."""
    gate = bench(rpm=600)
    gate.admit_all(*(gate.call(f"j{n}") for n in range(10)))
    gate.time.pass_s(3_600)
    assert gate.status().levels["requests"] == 10


def test_an_emptied_server_starts_slowly_with_the_workers_limits(bench: Make) -> None:
    """After a failover without data, sixty calls must not start at once. One burst starts, then a fifth of the rate, rising."""
    gate = bench(rpm=600)
    gate.admit_all(gate.call("before"))
    gate.wipe()
    crowd = Crowd(gate)
    crowd.submit(*(gate.call(f"j{n}") for n in range(100)))
    crowd.run(20)
    assert gate.board.limits(SHOP).requests_per_minute == 600
    seconds = crowd.calls_per_second()
    assert seconds[0] <= 10 + 4
    assert seconds[1] < seconds[5] <= 10


# --- operators


def test_a_limit_that_is_set_counts_at_once_for_every_worker(bench: Make) -> None:
    """A new limit also counts for waiting calls. No worker needs to restart."""
    gate = bench(rpm=6)
    gate.admit_all(gate.call("a"))
    waiting = gate.call("b")
    assert gate.ask(waiting) == "rate"
    gate.board.release()
    gate.board.set(SHOP, rpm=600)
    gate.time.pass_s(0.2)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["b"]
    gate.admit_all(gate.claim_again(waiting))
    assert gate.board.limits(SHOP).requests_per_minute == 600


def test_the_newest_limits_win(bench: Make) -> None:
    """An older file of a worker changes nothing, a newer one does. `gate set` is newer than any file so far."""
    gate = bench(rpm=60)
    gate.board.set(SHOP, rpm=120)
    set_ms = gate.time.us // 1_000
    gate.another_gate({SHOP: limits(rpm=30)}, version=set_ms - 1).admit(gate.call("a"))
    assert gate.status().limits == {"requests": 120}
    gate.another_gate({SHOP: limits(rpm=240)}, version=set_ms + 1).admit(gate.call("b"))
    assert gate.status().limits == {"requests": 240}
    gate.another_gate({}).admit(gate.call("c"))
    assert gate.status().limits == {"requests": 240}, "a setting without limits changes none"


def test_setting_one_limit_keeps_the_others(bench: Make) -> None:
    """`gate set` changes only the limits that it names. A limit set to None is removed."""
    gate = bench(rpm=60, itpm=1_000)
    assert gate.board.set(SHOP, burst_s=2.0, itpm=None) == limits(rpm=60, burst_s=2.0)
    assert gate.status().limits == {"requests": 60}
    assert gate.status().depths == {"requests": 2}


@pytest.mark.parametrize("change", [{"rpm": 0}, {"rpm": float("nan")}, {"speed": 3}, {"cut": 1.0}, {"open_s": 99}])
def test_an_invalid_limit_is_refused(bench: Make, change: dict[str, float]) -> None:
    """The error says what was wrong and which limits there are. Nothing changes."""
    gate = bench(rpm=60)
    before = gate.status()
    with pytest.raises(ConfigError, match="requests_per_minute"):
        gate.board.set(SHOP, **change)
    assert gate.status() == before


def test_an_operator_pauses_resumes_blocks_and_unblocks(bench: Make) -> None:
    """A downstream that was never called is not found. The error names the known ones."""
    gate = bench(rpm=600)
    gate.board.pause(SHOP, 60)
    assert gate.ask(gate.call("a")) == "paused"
    gate.board.resume(SHOP)
    gate.time.pass_s(1)
    gate.board.release()
    gate.admit_all(gate.call("b"))
    gate.board.block(SHOP, "the invoice is open")
    assert gate.ask(gate.call("c")) == "quota_exhausted"
    gate.board.unblock(SHOP)
    gate.time.pass_s(1)
    gate.admit_all(gate.call("d"))
    with pytest.raises(NotFound, match=SHOP):
        gate.board.pause("stop", 60)
