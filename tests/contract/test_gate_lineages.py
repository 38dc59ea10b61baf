"""Limits of a lineage: what its jobs reserve of the limits of their ancestors, in the coordinator's real functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import redis as redis_py

from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.orchestration.protocol.lineage import CallReservation, Chain, LimitReached, PlannedCall
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.lineage import Bounds, Member
from midwatch.schemas.step import Defer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def gate(redis: redis_py.Redis, prefix: str) -> GateBench:
    gate = GateBench(redis, prefix, {SHOP: limits()})
    gate.warm()
    return gate


NO_LIMITS = Bounds()


def member(job: str, **bounds: object) -> Member:
    return Member(job_id=job, bounds=Bounds.model_validate(bounds))


def turn(
    gate: GateBench, chain: Chain, step: str = "1", calls: int = 0, children: int = 0, tokens: int = 0, output: int = 0
) -> Call:
    """The model call of a turn of the chain's first job, which has made `calls` tool calls and started `children` before."""
    call = gate.call(
        chain[0].job_id, tokens, output, step=step, root=chain[-1].job_id, chain=chain,
        lineage_input_tokens=0, lineage_output_tokens=0,
    )  # fmt: skip
    job = call.claim.job.model_copy(update={"tool_calls": calls + children, "children": children})
    object.__setattr__(call.claim, "job", job)
    return call


def reserve(
    gate: GateBench, call: Call, *tools: str, before: dict[str, int] | None = None
) -> list[LimitReached | None]:
    """Reserve the calls of a turn. The tool `child` starts a child."""
    planned = [PlannedCall(tool, is_child=tool == "child") for tool in tools]
    return list(gate.gate.reserve_calls(CallReservation(call.claim, call.chain, planned, before or {})))


def granted(answers: Sequence[LimitReached | None]) -> int:
    return sum(answer is None for answer in answers)


# --- tool calls


def test_children_together_make_no_more_calls_than_their_parent_may(gate: GateBench) -> None:
    """Eight children share a limit of nine calls, and make nine. The answer names the job that has the limit."""
    root = member("root", max_tool_calls=9)
    answers = [
        answer
        for n in range(8)
        for answer in reserve(gate, turn(gate, (member(f"child-{n}"), root)), "add", "add", "add")
    ]
    assert granted(answers) == 9
    assert {answer for answer in answers if answer} == {LimitReached("max_tool_calls", "root", 9)}


def test_a_repeated_turn_replaces_its_reservation(gate: GateBench) -> None:
    """A worker dies after it reserved three calls. The turn is repeated with one call. Two calls are free for others."""
    root = member("root", max_tool_calls=3)
    first, other = (member("a"), root), (member("b"), root)
    assert granted(reserve(gate, turn(gate, first), "add", "add", "add")) == 3
    assert granted(reserve(gate, turn(gate, other), "add")) == 0
    assert granted(reserve(gate, turn(gate, first), "add")) == 1
    assert granted(reserve(gate, turn(gate, other), "add", "add", "add")) == 2


def test_an_admitted_repetition_frees_what_the_dead_run_reserved(gate: GateBench) -> None:
    """The calls of a reply that was lost are free again as soon as the turn starts again."""
    root = member("root", max_tool_calls=3)
    reserve(gate, turn(gate, (member("a"), root)), "add", "add", "add")
    gate.admit_all(turn(gate, (member("a"), root)))
    assert granted(reserve(gate, turn(gate, (member("b"), root)), "add", "add", "add")) == 3


def test_calls_of_a_turn_that_ends_its_job_are_given_back(gate: GateBench) -> None:
    """The job ends before the turn is committed. An empty reservation frees its calls; those of earlier turns stay used."""
    root = member("root", max_tool_calls=4)
    a = (member("a"), root)
    reserve(gate, turn(gate, a), "add")
    reserve(gate, turn(gate, a, "2", calls=1), "add", "add")
    assert reserve(gate, turn(gate, a, "2", calls=1)) == []
    assert granted(reserve(gate, turn(gate, (member("b"), root)), *["add"] * 4)) == 3


def test_a_worker_whose_claim_is_lost_reserves_nothing(gate: GateBench) -> None:
    """A later claim of the turn has reserved calls. The late worker must not replace this reservation."""
    chain = (member("a"), member("root", max_tool_calls=3))
    late = turn(gate, chain)
    reserve(gate, turn(gate, chain), "add")
    with pytest.raises(LeaseLost):
        reserve(gate, late, "add", "add", "add")


def test_every_ancestor_binds(gate: GateBench) -> None:
    """The nearest limit that is reached is named. A grandchild's calls count for its parent and for the root."""
    root, parent = member("root", max_tool_calls=5), member("parent", max_tool_calls=2)
    answers = reserve(gate, turn(gate, (member("leaf", max_tool_calls=9), parent, root)), "add", "add", "add")
    assert answers == [None, None, LimitReached("max_tool_calls", "parent", 2)]
    assert granted(reserve(gate, turn(gate, (member("other"), root)), *["add"] * 5)) == 3


def test_a_limit_by_tool_counts_over_the_lineage(gate: GateBench) -> None:
    """Other tools have no limit. The parent's own earlier calls count, also those from before it had children."""
    root = member("root", max_tool_calls={"pay": 3})
    assert reserve(gate, turn(gate, (root,), "2", calls=1), "child", before={"pay": 1}) == [None]
    child = turn(gate, (member("a"), root))
    answers = reserve(gate, child, "pay", "look", "pay", "pay", "look")
    assert answers == [None, None, None, LimitReached("max_tool_calls", "root", 3, "pay"), None]


def test_calls_that_start_children_are_no_tool_calls(gate: GateBench) -> None:
    """They are bounded by max_children, and leave the limit of tool calls to real tools."""
    root = member("root", max_tool_calls=1, max_children=2)
    answers = reserve(gate, turn(gate, (root,)), "child", "child", "child", "add", "add")
    assert answers == [
        None, None, LimitReached("max_children", "root", 2), None, LimitReached("max_tool_calls", "root", 1),
    ]  # fmt: skip


def test_calls_before_the_first_child_count(gate: GateBench) -> None:
    """A job reserves nothing while it has no children. With the first one, its record says what it has used."""
    root = member("root", max_tool_calls=9, max_steps=9)
    reserve(gate, turn(gate, (root,), "5", calls=7), "child")
    child = (member("a"), root)
    assert granted(reserve(gate, turn(gate, child), "add", "add", "add")) == 2
    gate.admit_all(*(turn(gate, child, str(n)) for n in range(1, 5)))
    assert gate.ask(turn(gate, child, "5")) == "budget_exceeded"


def test_limits_that_a_job_reports_replace_those_its_children_know(gate: GateBench) -> None:
    """A parent that was enqueued by name has no limits until its first step. From then on they bind its children."""
    child, unknown = member("a"), Member(job_id="root")
    assert granted(reserve(gate, turn(gate, (child, unknown)), "add", "add")) == 2
    gate.admit_all(turn(gate, (member("root", max_tool_calls=3),)))
    assert granted(reserve(gate, turn(gate, (child, unknown), "2", calls=2), "add", "add")) == 1


# --- steps


def test_turns_of_all_descendants_count_for_max_steps(gate: GateBench) -> None:
    """The turn after the last is denied: a dead letter that names the limit and the ancestor."""
    root = member("root", max_steps=5)
    gate.admit_all(turn(gate, (root,)))
    for n in (1, 2):
        gate.admit_all(*(turn(gate, (member(child, max_steps=9), root), str(n)) for child in ("a", "b")))
    answer = gate.gate.admit(turn(gate, (member("a", max_steps=9), root), "3"))
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.limit) == (FailureKind.BUDGET_EXCEEDED, "max_steps")
    assert "job root and its descendants took 5 model turns, and its limit is 5" in answer.detail


def test_a_repeated_turn_counts_once(gate: GateBench) -> None:
    """A worker dies in a turn, and the turn is repeated. It counts once, even if the lineage's limit is reached."""
    root = member("root", max_steps=2)
    gate.admit_all(turn(gate, (member("a"), root)), turn(gate, (member("b"), root)))
    gate.admit_all(turn(gate, (member("a"), root)))
    assert gate.ask(turn(gate, (member("b"), root), "2")) == "budget_exceeded"


def test_a_turn_that_waits_reserves_no_step(redis: redis_py.Redis, prefix: str) -> None:
    """A step counts when its call is admitted. A job that ends while it waits has used none."""
    gate = GateBench(redis, prefix, {SHOP: limits(rpm=60)})
    gate.warm()
    root = member("root", max_steps=2)
    gate.admit_all(turn(gate, (member("a"), root)))
    assert gate.ask(turn(gate, (member("b"), root))) == "rate"
    elsewhere = replace(turn(gate, (member("a"), root), "2"), downstream="free")
    gate.admit_all(elsewhere)


def test_a_replay_of_the_limits_job_lets_its_lineage_go_on(gate: GateBench) -> None:
    """A replay grants turns: the job reports a higher limit, which binds its children from then on."""
    root = member("root", max_steps=2)
    gate.admit_all(turn(gate, (root,)), turn(gate, (member("a"), root)))
    assert gate.ask(turn(gate, (root,), "2")) == "budget_exceeded"
    gate.admit_all(turn(gate, (member("root", max_steps=52),), "2"))
    gate.admit_all(turn(gate, (member("a"), root), "2"))


# --- tokens


def test_token_limits_of_every_ancestor_bind(gate: GateBench) -> None:
    """Not only the root's limits count. Tokens reserved by live calls make other calls wait. Used tokens deny them."""
    parent, root = member("parent", max_input_tokens=100), member("root")
    first = turn(gate, (member("a"), parent, root), tokens=60)
    gate.admit_all(first)
    other = turn(gate, (member("b"), parent, root), tokens=60)
    waiting = gate.gate.admit(other)
    assert isinstance(waiting, Defer)
    assert "lineage_tokens" in waiting.reason
    gate.ok(first, 60)
    denied = gate.gate.admit(gate.claim_again(other))
    assert isinstance(denied, Failure)
    assert (denied.kind, denied.limit) == (FailureKind.BUDGET_EXCEEDED, "max_input_tokens")
    assert "job parent and its descendants used 60 tokens" in denied.detail
    gate.admit_all(turn(gate, (member("c"), root), tokens=60))


def test_a_lost_call_is_charged_once_as_reserved(gate: GateBench) -> None:
    """A worker dies between reservation and settlement. The call may have been made, so its tokens count, but only once."""
    chain = (member("a"), member("parent", max_output_tokens=100), member("root"))
    call = turn(gate, chain, output=40)
    gate.admit_all(call)
    again = gate.claim_again(call, lost=True)
    gate.admit_all(again)
    gate.ok(again, 0, 40)
    gate.ok(again, 0, 40)
    assert gate.ask(turn(gate, (member("b"), *chain[1:]), output=21)) == "budget_exceeded"
    gate.admit_all(turn(gate, (member("b"), *chain[1:]), output=20))


def test_tokens_of_the_root_before_its_first_child_count(gate: GateBench) -> None:
    """A root with a token limit is counted from its first call on, with or without children."""
    alone = gate.call("root", 70, lineage_input_tokens=100, lineage_output_tokens=0)
    gate.admit_all(alone)
    gate.ok(alone, 70, 1)
    root = member("root", max_input_tokens=100)
    assert gate.ask(turn(gate, (member("a"), root), tokens=31)) == "budget_exceeded"
    gate.admit_all(turn(gate, (member("a"), root), tokens=30))


def test_a_lone_job_leaves_no_record_of_its_use(gate: GateBench) -> None:
    """It pays nothing: its turns and calls are not stored in the lineage's record."""
    gate.admit_all(gate.call("alone"))
    assert set(gate.lineage("alone")) <= {"n", "t"}
