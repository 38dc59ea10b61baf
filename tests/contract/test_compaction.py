"""What a store promises a compaction. Every test runs on a real Redis and on the Redis in this process."""

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


def run_turns(bench: Bench, turns: int = 3) -> Claim:
    """Run a job for some turns, each with one call. Return the claim of the next turn."""
    claim = bench.begin()
    for _ in range(turns):
        claim = run_turn(bench, claim)
    return claim


def run_turn(bench: Bench, claim: Claim) -> Claim:
    """Run a turn with one call, and commit its result. Return the claim of the next turn."""
    assert bench.store.commit_turn(claim, turn_of(claim, 1)) is TurnCommitted.COMMITTED
    call = bench.claim(claim.ref.call(0))
    assert bench.store.commit_results(call, results_of(call))
    return bench.claim(claim.ref.model_turn(claim.ref.turn + 1))


def begin_compaction(
    bench: Bench, ref: StepRef, nonce: str = "c1", *, job_id: str = "", lock_ms: int = 60_000
) -> CompactionWork:
    """Begin a compaction. Return its work."""
    work = bench.store.begin_compaction(ref, nonce, job_id=job_id, lock_ms=lock_ms)
    assert isinstance(work, CompactionWork), work
    return work


def without_group(work: CompactionWork, group: int, **more: object) -> Compaction:
    """Return a compaction that moves one group into the archive and puts a memory in its place."""
    places = [at for at, message in enumerate(work.messages) if message.group == group]
    gone = [work.messages[at] for at in places]
    return Compaction(
        **{"memory": MEMORY, "removed": tuple(places), "archived": ((group, pack_group(gone)),), **more}  # type: ignore[arg-type]
    )


def claim_again(bench: Bench, claim: Claim) -> Claim:
    """Claim the same step once more, as the worker that has it."""
    found = bench.store.claim(claim.ref, claim.nonce)
    assert isinstance(found, Claim)
    return found


def groups(claim: Claim) -> list[int]:
    """Return the group of each message of a claimed conversation."""
    return [message.group for message in claim.log]


def test_a_compaction_gets_everything_it_needs_at_its_begin(bench):
    """The work has the stored log, the sizes, the job that has the session, and the job that pays for it."""
    claim = run_turns(bench, turns=2)
    work = begin_compaction(bench, claim.ref.compaction(), job_id="job-1")
    assert work.messages == tuple(claim.log)
    assert sum(work.weights) == claim.log_weight == weigh_all(claim.log)
    assert (work.active_job, work.memory, work.epoch, work.nonce) == ("job-1", None, 0, "c1")


def test_a_committed_compaction_is_what_the_next_claim_sees(bench):
    """The next claim has no archived group, a stub in its place, the memory and the handles.

    A worker's cached copy is replaced too.
    """
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction())
    at = len(work.messages) - 1
    stub = work.messages[at].model_copy(update={"content": "left out", "handle": "res-1"})
    done = without_group(work, 2, replaced=((at, stub),), results=(("res-1", b"whole"),))
    assert bench.store.commit_compaction(work, done) is True
    seen = claim_again(bench, claim)
    assert groups(seen) == [1, 3, 3, 4, 4]
    assert isinstance(seen.log[0], UserMessage)
    assert seen.log[-1] == stub
    assert seen.log_weight == weigh_all(seen.log)
    assert seen.memory == MEMORY
    assert "results" in seen.flags
    assert bench.store.get_result("s1", "res-1") == b"whole"
    assert unpack_group(bench.store.get_archived("s1", 2) or b"") == [m for m in work.messages if m.group == 2]
    assert bench.store.get_archived("s1", 3) is None


def test_turns_after_a_compaction_continue_the_same_conversation(bench):
    """A worker adds each new turn to its copy of the short log, as it did with the long log."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction())
    assert bench.store.commit_compaction(work, without_group(work, 2))
    claim = run_turn(bench, claim_again(bench, claim))
    assert groups(claim) == [1, 3, 3, 4, 4, 5, 5]
    assert claim.memory == MEMORY
    assert claim.log_weight == weigh_all(claim.log)


def test_a_turn_committed_during_a_compaction_survives(bench):
    """The turn's messages follow what the compaction left, in order, each of them once."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction())
    later = run_turn(bench, claim)
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    seen = claim_again(bench, later)
    assert groups(seen) == [1, 3, 3, 4, 4, 5, 5]
    assert [type(message) for message in seen.log[-2:]] == [AssistantMessage, ToolMessage]


def test_results_committed_during_a_compaction_keep_their_call_order(bench):
    """One result exists when the compaction begins, and an earlier call's result comes later. No group is split or reordered."""
    claim = run_turns(bench, turns=1)
    assert bench.store.commit_turn(claim, turn_of(claim, 2)) is TurnCommitted.COMMITTED
    first, second = bench.claim(claim.ref.call(0)), bench.claim(claim.ref.call(1))
    assert bench.store.commit_results(second, results_of(second))
    work = begin_compaction(bench, claim.ref.compaction())
    assert bench.store.commit_results(first, results_of(first))
    assert bench.store.commit_compaction(work, without_group(work, 2))
    seen = bench.claim(claim.ref.model_turn(3))
    assert [m.ordinal for m in seen.log if isinstance(m, ToolMessage)] == [0, 1]
    assert groups(seen) == [1, 3, 3, 3]


def test_only_one_of_two_concurrent_compactions_begins(bench):
    """The second compaction gets the longest time that it must wait. When the first one is done, it may begin."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction(), "c1", lock_ms=60_000)
    busy = bench.store.begin_compaction(claim.ref.compaction(), "c2", lock_ms=60_000)
    assert isinstance(busy, CompactionBusy)
    assert 0 < busy.lock_left_ms <= 60_000
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    second = begin_compaction(bench, claim.ref.compaction(), "c2")
    assert (second.epoch, second.memory) == (1, MEMORY)


def test_a_compaction_that_lost_its_lock_changes_nothing(bench):
    """The compaction was too slow and another one began. Whichever commits first, the slow one changes nothing."""
    claim = run_turns(bench)
    slow = begin_compaction(bench, claim.ref.compaction(), "slow", lock_ms=0)
    quick = begin_compaction(bench, claim.ref.compaction(), "quick")
    assert bench.store.commit_compaction(slow, without_group(slow, 3)) is False
    assert groups(claim_again(bench, claim)) == [1, 2, 2, 3, 3, 4, 4]
    assert bench.store.commit_compaction(quick, without_group(quick, 2)) is True
    assert bench.store.commit_compaction(slow, without_group(slow, 3)) is False
    assert groups(claim_again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.get_archived("s1", 3) is None


def test_a_compaction_of_another_epoch_changes_nothing(bench):
    """An earlier attempt of the same worker read a log that no longer exists. Its indexes would hit other messages."""
    claim = run_turns(bench)
    first = begin_compaction(bench, claim.ref.compaction(), "c1")
    second = begin_compaction(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(second, without_group(second, 2)) is True
    third = begin_compaction(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(first, without_group(first, 3)) is False
    assert groups(claim_again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.commit_compaction(third, without_group(third, 3)) is True
    assert groups(claim_again(bench, claim)) == [1, 4, 4]


def test_a_compaction_of_a_log_that_the_server_lost_changes_nothing(bench):
    """After a failover to an older log, the last message is not the one that the compaction read."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction())
    other = replace(work, last_digest="0" * 40)
    assert bench.store.commit_compaction(other, without_group(work, 2)) is False
    assert groups(claim_again(bench, claim)) == [1, 2, 2, 3, 3, 4, 4]


def test_a_compaction_sent_twice_is_committed_once(bench):
    """The reply to the first commit is lost. The second commit changes nothing and returns False."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction())
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=Usage(input_tokens=7))) is True
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=Usage(input_tokens=7))) is False
    assert groups(claim_again(bench, claim)) == [1, 3, 3, 4, 4]
    assert bench.store.job("job-1").usage.input_tokens == 30 + 7


def test_a_compaction_that_dies_leaves_the_old_state_until_its_lock_ends(bench):
    """The log is unchanged and the job goes on. The next compaction may begin when the lock has expired."""
    claim = run_turns(bench)
    begin_compaction(bench, claim.ref.compaction(), "dies", lock_ms=0)
    claim = run_turn(bench, claim)
    assert groups(claim) == [1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert claim.memory is None
    work = begin_compaction(bench, claim.ref.compaction(), "next")
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True


def test_a_compaction_that_changes_nothing_gives_the_lock_back(bench):
    """The epoch stays, so no worker reads the whole log again."""
    claim = run_turns(bench)
    work = begin_compaction(bench, claim.ref.compaction(), "c1")
    assert bench.store.commit_compaction(work, Compaction()) is True
    assert begin_compaction(bench, claim.ref.compaction(), "c2").epoch == 0
    assert claim_again(bench, claim).memory is None


def test_the_job_pays_for_its_summary(bench):
    """The usage of the summarizing model is charged once, to the job that has the session."""
    claim = run_turns(bench)
    before = bench.store.job("job-1").usage
    work = begin_compaction(bench, claim.ref.compaction())
    spent = Usage(input_tokens=900, cached_tokens=100, cache_write_tokens=50, output_tokens=70, reasoning_tokens=20)
    assert bench.store.commit_compaction(work, without_group(work, 2, usage=spent))
    assert bench.store.job("job-1").usage == before + spent


def test_a_compaction_for_a_job_needs_that_job_to_have_the_session(bench):
    """A late message of another job finds nothing to compact. An operator may compact a session that no job has."""
    claim = run_turns(bench, turns=1)
    compaction = claim.ref.compaction()
    assert bench.store.begin_compaction(compaction, "c1", job_id="job-9") == NothingToCompact()
    assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "complete"))
    assert bench.store.begin_compaction(compaction, "c1", job_id="job-1") == NothingToCompact()
    work = begin_compaction(bench, compaction)
    assert work.active_job == ""
    assert bench.store.commit_compaction(work, without_group(work, 2)) is True
    assert groups(bench.begin("job-2")) == [1, 3, 4]


def test_a_session_that_does_not_exist_has_nothing_to_compact(bench):
    """Asking does not create the session."""
    ref = StepRef(job_id="job-1", session_id="never", step="0c")
    assert bench.store.begin_compaction(ref, "c1") == NothingToCompact()


def test_a_second_compaction_adds_to_the_archive_of_the_first(bench):
    """Every archived group can still be read."""
    claim = run_turns(bench)
    for group in (2, 3):
        work = begin_compaction(bench, claim.ref.compaction())
        memory = MEMORY.model_copy(update={"through_group": group})
        assert bench.store.commit_compaction(work, without_group(work, group, memory=memory))
    seen = claim_again(bench, claim)
    assert groups(seen) == [1, 4, 4]
    assert seen.memory is not None
    assert seen.memory.through_group == 3
    assert all(bench.store.get_archived("s1", group) for group in (2, 3))
