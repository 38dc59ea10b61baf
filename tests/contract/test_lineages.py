"""Lineages from the producer to the tool: limits, producers' children, cancelled trees, approvals of orphans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py

from midwatch import Agent, RunLimits, tool
from midwatch.orchestration.errors import NotFound, Refused
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import ModelReply, ModelRequest
from tests.contract.lineage_bench import MODEL, Fleet

RAN: list[str] = []
"""The ledger of the tool itself: one entry for each run."""


@tool(idempotent=True)
def work(what: str) -> str:
    """Do some work."""
    RAN.append(what)
    return f"did {what}"


@tool(requires_approval=True)
def pay(what: str) -> str:
    """Pay for something."""
    RAN.append(what)
    return f"paid {what}"


Make = Callable[..., Fleet]


@pytest.fixture(autouse=True)
def ledger() -> Iterator[list[str]]:
    RAN.clear()
    yield RAN
    RAN.clear()


helper = Agent("helper", MODEL, "You help.", tools=[work, pay])
SOME = RunLimits(max_children=20, max_depth=3)


def boss(limits: RunLimits = SOME, name: str = "boss", *children: Agent) -> Agent:
    return Agent(name, MODEL, "You lead.", tools=[work, pay], children=children or (helper,), limits=limits)


@pytest.fixture
def make(redis: redis_py.Redis, prefix: str) -> Make:
    def fleet(*agents: Agent) -> Fleet:
        return Fleet(redis, prefix, *agents, helper)

    return fleet


def hand_over(fleet: Fleet, n: int, *turns: object, to: str = "helper") -> list[tuple[str, dict[str, str]]]:
    """Calls that start `n` children. Each plays the turns."""
    for child in range(n):
        fleet.model.plays[f"part {child}"] = list(turns)  # type: ignore[arg-type]
    return [(to, {"input": f"part {child}"}) for child in range(n)]


# --- limits


@pytest.mark.parametrize("is_bound", [True, False], ids=["bound", "negative control: reservation off"])
def test_eight_children_make_nine_calls_if_nine_are_allowed(make: Make, is_bound: bool) -> None:
    """The tool's own ledger has nine entries. Without the reservation, each child counts alone: 24 calls."""
    agent = boss(RunLimits(max_tool_calls=9, max_children=8))
    fleet = make(agent)
    if not is_bound:
        fleet.gate.reserve_calls = lambda reservation: [None] * len(reservation.calls)  # type: ignore[method-assign]
    calls = hand_over(fleet, 8, *[[("work", {"what": "a"})]] * 3)
    root = fleet.enqueue(agent, "lead", calls)
    fleet.run()
    assert root.status() is JobStatus.COMPLETED
    assert len(RAN) == (9 if is_bound else 24)
    refused = [text for job in fleet.whole_lineage(root) for text in fleet.told(job) if text.startswith("Not run")]
    assert len(refused) == (15 if is_bound else 0)
    assert all(root.id in text and "9 tool calls (max_tool_calls)" in text for text in refused)


def test_a_limit_by_tool_binds_the_lineage(make: Make) -> None:
    """The parent's own calls and those of its children count together."""
    agent = boss(RunLimits(max_tool_calls={"work": 3}, max_children=8))
    fleet = make(agent)
    calls = hand_over(fleet, 3, [("work", {"what": "a"})])
    root = fleet.enqueue(agent, "lead", [("work", {"what": "own"})], calls)
    fleet.run()
    assert RAN == ["own", "a", "a"]
    assert root.status() is JobStatus.COMPLETED


def test_a_childs_own_limit_still_binds_it(make: Make) -> None:
    """The parent allows more, and the child's agent less."""
    strict = Agent("strict", MODEL, "You help.", tools=[work], limits=RunLimits(max_tool_calls=1))
    agent = boss(RunLimits(max_tool_calls=9), "boss", strict)
    fleet = make(agent, strict)
    calls = hand_over(fleet, 2, [("work", {"what": "a"}), ("work", {"what": "b"})], to="strict")
    fleet.enqueue(agent, "lead", calls)
    fleet.run()
    assert RAN == ["a", "a"]


def test_turns_of_descendants_count_for_max_steps(make: Make) -> None:
    """The turn beyond the limit is a dead letter that names the limit and the ancestor."""
    agent = boss(RunLimits(max_steps=6, max_children=8))
    fleet = make(agent)
    calls = hand_over(fleet, 4, *[[("work", {"what": "a"})]] * 3)
    root = fleet.enqueue(agent, "lead", calls)
    fleet.run()
    turns = len(fleet.model.requests)
    assert turns == 6
    dead = [job for job in fleet.whole_lineage(root) if job.status is JobStatus.DEAD_LETTERED]
    assert len(dead) == 5, "all children, and the parent, which has no turn left to read their answers"
    for job in dead:
        assert job.failure
        assert job.failure.kind is FailureKind.BUDGET_EXCEEDED
        assert (job.failure.limit, root.id in job.failure.detail) == ("max_steps", True)


def test_a_replay_grants_turns_to_the_lineage(make: Make) -> None:
    """The parent ran out of turns. Replayed with more, it and new children go on."""
    agent = boss(RunLimits(max_steps=3, max_children=8))
    fleet = make(agent)
    hand_over(fleet, 1, [("work", {"what": "a"})])
    again = [("helper", {"input": "again"})]
    fleet.model.plays["again"] = [[("work", {"what": "b"})]]
    root = fleet.enqueue(agent, "lead", [("helper", {"input": "part 0"})], again)
    fleet.run()
    assert root.status() is JobStatus.DEAD_LETTERED
    assert fleet.client.dead_letters.replay(root.id)
    fleet.run()
    assert (root.status(), RAN) == (JobStatus.COMPLETED, ["a", "b"])


def test_token_limits_of_a_parent_bind_its_children(make: Make) -> None:
    """Not only the root's limit: that of any ancestor."""
    middle = boss(RunLimits(max_output_tokens=16_020, max_children=8), "middle")
    agent = boss(RunLimits(), "boss", middle)
    fleet = make(agent, middle)
    fleet.model.tokens = (10, 8_000)
    hand_over(fleet, 4, "Done.")
    fleet.model.plays["parts"] = [[("helper", {"input": f"part {n}"}) for n in range(4)]]
    root = fleet.enqueue(agent, "lead", [("middle", {"input": "parts"})])
    fleet.run()
    jobs = fleet.whole_lineage(root)
    used = sum(job.usage.output_tokens for job in jobs if job.depth > 0)
    assert used == 16_000
    dead = [job for job in jobs if job.failure and job.failure.limit == "max_output_tokens"]
    assert dead
    assert all(f"job {jobs[1].job_id}" in job.failure.detail for job in dead if job.failure)


def test_a_child_has_no_more_time_than_its_parent(make: Make) -> None:
    """Its timeout is what was left of the parent's working time, and the parent's `deadline_s` binds it."""
    agent = boss(RunLimits(session_timeout_s=100, deadline_s=200))
    fleet = make(agent)
    root = fleet.enqueue(agent, "lead", hand_over(fleet, 1), [("pay", {"what": "x"})])
    fleet.run()
    fleet.enqueue("helper", "by name", parent=root)
    fleet.enqueue(helper, "by agent", parent=root)
    fleet.run()
    parent, *descendants = fleet.whole_lineage(root)
    assert len(descendants) == 3
    for child in descendants:
        assert parent.ends_by_ms
        assert child.ends_by_ms
        assert 0 < child.ends_by_ms - child.created_ms <= parent.ends_by_ms - child.created_ms + 100
        assert child.max_worked_ms
        assert child.max_worked_ms <= 100_000


def test_a_parent_does_not_time_out_while_its_child_waits_for_a_human(make: Make) -> None:
    """The child's work counts for the parent, its waits don't: so the parent is there when the answer comes."""
    agent = boss(RunLimits(session_timeout_s=2.5))
    fleet = make(agent)
    calls = hand_over(fleet, 1, [("pay", {"what": "bill"})])
    root = fleet.enqueue(agent, "lead", calls)
    fleet.run()
    child = fleet.client.approvals.list()[0]
    time.sleep(3)
    assert fleet.client.approvals.approve(child.job_id)
    fleet.run()
    assert (root.status(), RAN) == (JobStatus.COMPLETED, ["bill"])


# --- producers' children


def parked(fleet: Fleet, agent: Agent | str, **options: object):  # type: ignore[no-untyped-def]
    """A job that is parked for an approval."""
    handle = fleet.enqueue(agent, "ask", [("pay", {"what": "bill"})], **options)
    fleet.run()
    assert handle.status() is JobStatus.PARKED
    return handle


def test_a_producers_child_is_bound_like_any(make: Make) -> None:
    """It has its parent's tenant, root, depth and limits, also when it was enqueued by name."""
    agent = boss(RunLimits(max_tool_calls=2, max_children=8))
    fleet = make(agent)
    root = parked(fleet, agent, tenant="acme")
    two = [("work", {"what": "a"}), ("work", {"what": "b"})]
    child = fleet.enqueue("helper", "one", two, parent=root)
    fleet.run()
    record = child.job()
    assert (record.tenant, record.root_id, record.depth) == ("acme", root.id, 1)
    assert record.parent
    assert record.parent.job_id == root.id
    assert RAN == ["a"], "the parent's call that waits for a human is the other one"
    grandchild = fleet.enqueue("helper", "two", two, parent=fleet.enqueue("helper", "three", parent=root))
    assert [one.job_id for one in grandchild.job().ancestors] == [grandchild.job().parent.job_id, root.id]  # type: ignore[union-attr]


def test_a_parent_enqueued_by_name_binds_from_its_first_step(make: Make) -> None:
    """The producer of the child does not know the limits. The parent's worker records them."""
    agent = boss(RunLimits(max_tool_calls=2, max_children=1))
    fleet = make(agent)
    root = parked(fleet, "boss")
    fleet.enqueue("helper", "one", [("work", {"what": "a"}), ("work", {"what": "b"})], parent=root)
    fleet.run()
    assert RAN == ["a"]
    with pytest.raises(Refused, match=r"may have 1 children \(max_children\)"):
        fleet.enqueue("helper", "two", parent=root)


def test_a_child_that_comes_during_a_turn_is_counted_with_it(make: Make) -> None:
    """The turn began without children, so it must reserve its calls before it is committed. Three are allowed, not six."""
    agent = boss(RunLimits(max_tool_calls=3))
    fleet = make(agent)
    three = [("work", {"what": name}) for name in "abc"]
    complete = fleet.model.complete

    def adopt_during_the_turn(request: ModelRequest) -> ModelReply:
        if len(fleet.model.requests) == 0:
            fleet.model.plays["child"] = [three]
            child = fleet.client.enqueue("helper", "child", parent=root)
            first = fleet.published.pop()
            assert first.job_id == child.id
            complete_child = complete
            fleet.model.complete = complete_child  # type: ignore[method-assign]
            fleet.runner.run(first)
        return complete(request)

    root = fleet.enqueue(agent, "lead", three)
    fleet.model.complete = adopt_during_the_turn  # type: ignore[method-assign]
    fleet.run()
    assert len(RAN) == 3
    assert root.status() is JobStatus.COMPLETED
    assert sum(text.startswith("Not run") for text in fleet.told(root.job())) == 3


def test_depth_is_counted_for_producers(make: Make) -> None:
    """Six deep passed with max_depth=3. The root's limit binds, whatever the child's agent allows."""
    agent = boss(RunLimits(max_depth=3))
    deep = Agent("deep", MODEL, "You help.", tools=[work, pay], limits=RunLimits(max_depth=9))
    fleet = make(agent, deep)
    handle = parked(fleet, agent)
    for _ in range(3):
        handle = fleet.enqueue(deep, "go", parent=handle)
    with pytest.raises(Refused, match=r"jobs may be nested 3 deep \(max_depth\)"):
        fleet.enqueue(deep, "deeper", parent=handle)


def test_width_is_counted_for_producers_and_calls_together(make: Make) -> None:
    """Two children by calls leave one to producers, and the other way round. A repeated enqueue counts once."""
    agent = boss(RunLimits(max_children=3))
    fleet = make(agent)
    root = fleet.enqueue(agent, "lead", hand_over(fleet, 2, [("work", {"what": "a"})]), hand_over(fleet, 2))
    fleet.run(until=lambda: len(fleet.whole_lineage(root)) == 3)
    for _ in range(2):
        fleet.enqueue("helper", "mine", parent=root, idempotency_key="mine")
    with pytest.raises(Refused, match="may have 3 children"):
        fleet.enqueue("helper", "another", parent=root)
    fleet.run()
    assert len(fleet.whole_lineage(root)) == 4
    assert sum("may start 3 child jobs" in text for text in fleet.told(root.job())) == 2


@pytest.mark.parametrize("ending", ["completed", "cancelled", "discarded"])
def test_a_parent_that_is_over_takes_no_children(make: Make, ending: str) -> None:
    """The refusal says how the parent ended. A child that it already has is returned."""
    agent = boss(RunLimits(max_steps=1))
    fleet = make(agent)
    turns = (
        []
        if ending == "completed"
        else [[("work", {"what": "a"})]]
        if ending == "discarded"
        else [[("pay", {"what": "x"})]]
    )
    root = fleet.enqueue(agent, "lead", *turns)
    kept = fleet.enqueue("helper", "kept", parent=root, idempotency_key="kept")
    fleet.run()
    if ending == "cancelled":
        root.cancel()
    if ending == "discarded":
        assert fleet.client.dead_letters.discard(root.id)
    fleet.run()
    how = {"completed": "has completed", "cancelled": "was cancelled", "discarded": "was given up"}[ending]
    with pytest.raises(Refused, match=f"job '{root.id}' {how}"):
        fleet.enqueue("helper", "late", parent=root)
    assert fleet.enqueue("helper", "kept", parent=root, idempotency_key="kept").id == kept.id


def test_a_foreign_or_unknown_parent_is_refused(make: Make) -> None:
    """A child belongs to its parent's tenant."""
    fleet = make(boss())
    root = parked(fleet, "boss", tenant="acme")
    with pytest.raises(Refused, match="tenant='rival'"):
        fleet.enqueue("helper", "one", parent=root, tenant="rival")
    root.id = "job-unknown"
    with pytest.raises(NotFound, match="job-unknown"):
        fleet.enqueue("helper", "one", parent=root)


def test_a_refused_session_gives_the_place_back(make: Make) -> None:
    """The child's session is busy, and its policy is reject. It does not count as a child."""
    picky = Agent("picky", MODEL, "You help.", tools=[work, pay], limits=RunLimits(on_busy="reject"))
    fleet = make(boss(RunLimits(max_children=1)), picky)
    root = parked(fleet, "boss")
    parked(fleet, picky, session_id="busy")
    with pytest.raises(Refused, match="busy"):
        fleet.enqueue(picky, "one", parent=root, session_id="busy")
    fleet.enqueue(picky, "two", parent=root)
    assert len(root.job().adopted) == 1


# --- orphans


def test_cancelling_a_root_cancels_the_whole_tree(make: Make) -> None:
    """Children, grandchildren, producers' children, and parked ones: nothing runs any more."""
    middle = boss(SOME, "middle")
    agent = boss(SOME, "boss", middle)
    fleet = make(agent, middle)
    fleet.model.plays["parts"] = [[("helper", {"input": "part 0"})]]
    hand_over(fleet, 1, [("pay", {"what": "bill"})])
    root = fleet.enqueue(agent, "lead", [("middle", {"input": "parts"})])
    fleet.run(until=lambda: len(fleet.whole_lineage(root)) == 3)
    mine = fleet.enqueue("helper", "mine", [("pay", {"what": "rent"})], parent=root)
    fleet.enqueue("helper", "below", [("pay", {"what": "tax"})], parent=mine)
    fleet.run()
    assert [job.status for job in fleet.whole_lineage(root)].count(JobStatus.PARKED) == 3
    assert root.cancel()
    fleet.run()
    assert {job.status for job in fleet.whole_lineage(root)} == {JobStatus.CANCELLED}
    assert RAN == []


@pytest.mark.parametrize("ending", ["cancelled", "completed", "discarded"])
def test_an_approval_for_an_orphan_is_refused(make: Make, ending: str) -> None:
    """The parent is over before the human decides. The refusal says so, and nothing runs. A rejection is still possible."""
    agent = boss(RunLimits(max_steps=2))
    fleet = make(agent)
    turns = {"cancelled": [[("pay", {"what": "own"})]], "completed": [], "discarded": [[("work", {"what": "own"})]]}[
        ending
    ]
    root = fleet.enqueue(agent, "lead", *turns)
    child = fleet.enqueue("helper", "mine", [("pay", {"what": "bill"})], parent=root)
    fleet.run()
    end_quietly(fleet, root.id, ending)
    assert child.status() is JobStatus.PARKED
    with pytest.raises(Refused, match="can't go on: its parent, job"):
        child.approve()
    fleet.run()
    assert "bill" not in RAN
    assert child.reject("too late")


@pytest.mark.parametrize("ending", ["cancelled", "completed"])
def test_an_approval_that_a_parents_end_overtakes_does_not_run(make: Make, ending: str) -> None:
    """The human approves, then the parent ends, then the step is claimed: the job is cancelled, and says why."""
    agent = boss()
    fleet = make(agent)
    root = fleet.enqueue(agent, "lead", [("pay", {"what": "own"})])
    child = fleet.enqueue("helper", "mine", [("pay", {"what": "bill"})], parent=root)
    fleet.run()
    assert child.approve()
    end_quietly(fleet, root.id, ending)
    fleet.run()
    job = child.job()
    assert (job.status, RAN) == (JobStatus.CANCELLED, [])
    assert job.failure
    assert job.failure.detail.startswith(f"approved, but not run: its parent, job {root.id},")


def test_children_of_a_dead_letter_go_on(make: Make) -> None:
    """It may be replayed, so their work is not lost: an approval runs."""
    agent = boss(RunLimits(max_steps=2))
    fleet = make(agent)
    root = fleet.enqueue(agent, "lead", [("work", {"what": "own"})])
    child = fleet.enqueue("helper", "mine", [("pay", {"what": "bill"})], parent=root)
    fleet.run()
    assert root.status() is JobStatus.DEAD_LETTERED
    assert child.approve()
    fleet.run()
    assert "bill" in RAN


def end_quietly(fleet: Fleet, job_id: str, ending: str) -> None:
    """Write to a job's record that it is over, as if its end had not reached its children yet."""
    job = fleet.operations.job(job_id)
    key = fleet.keys.job(job.session_id, job_id)
    if ending == "discarded":
        fleet.store.client.hset(key, mapping={"status": "dead_lettered", "discarded": "1"})
    else:
        fleet.store.client.hset(key, "status", ending)
