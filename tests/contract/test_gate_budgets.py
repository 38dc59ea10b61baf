"""Budgets: retries of a lineage, retries of a downstream that loses calls, tokens of a lineage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import Defer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Crowd

Make = Callable[..., GateBench]


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(**fields: object) -> GateBench:
        others_off = {"failures_in_a_row": 1_000, "min_calls": 1_000, "trial_gap_s": 0}
        bench = GateBench(redis, prefix, {SHOP: limits(**{**others_off, **fields})})
        bench.warm()
        return bench

    return make


def fail_all(gate: GateBench, *calls: Call) -> list[Call]:
    """Admit all calls and let them fail. Return the claims of their retries."""
    gate.admit_all(*calls)
    counts = [not gate.fail(call).free for call in calls]
    return [gate.claim_again(call, failed=failed) for call, failed in zip(calls, counts, strict=True)]


# --- retries of a lineage


def test_retries_beyond_the_free_ones_are_spaced(bench: Make) -> None:
    """Ten children fail together. Seven retries start at once (5, and a fifth of the calls), the others one second apart."""
    gate = bench()
    retries = fail_all(gate, *(gate.call(f"child-{n}", root="root") for n in range(10)))
    gate.admit_all(*retries[:7])
    waits_ms = []
    for call in retries[7:]:
        answer = gate.gate.admit(call)
        assert isinstance(answer, Defer)
        assert "lineage_paced" in answer.reason
        assert (answer.counts_as_attempt, answer.wakes) == (False, False)
        waits_ms.append(answer.after_ms)
    assert waits_ms == [1_000, 2_000, 3_000]


def test_a_spaced_retry_goes_at_its_time_and_pays_once(bench: Make) -> None:
    """A retry that asks before its start time gets the same start time again."""
    gate = bench()
    retries = fail_all(gate, *(gate.call(f"child-{n}", root="root") for n in range(10)))
    gate.admit_all(*retries[:7])
    assert gate.ask(retries[7]) == "lineage_paced"
    gate.time.pass_s(0.4)
    early = gate.gate.admit(gate.claim_again(retries[7]))
    assert isinstance(early, Defer)
    assert early.after_ms == 600
    gate.time.pass_s(0.6)
    gate.admit_all(gate.claim_again(retries[7]))
    assert (gate.lineage("root")["n"], gate.lineage("root")["u"]) == (10, 8)


def test_beyond_its_budget_a_lineage_makes_no_retry(bench: Make) -> None:
    """A job beyond the retry budget becomes a dead letter that names the reason. Other lineages go on."""
    gate = bench()
    call = gate.call("a")
    for _ in range(13):
        [call] = fail_all(gate, call)
        gate.answer_others()
        gate.time.pass_s(60)
    answer = gate.gate.admit(call)
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.BUDGET_EXCEEDED
    assert "lineage_retry_budget" in answer.detail
    assert "11 retries on 1 calls" in answer.detail
    other = gate.call("b")
    [again] = fail_all(gate, other)
    gate.admit_all(again)


@pytest.mark.parametrize(
    ("kind", "children"), [("overloaded", 0), ("timeout", 0), ("rate_limited", 0), ("overloaded", 8), ("timeout", 8)]
)
def test_n_calls_become_at_most_2n_plus_10(bench: Make, kind: str, children: int) -> None:
    """A lineage's calls always fail, others are answered, and the policy never gives up. The lineage's budget ends the calls.

    Failures that don't count come on top: the first of each call, and two 429s more.
    """
    gate = bench(rpm=60_000)

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(FailureKind(kind)) if call.claim.job.root_id == "root" else Answer.good()

    crowd = Crowd(gate, provider)
    crowd.submit(gate.call("root"), *(gate.call(f"child-{n}", root="root") for n in range(children)))
    for n in range(1_000):
        crowd.submit(gate.call(f"other-{n}"), at_s=n / 5)
    crowd.run(3_600)
    n = 1 + children
    assert [failure.kind for failure in crowd.ended] == [FailureKind.BUDGET_EXCEEDED] * n
    sent = [call for _, call in crowd.sent if call.claim.job.root_id == "root"]
    uncounted = gate.lineage("root")["uu"]
    assert uncounted >= (3 if kind == "rate_limited" else n)
    assert n < len(sent) - uncounted <= 2 * n + 10


def test_uncounted_retries_end_no_lineage(bench: Make) -> None:
    """The downstream answers nobody for an hour. All nine jobs of the lineage still wait, and complete when it is back."""
    gate = bench(trial_gap_s=0.75, failures_in_a_row=8)

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(FailureKind.OVERLOADED) if at_s < 3_600 else Answer.good()

    crowd = Crowd(gate, provider)
    crowd.submit(*(gate.call(f"job-{n}", root="root") for n in range(9)))
    crowd.run(3_700)
    assert (len(crowd.done), crowd.ended) == (9, [])
    assert gate.lineage("root")["uu"] > 2 * 9 + 10


def test_a_vanished_worker_is_a_retry_of_the_lineage(bench: Make) -> None:
    """A step that kills its worker each time has the same bound as a step that fails each time."""
    gate = bench()
    call = gate.call("a")
    for _ in range(12):
        gate.admit_all(call)
        gate.time.pass_s(60)
        call = gate.claim_again(call, lost=True)
    assert gate.ask(call) == "budget_exceeded"


def test_a_retry_that_waits_for_a_limit_pays_once(bench: Make) -> None:
    """The retry waits in line, is woken, comes late and waits in line again. The lineage pays for one retry."""
    gate = bench(rpm=60)
    call = gate.call("a")
    [retry] = fail_all(gate, call)
    assert gate.ask(retry) == "rate"
    for _ in range(3):
        gate.time.pass_s(1)
        assert len(gate.board.release()[0]) == 1
        gate.time.pass_s(31)  # its message waits for a free worker longer than its place is kept
        gate.board.release()
        gate.board.pause(SHOP, 1)
        assert gate.ask(gate.claim_again(retry)) == "paused"
        gate.time.pass_s(60)
    gate.board.release()
    gate.admit_all(gate.claim_again(retry))
    assert gate.lineage("a")["u"] == 1


# --- retries of a downstream


def lose_every(gate: GateBench, nth: int, count: int) -> list[Call]:
    """Make calls of which every nth fails. Return the claims of the retries."""
    calls = [gate.call(f"j{n}-{gate.time.us}") for n in range(count)]
    gate.admit_all(*calls)
    lost = calls[::nth]
    for call in calls:
        _ = gate.fail(call) if call in lost else gate.ok(call, 10, 10)
    return [gate.claim_again(call, failed=True) for call in lost]


def test_a_downstream_that_loses_calls_gets_few_retries(bench: Make) -> None:
    """A tenth of its calls fail. It gets the saved retries, one more for ten successes, and one every two seconds."""
    gate = bench(min_calls=10, retry_ratio=0.1)
    retries = lose_every(gate, 4, 200)
    assert gate.status().sick
    answers = [gate.ask(call) for call in retries]
    went = answers.count("admitted")
    assert 20 <= went <= 24, "at most 20 retries are saved up"
    assert set(answers[went:]) <= {"retry_budget", "queued"}
    assert gate.status().waiting["retry"] == 50 - went
    assert gate.ask(gate.call("first-attempt")) == "admitted", "only retries wait"


def test_a_healthy_downstream_gets_every_retry(bench: Make) -> None:
    """The budget limits nothing when under a tenth of the calls fail, or when the last failure is seconds old."""
    gate = bench(min_calls=10)
    assert {gate.ask(call) for call in lose_every(gate, 20, 600)} == {"admitted"}
    retries = lose_every(gate, 4, 200)
    gate.time.pass_s(2.1)
    assert {gate.ask(call) for call in retries} == {"admitted"}


# --- tokens of a lineage


def bound(gate: GateBench, job: str, tokens: int, output: int, *, root: str = "root", **fields: int) -> Call:
    """A call of a lineage with a budget."""
    return gate.call(job, tokens, output, root=root, **fields)  # type: ignore[arg-type]


def test_parallel_calls_of_a_lineage_can_not_overshoot_its_tokens(bench: Make) -> None:
    """Tokens reserved by live calls count as used. A call that does not fit waits until such a call returns unused tokens."""
    gate = bench()
    root = bound(gate, "root", 100, 50, lineage_input_tokens=1_000, lineage_output_tokens=200)
    gate.admit_all(root)
    gate.ok(root, 100, 50)
    children = [bound(gate, f"child-{n}", 300, 40) for n in range(4)]
    gate.admit_all(*children[:3])
    assert gate.ask(children[3]) == "lineage_tokens"
    gate.ok(children[0], 100, 10)
    assert gate.ask(children[3]) == "lineage_tokens", "200 came back, 300 are needed"
    gate.ok(children[1], 100, 10)
    last = gate.claim_again(children[3])
    gate.admit_all(last)
    for call in (children[2], last):
        gate.ok(call, 200, 10)
    lineage = gate.lineage("root")
    assert [lineage[name] for name in ("ui", "uo", "ri", "ro")] == [700, 90, 0, 0]


@pytest.mark.parametrize(
    ("tokens", "output", "said"), [(901, 10, "lineage_input_tokens"), (10, 151, "lineage_output_tokens")]
)
def test_a_call_that_can_never_fit_the_budget_is_denied(bench: Make, tokens: int, output: int, said: str) -> None:
    """Waiting would not help. The dead letter contains the limit, the used tokens and the tokens that the call needs."""
    gate = bench()
    root = bound(gate, "root", 100, 50, lineage_input_tokens=1_000, lineage_output_tokens=200)
    gate.admit_all(root)
    gate.ok(root, 100, 50)
    answer = gate.gate.admit(bound(gate, "child", tokens, output))
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.BUDGET_EXCEEDED
    for part in (said, "tokens used", str(max(tokens, output))):
        assert part in answer.detail


def test_a_lineage_without_a_budget_is_not_limited(bench: Make) -> None:
    """A budget of 0 means no limit. A child has the budget of its root."""
    gate = bench()
    gate.admit_all(bound(gate, "root", 10**9, 10**9, lineage_input_tokens=0, lineage_output_tokens=0))
    gate.admit_all(bound(gate, "child", 10**9, 10**9))


def test_a_call_whose_answer_was_lost_is_charged_to_its_lineage(bench: Make) -> None:
    """A call that timed out may have used tokens. A 429, a bad request and a call that was never sent used none."""
    gate = bench()
    costless = [("rate_limited", True), ("auth_error", True), ("connection", False), ("auth_error", False)]
    for n, (kind, sent) in enumerate([("timeout", True), *costless]):
        call = bound(gate, f"j{n}", 100, 10, lineage_input_tokens=1_000, lineage_output_tokens=200)
        gate.admit_all(call)
        gate.fail(call, FailureKind(kind), sent=sent)
        gate.time.pass_s(60)
        lineage = gate.lineage("root")
        assert [lineage[name] for name in ("ui", "uo", "ri", "ro")] == [100, 10, 0, 0]


def test_a_call_with_an_unreadable_answer_is_charged(bench: Make) -> None:
    """If an answer can't be read, the call was made nevertheless."""
    gate = bench()
    call = bound(gate, "a", 100, 10, lineage_input_tokens=1_000, lineage_output_tokens=200)
    gate.admit_all(call)
    gate.fail(call, FailureKind.INTERNAL)
    assert (gate.lineage("root")["ui"], gate.lineage("root")["uo"]) == (100, 10)
