"""A turn and its budget: when a compaction runs in the background, when a turn waits for it, and how it ends."""

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

# --- when a compaction runs


def test_up_to_80_percent_nothing_is_compacted():
    """The whole conversation is sent, and no compaction is requested."""
    talk = Talk(clerk(context_budget=budget(20_000)), Talker(10))
    assert talk.run().output == "All done."
    assert (talk.asked, talk.compactions, talk.memory) == ([], 0, None)
    assert len(talk.model.requests[-1].messages) == 21


def test_above_80_percent_a_compaction_runs_in_the_background():
    """The turn that fills the window requests it. The next turn does not wait, and has the shorter window."""
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
    """Each request for a compaction was lost. The turn compacts in its own attempt, and goes on."""
    talk = Talk(clerk(), Talker(12), in_background=False)
    result = talk.run()
    assert result.output == "All done."
    assert talk.compactions >= 1
    assert talk.most_tokens() <= 6_000
    assert [record.attempt for record in talk.fleet.trace(talk.job_id)] == [0] * 25


def test_a_turn_without_room_is_deferred_while_another_compacts():
    """The deferral does not count as an attempt. The lock of a dead worker expires."""
    clock = ManualClock()
    talk = Talk(clerk(), Talker(12), in_background=False, clock=clock)
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


def test_a_providers_token_counter_decides():
    """The estimate has a margin, so a counter can save a compaction. If the counter fails, the estimate is used."""
    asked: list[int] = []

    def exact(request: ModelRequest) -> int:
        asked.append(tokens_of(request))
        return asked[-1]

    generous = clerk(tools=[wordy(3_200)], context_budget=budget(act_at=1.0, wait_at=1.0))
    spared = Talk(generous, model := Talker(5), in_background=False)
    model.counts = exact
    assert spared.run().output == "All done."
    assert asked
    assert (spared.compactions, max(asked) <= 5_500) == (0, True)

    def broken(request: ModelRequest) -> int:
        raise ConnectionError("no counter today")

    failing = Talk(clerk(), model := Talker(12), in_background=False)
    model.counts = broken
    assert failing.run().output == "All done."
    assert failing.most_tokens() <= 6_000


# --- how a turn without room ends


def test_too_little_room_after_a_compaction_is_a_dead_letter():
    """Prompt and tools alone are too large. The dead letter says so, before any call is paid for."""
    talk = Talk(clerk(system="You help. " * 2_000), Talker(3))
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "compaction freed too little" in result.failure.detail
    assert talk.model.requests == []
    assert len(talk.fleet.trace(talk.job_id)) == 1


@pytest.mark.parametrize("how", [FailureKind.CONTEXT_OVERFLOW, Stop.CONTEXT_FULL])
def test_a_request_refused_as_too_long_is_compacted_and_sent_again(how):
    """The step compacts and sends the request again, even if the estimate said that it fits."""
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
    """A third call would fail as well, so it is not made."""
    talk = Talk(clerk(context_budget=budget(30_000)), model := Talker(8))
    model.fail = lambda number, request: how if number >= 6 else None
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert len(model.requests) == 7
    assert talk.fleet.operations.dead_letter(talk.job_id).step == "6"


def test_an_overflow_raises_the_estimate():
    """If the window is smaller than the budget, only one turn overflows and not every turn."""
    talk = Talk(clerk(context_budget=budget(30_000)), model := Talker(40))
    model.fail = lambda number, request: FailureKind.CONTEXT_OVERFLOW if tokens_of(request) > 6_000 else None
    assert talk.run().output == "All done."
    overflows = sum(tokens_of(request) > 6_000 for request in model.requests)
    assert 1 <= overflows <= 12


# --- policies


def test_fail_ends_the_job_with_the_fill_in_the_letter():
    """Nothing is compacted or requested. The dead letter says how full the window was."""
    talk = Talk(clerk(context_budget=budget(on_overflow="fail")), model := Talker(20))
    result = talk.run()
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "6000" in result.failure.detail
    assert (talk.asked, talk.compactions) == ([], 0)
    assert 8 <= len(model.requests) < 20


def test_escalate_parks_and_compacts_after_an_approval():
    """Once approved, the same step compacts, and the job ends. If the window is full again, it is parked again."""
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


def test_a_rejected_compaction_is_a_dead_letter():
    """The letter has the reason. A replay allows another decision."""
    talk = Talk(clerk(context_budget=budget(on_overflow="escalate")), Talker(20))
    assert talk.run().status is JobStatus.PARKED
    assert talk.fleet.operations.decide(talk.job_id, approve=False, reason="too risky")
    result = talk.fleet.run(talk.job_id)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.CONTEXT_OVERFLOW)
    assert "too risky" in result.failure.detail
    assert talk.compactions == 0


def test_trim_oldest_keeps_only_the_archive():
    """The oldest groups leave as a whole. The note has no facts, but `recall` reads the originals."""
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
