"""A turn and its budget: when a conversation is compacted beside the job, when a turn waits, how it ends if nothing fits."""

from __future__ import annotations

import pytest

from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import NoteMessage, ToolMessage
from midwatch.schemas.model import ModelRequest, Stop
from midwatch.schemas.step import StepRef
from midwatch.testing import ManualClock
from tests.unit.longtalk import Talk, Talker, budget, clerk, text_of, tokens_of, wordy

# --- when


def test_below_the_mark_nothing_happens():
    """At 80 % of the budget and less the whole conversation is sent, and nobody is asked for anything."""
    talk = Talk(clerk(context_budget=budget(20_000)), Talker(10))
    assert talk.run().output == "All done."
    assert (talk.asked, talk.compactions, talk.memory) == ([], 0, None)
    assert len(talk.model.requests[-1].messages) == 21


def test_above_the_mark_a_compaction_runs_beside_the_job():
    """It is set off by the turn that found it necessary; the next turn does not wait, and finds the room it made."""
    talk = Talk(clerk(), Talker(12))
    assert talk.run().output == "All done."
    assert talk.asked
    assert all(step.endswith("c") for step in talk.asked)
    assert talk.compactions == len(talk.asked)
    assert talk.most_tokens() <= 6_000
    assert [record.outcome for record in talk.fleet.trace(talk.job_id) if "." not in record.step] == [
        *["continue"] * 12,
        "complete",
    ]


def test_a_turn_without_room_waits_for_a_compaction():
    """The message that asked for one was lost each time: the turn compacts by itself, in its own attempt, and goes on."""
    talk = Talk(clerk(), Talker(12), beside=False)
    result = talk.run()
    assert result.output == "All done."
    assert talk.compactions >= 1
    assert talk.most_tokens() <= 6_000
    assert [record.attempt for record in talk.fleet.trace(talk.job_id)] == [0] * 25


def test_a_turn_without_room_looks_again_when_someone_else_compacts():
    """It is put back for a moment, not counted as an attempt; a lock whose worker died ends by itself."""
    clock = ManualClock()
    talk = Talk(clerk(), Talker(12), beside=False, clock=clock)
    held: list[int] = []

    def hold(number: int, request: ModelRequest) -> None:
        if number == 6 and not held:
            ref = StepRef(job_id=talk.job_id, session_id="s1", step="1c")
            work = talk.fleet.store.begin_compaction(ref, "a worker that dies", lock_ms=15_000)
            assert isinstance(work, CompactionWork)
            held.append(clock.monotonic_ms())

    talk.model.fail = hold
    result = talk.run()
    assert result.output == "All done."
    deferred = [record for record in talk.fleet.trace(talk.job_id) if record.outcome == "defer"]
    assert deferred
    assert len(deferred) <= 16
    assert {(record.reason, record.attempt) for record in deferred} == {("its session is being compacted", 0)}
    assert clock.monotonic_ms() - held[0] < 20_000


def test_the_providers_counter_decides_where_there_is_one():
    """The estimate keeps a margin; a counter that says there is room spares a compaction, one that fails costs nothing."""
    asked: list[int] = []

    def exact(request: ModelRequest) -> int:
        asked.append(tokens_of(request))
        return asked[-1]

    generous = clerk(tools=[wordy(3_200)], context_budget=budget(act_at=1.0, wait_at=1.0))
    spared = Talk(generous, model := Talker(5), beside=False)
    model.counts = exact
    assert spared.run().output == "All done."
    assert asked
    assert (spared.compactions, max(asked) <= 5_500) == (0, True)

    def broken(request: ModelRequest) -> int:
        raise ConnectionError("no counter today")

    failing = Talk(clerk(), model := Talker(12), beside=False)
    model.counts = broken
    assert failing.run().output == "All done."
    assert failing.most_tokens() <= 6_000


# --- how it ends


def test_too_little_freed_is_an_ending_and_not_a_loop():
    """Prompt and tools alone are too large: a dead letter that says so, before any call is paid for."""
    talk = Talk(clerk(system="You help. " * 2_000), Talker(3))
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "compaction freed too little" in result.failure.detail
    assert talk.model.requests == []
    assert len(talk.fleet.trace(talk.job_id)) == 1


@pytest.mark.parametrize("how", [FailureKind.CONTEXT_OVERFLOW, Stop.CONTEXT_FULL])
def test_a_provider_that_finds_the_request_too_long_is_asked_once_more(how):
    """Whatever we thought: the conversation is compacted and sent again, within the same step."""
    talk = Talk(clerk(context_budget=budget(30_000)), model := Talker(8))
    model.fail = lambda number, request: how if number == 6 else None
    assert talk.run().output == "All done."
    refused, again = model.requests[5:7]
    assert tokens_of(again) < tokens_of(refused)
    assert isinstance(again.messages[0], NoteMessage)
    assert talk.compactions == 1
    records = talk.fleet.trace(talk.job_id)
    assert [record.step for record in records if "." not in record.step] == [str(n) for n in range(1, 10)]
    assert [record.attempt for record in records] == [0] * 17


@pytest.mark.parametrize("how", [FailureKind.CONTEXT_OVERFLOW, Stop.CONTEXT_FULL])
def test_a_second_overflow_of_a_step_is_a_dead_letter(how):
    """It is not tried a third time: the same would come of it."""
    talk = Talk(clerk(context_budget=budget(30_000)), model := Talker(8))
    model.fail = lambda number, request: how if number >= 6 else None
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert len(model.requests) == 7
    assert talk.fleet.operations.dead_letter(talk.job_id).step == "6"


def test_an_overflow_teaches_the_estimate():
    """A window that is smaller than the budget says is met once, not at every turn."""
    talk = Talk(clerk(context_budget=budget(30_000)), model := Talker(40))
    model.fail = lambda number, request: FailureKind.CONTEXT_OVERFLOW if tokens_of(request) > 6_000 else None
    assert talk.run().output == "All done."
    overflows = sum(tokens_of(request) > 6_000 for request in model.requests)
    assert 1 <= overflows <= 12


# --- policies


def test_fail_ends_the_job_with_the_numbers():
    """Nothing is compacted, nothing is asked beside; the dead letter says how full it was."""
    talk = Talk(clerk(context_budget=budget(on_overflow="fail")), model := Talker(20))
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "6000" in result.failure.detail
    assert (talk.asked, talk.compactions) == ([], 0)
    assert 8 <= len(model.requests) < 20


def test_escalate_asks_a_human_and_goes_on_with_a_yes():
    """Parked with the question; once approved, it compacts in the same step and comes to its end. Full again, it asks again."""
    talk = Talk(clerk(context_budget=budget(on_overflow="escalate")), Talker(20))
    result = talk.run()
    approvals = 0
    while result.status is JobStatus.PARKED:
        job = talk.fleet.store.job(talk.job_id)
        assert job.waiting is not None
        assert job.waiting.reason.startswith("context_full: The context is full (about")
        assert talk.compactions == approvals
        assert talk.fleet.operations.decide(talk.job_id, approve=True)
        approvals += 1
        assert approvals < 10
        result = talk.fleet.run(talk.job_id)
    assert result.output == "All done."
    assert talk.compactions == approvals >= 1
    assert talk.asked == []
    assert talk.most_tokens() <= 6_000


def test_a_human_who_says_no_is_not_asked_again():
    """The job is a dead letter with the reason; everything is there for another decision."""
    talk = Talk(clerk(context_budget=budget(on_overflow="escalate")), Talker(20))
    assert talk.run().status is JobStatus.PARKED
    assert talk.fleet.operations.decide(talk.job_id, approve=False, reason="too risky")
    result = talk.fleet.run(talk.job_id)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "too risky" in result.failure.detail
    assert talk.compactions == 0


def test_trim_oldest_keeps_the_way_back_and_nothing_else():
    """The oldest groups leave, whole; the note has no facts, and `recall` still reads the originals."""
    talk = Talk(clerk(context_budget=budget(on_overflow="trim_oldest")), model := Talker(14))
    assert talk.run().output == "All done."
    assert talk.compactions >= 1
    memory = talk.memory
    assert isinstance(memory, Memory)
    assert (memory.facts, memory.summary, memory.open_items) == ((), "", ())
    assert memory.through_group >= 2
    assert "recall" in [spec.name for spec in model.requests[-1].tools]
    assert all("all is well" in text_of(m) for m in model.requests[-1].messages if isinstance(m, ToolMessage))
    assert talk.most_tokens() <= 6_000
