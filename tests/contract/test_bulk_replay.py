"""A replay of all letters: batches, groups, the rate, and where it stops. Real Redis, and the Redis in this process.

The pause between two looks is the fleet: it runs the steps that were published, and fails those whose cause is still there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from midwatch.orchestration.client.letters.bulk_replay import BulkReplay
from midwatch.orchestration.client.letters.replay_window import PROBES
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.protocol.letter_filter import LetterFilter
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority, StepRef
from tests.contract.store_bench import Bench, ending_of, in_process_bench, redis_bench, trace_of
from tests.properties.two_servers import new_job


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def end(bench: Bench, ref: StepRef, downstream: str, *, dead: bool) -> None:
    """Run a step: the job completes, or becomes a letter."""
    claim = bench.claim(ref)
    if not dead:
        assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim))
        return
    failure = Failure(kind=FailureKind.OVERLOADED, detail="529")
    letter = DeadLetterRecord(
        job_id=ref.job_id, session_id=ref.session_id, agent="clerk", step=ref.step, kind=ref.kind, failure=failure,
        dead_ms=claim.now_ms, downstream=downstream,
    )  # fmt: skip
    ending = Ending(JobStatus.DEAD_LETTERED, failure=failure, letter=letter)
    assert bench.store.finish(claim, ending, trace_of(claim, "dead_letter"))


def bury(bench: Bench, count: int, downstream: str) -> None:
    """Make letters of one downstream."""
    for n in range(count):
        job = new_job(f"{downstream}-{n}", f"s-{downstream}-{n}")
        assert bench.store.enqueue(job)
        end(bench, job.ref, downstream, dead=True)
    bench.sent.refs.clear()


def fleet(bench: Bench, broken: Callable[[str], bool], batches: list[int]) -> Callable[[float], None]:
    """A pause in which the fleet runs what was published. `broken` says whether a downstream's calls fail."""

    def run(_: float) -> None:
        refs, bench.sent.refs[:] = list(bench.sent.refs), []
        batches.append(len(refs))
        for ref in refs:
            assert ref.priority is Priority.REPLAY
            downstream = ref.job_id.partition("-")[0]
            end(bench, ref, downstream, dead=broken(downstream))

    return run


def statuses(bench: Bench) -> dict[str, int]:
    found = [job.status.value for job in bench.operations.jobs(limit=1_000)]
    return {status: found.count(status) for status in set(found)}


def test_all_letters_are_replayed_in_growing_batches(bench):
    """All jobs complete, and no letter is left."""
    bury(bench, 100, "shop")
    batches: list[int] = []
    replay = BulkReplay(bench.operations, sleep=fleet(bench, lambda _: False, batches))
    for _ in replay.run():
        pass
    assert batches == [PROBES, 10, 20, 40, 25]
    assert (replay.replayed, replay.stopped) == (100, [])
    assert [(group.passed, group.failed, group.left) for group in replay.groups] == [(100, 0, 0)]
    assert statuses(bench) == {"completed": 100}
    assert bench.operations.dead_letters() == []


def test_group_whose_cause_is_still_there_stops_after_its_probes(bench):
    """The other group goes on. The letters that were not replayed stay as they were."""
    bury(bench, 30, "shop")
    bury(bench, 30, "mail")
    replay = BulkReplay(bench.operations, sleep=fleet(bench, lambda downstream: downstream == "mail", []))
    for _ in replay.run():
        pass
    assert [(str(group.group), group.replayed, group.left) for group in replay.stopped] == [
        ("overloaded at mail", PROBES, 30 - PROBES)
    ]
    assert statuses(bench) == {"completed": 30, "dead_lettered": 30}
    assert len(bench.operations.dead_letters()) == 30


def test_only_letters_that_match_are_replayed(bench):
    """A filter is that of the listing."""
    bury(bench, 3, "shop")
    bury(bench, 3, "mail")
    wanted = LetterFilter.make(downstream="sh*")
    replay = BulkReplay(bench.operations, wanted, sleep=fleet(bench, lambda _: False, []))
    assert [(group.group.downstream, group.letters) for group in replay.groups] == [("shop", 3)]
    for _ in replay.run():
        pass
    assert [letter.downstream for letter in bench.operations.dead_letters()] == ["mail"] * 3


def test_rate_bounds_the_replays(bench):
    """Two a second: the fleet never gets more, and all are replayed in the end."""
    bury(bench, 12, "shop")
    seconds = [0.0]
    batches: list[int] = []
    run = fleet(bench, lambda _: False, batches)

    def sleep(length_s: float) -> None:
        seconds[0] += length_s
        run(length_s)

    replay = BulkReplay(bench.operations, rate_per_s=2, sleep=sleep, monotonic=lambda: seconds[0])
    for _ in replay.run():
        pass
    assert max(batches) == 1
    assert sum(batches) == replay.replayed == 12
    assert seconds[0] == pytest.approx(6.0, abs=0.6)


def test_replay_that_is_left_early_is_consistent(bench):
    """Each letter is either replayed or still a letter. A second replay goes on with the rest."""
    bury(bench, 40, "shop")
    replay = BulkReplay(bench.operations, sleep=fleet(bench, lambda _: False, []))
    for _ in replay.run():
        if replay.replayed >= PROBES + 10:
            break
    left = len(bench.operations.dead_letters())
    assert left == 40 - replay.replayed
    second = BulkReplay(bench.operations, sleep=fleet(bench, lambda _: False, []))
    for _ in second.run():
        pass
    assert second.replayed == left
    assert statuses(bench) == {"completed": 40}


def test_replay_ends_when_the_last_jobs_only_wait(bench):
    """A downstream holds them. They go on without this process."""
    bury(bench, 3, "shop")
    seconds = [0.0]

    def sleep(length_s: float) -> None:
        seconds[0] += length_s

    replay = BulkReplay(bench.operations, sleep=sleep, monotonic=lambda: seconds[0])
    for _ in replay.run():
        pass
    (group,) = replay.groups
    assert (replay.replayed, len(group.window.under_way), group.window.closed) == (3, 3, False)
    assert 10 < seconds[0] < 12
