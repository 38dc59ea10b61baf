"""What a store promises a compaction: on both servers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midwatch.orchestration.context.recall import pack_group, unpack_group
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact, TurnCommitted
from midwatch.orchestration.tokens.weight import weigh_all
from midwatch.schemas.job import JobStatus
from midwatch.schemas.memory import Facts, Memory
from midwatch.schemas.message import AssistantMessage, ToolMessage, UserMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef
from tests.contract.store_bench import (
    Bench,
    ending_of,
    in_process_bench,
    redis_bench,
    results_of,
    trace_of,
    turn_of,
)

MEMORY = Memory(
    through_group=2, facts=(Facts(group=2, source="tool_0", untrusted=True, items=("W-17",)),), compactions=1
)


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def talk(bench: Bench, turns: int = 3) -> Claim:
    """A job that has had so many turns of one call each, and the claim of the next."""
    claim = bench.begin()
    for _ in range(turns):
        claim = go_on(bench, claim)
    return claim


def go_on(bench: Bench, claim: Claim) -> Claim:
    """A turn with one call and its result; the claim of the next."""
    assert bench.store.commit_turn(claim, turn_of(claim, 1)) is TurnCommitted.COMMITTED
    call = bench.claim(claim.ref.call(0))
    assert bench.store.commit_results(call, results_of(call))
    return bench.claim(claim.ref.model_turn(claim.ref.turn + 1))


def began(bench: Bench, ref: StepRef, nonce: str = "c1", *, job_id: str = "", lock_ms: int = 60_000) -> CompactionWork:
    """A compaction that was begun."""
    work = bench.store.begin_compaction(ref, nonce, job_id=job_id, lock_ms=lock_ms)
    assert isinstance(work, CompactionWork), work
    return work


def without_group(work: CompactionWork, group: int, **more: object) -> Compaction:
    """One group moves into the archive, and a memory takes its place."""
    places = [at for at, message in enumerate(work.messages) if message.group == group]
    gone = [work.messages[at] for at in places]
    return Compaction(
        **{"memory": MEMORY, "removed": tuple(places), "archived": ((group, pack_group(gone)),), **more}  # type: ignore[arg-type]
    )


def again(bench: Bench, claim: Claim) -> Claim:
    """The same step, claimed once more by the worker that has it."""
    found = bench.store.claim(claim.ref, claim.nonce)
    assert isinstance(found, Claim)
    return found


def groups(claim: Claim) -> list[int]:
    """Of each message of a claimed conversation."""
    return [message.group for message in claim.log]


def test_a_compaction_that_begins_is_given_all_there_is_to_compact(bench):
    """The log as it lies in the store, sizes, the job that has the session, and whose work it is."""
    claim = talk(bench, turns=2)
    work = began(bench, claim.ref.compaction(), job_id="job-1")
    assert work.messages == tuple(claim.log)
    assert sum(work.weights) == claim.log_weight == weigh_all(claim.log)
    assert (work.active_job, work.memory, work.epoch, work.nonce) == ("job-1", None, 0, "c1")


def test_a_committed_compaction_is_what_the_next_claim_sees(bench):
    """Also by a worker that still holds the long conversation: group gone, stub in place, memory and handles there."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction())
    at = len(work.messages) - 1
    stub = work.messages[at].model_copy(update={"content": "left out", "handle": "res-1"})
    done = without_group(work, 2, replaced=((at, stub),), results=(("res-1", b"whole"),))
    assert bench.store.commit_compaction(work, done) is True
    seen = again(bench, claim)
    assert groups(seen) == [1, 3, 3, 4, 4]
    assert isinstance(seen.log[0], UserMessage)
    assert seen.log[-1] == stub
    assert seen.log_weight == weigh_all(seen.log)
    assert seen.memory == MEMORY
    assert "results" in seen.flags
    assert bench.store.get_result("s1", "res-1") == b"whole"
    assert unpack_group(bench.store.archived("s1", 2) or b"") == [m for m in work.messages if m.group == 2]
    assert bench.store.archived("s1", 3) is None


def test_what_is_said_after_a_compaction_is_said_in_the_same_conversation(bench):
    """The worker's copy of the short log is completed turn by turn, as that of the long one was."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction())
    assert bench.store.commit_compaction(work, without_group(work, 2))
    claim = go_on(bench, again(bench, claim))
    assert groups(claim) == [1, 3, 3, 4, 4, 5, 5]
    assert claim.memory == MEMORY
    assert claim.log_weight == weigh_all(claim.log)


def test_a_turn_that_came_meanwhile_survives(bench):
    """Its messages stand behind what the compaction left, in order, each once."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction())
    later = go_on(bench, claim)
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    seen = again(bench, later)
    assert groups(seen) == [1, 3, 3, 4, 4, 5, 5]
    assert [type(message) for message in seen.log[-2:]] == [AssistantMessage, ToolMessage]


def test_results_that_came_meanwhile_stand_in_the_order_of_their_calls(bench):
    """One result was there when the compaction began, the one before it comes after: no group is torn or turned round."""
    claim = talk(bench, turns=1)
    assert bench.store.commit_turn(claim, turn_of(claim, 2)) is TurnCommitted.COMMITTED
    first, second = bench.claim(claim.ref.call(0)), bench.claim(claim.ref.call(1))
    assert bench.store.commit_results(second, results_of(second))
    work = began(bench, claim.ref.compaction())
    assert bench.store.commit_results(first, results_of(first))
    assert bench.store.commit_compaction(work, without_group(work, 2))
    seen = bench.claim(claim.ref.model_turn(3))
    assert [m.ordinal for m in seen.log if isinstance(m, ToolMessage)] == [0, 1]
    assert groups(seen) == [1, 3, 3, 3]


def test_of_two_at_once_one_does_the_work(bench):
    """The second is told for how long at the most; when the first is done, it may begin."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction(), "c1", lock_ms=60_000)
    busy = bench.store.begin_compaction(claim.ref.compaction(), "c2", lock_ms=60_000)
    assert isinstance(busy, CompactionBusy)
    assert 0 < busy.lock_left_ms <= 60_000
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    second = began(bench, claim.ref.compaction(), "c2")
    assert (second.epoch, second.memory) == (1, MEMORY)


def test_a_compaction_that_lost_its_lock_changes_nothing(bench):
    """It was too slow and someone else began: whichever commits first, the slow one does not count."""
    claim = talk(bench)
    slow = began(bench, claim.ref.compaction(), "slow", lock_ms=0)
    quick = began(bench, claim.ref.compaction(), "quick")
    assert bench.store.commit_compaction(slow, without_group(slow, 3)) is False
    assert groups(again(bench, claim)) == [1, 2, 2, 3, 3, 4, 4]
    assert bench.store.commit_compaction(quick, without_group(quick, 2)) is True
    assert bench.store.commit_compaction(slow, without_group(slow, 3)) is False
    assert groups(again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.archived("s1", 3) is None


def test_a_compaction_of_another_epoch_changes_nothing(bench):
    """The same worker's earlier attempt knows a log that is not there any more; its indexes would hit other messages."""
    claim = talk(bench)
    first = began(bench, claim.ref.compaction(), "c1")
    second = began(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(second, without_group(second, 2)) is True
    third = began(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(first, without_group(first, 3)) is False
    assert groups(again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.commit_compaction(third, without_group(third, 3)) is True
    assert groups(again(bench, claim)) == [1, 4, 4]


def test_a_compaction_of_a_log_that_the_server_lost_changes_nothing(bench):
    """A server that came back with an older log holds another last message than the compaction read."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction())
    other = replace(work, last_digest="0" * 40)
    assert bench.store.commit_compaction(other, without_group(work, 2)) is False
    assert groups(again(bench, claim)) == [1, 2, 2, 3, 3, 4, 4]


def test_a_commit_whose_reply_was_lost_is_not_done_twice(bench):
    """Sent again it changes nothing, and says so."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction())
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=Usage(input_tokens=7))) is True
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=Usage(input_tokens=7))) is False
    assert groups(again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.job("job-1").usage.input_tokens == 30 + 7


def test_a_compaction_that_dies_leaves_the_old_state_and_its_lock_ends_by_itself(bench):
    """Nothing of it is to be seen, the job goes on, and the next one may begin when the lock is over."""
    claim = talk(bench)
    began(bench, claim.ref.compaction(), "dies", lock_ms=0)
    claim = go_on(bench, claim)
    assert groups(claim) == [1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert claim.memory is None
    work = began(bench, claim.ref.compaction(), "next")
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True


def test_a_compaction_that_changes_nothing_gives_the_lock_back(bench):
    """No epoch passes, so no worker reads the log anew for it."""
    claim = talk(bench)
    work = began(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(work, Compaction()) is True
    assert began(bench, claim.ref.compaction(), "c2").epoch == 0
    assert again(bench, claim).memory is None


def test_the_job_pays_for_its_summary(bench):
    """What a summarizing model used is on the job that has the session, once."""
    claim = talk(bench)
    before = bench.store.job("job-1").usage
    work = began(bench, claim.ref.compaction())
    spent = Usage(input_tokens=900, cached_tokens=100, cache_write_tokens=50, output_tokens=70, reasoning_tokens=20)
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=spent))
    assert bench.store.job("job-1").usage == before + spent


def test_a_compaction_beside_a_job_is_only_for_the_job_that_has_the_session(bench):
    """A late message finds nothing to do; an operator may compact a session that nobody has."""
    claim = talk(bench, turns=1)
    compaction = claim.ref.compaction()
    assert bench.store.begin_compaction(compaction, "c1", job_id="job-9") == NothingToCompact()
    assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "complete"))
    assert bench.store.begin_compaction(compaction, "c1", job_id="job-1") == NothingToCompact()
    work = began(bench, compaction)
    assert work.active_job == ""
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    assert groups(bench.begin("job-2")) == [1, 3, 4]


def test_a_session_that_never_was_has_nothing_to_compact(bench):
    """And none is made by asking."""
    ref = StepRef(job_id="job-1", session_id="never", step="0c")
    assert bench.store.begin_compaction(ref, "c1") == NothingToCompact()


def test_a_second_compaction_adds_to_the_archive_of_the_first(bench):
    """Every group that ever left can still be paged."""
    claim = talk(bench)
    for group in (2, 3):
        work = began(bench, claim.ref.compaction())
        memory = MEMORY.model_copy(update={"through_group": group})
        assert bench.store.commit_compaction(work, without_group(work, group, memory=memory))
    seen = again(bench, claim)
    assert groups(seen) == [1, 4, 4]
    assert seen.memory is not None
    assert seen.memory.through_group == 3
    assert all(bench.store.archived("s1", group) for group in (2, 3))
