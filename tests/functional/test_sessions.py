"""Sessions on a real fleet: one job at a time and in order, `on_busy`, and what a dead letter holds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from midwatch.orchestration.errors import SessionBusy
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import Stop
from midwatch.workers.simulator import Say
from tests.functional.fleet_agents import interrupting, plain, rejecting, scribe
from tests.functional.fleet_marks import marks
from tests.functional.fleet_stage import fleet_on_stage, use
from tests.patience import PATIENCE_S

TWO_OF_EACH = (("model,maintenance", "threads", 6), ("model,tools", "threads", 6), ("tools", "threads", 6))


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """Three workers, so that a session's jobs may run on any of them."""
    with (
        lend_prefix() as prefix,
        fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("sessions"), TWO_OF_EACH) as stage,
    ):
        yield stage


def haul(stage):
    """Return an input that keeps its job running until the job is cancelled."""
    return stage.cast([use(("long_haul", {}))])


def wait_until_begun(handle, wait_for):
    """Wait until the tool of such a job runs."""
    wait_for(lambda: marks(f"haul-{handle.id}"), "the tool to begin")


def at_once(count, work):
    """Let `count` threads call a function at the same moment. Return their results."""
    start = threading.Barrier(count)

    def run(number):
        start.wait(PATIENCE_S)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_jobs_of_one_session_run_one_after_another_in_order(stage):
    """Twelve jobs in four sessions on three workers: each job sees exactly the earlier jobs of its session."""
    handles = {s: [stage.client.enqueue("plain", f"{s} {n}", session_id=f"line-{s}") for n in range(3)] for s in "abcd"}
    for session, jobs in handles.items():
        results = [handle.result(PATIENCE_S) for handle in jobs]
        assert [result.output for result in results] == [f"You said: {session} {n}" for n in range(3)]
        said = [message.text for message in stage.client.sessions.messages(f"line-{session}")]
        assert said == [text for n in range(3) for text in (f"{session} {n}", f"You said: {session} {n}")]
        times = [(stage.job(handle).started_ms, stage.job(handle).finished_ms) for handle in jobs]
        assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


def test_a_job_without_a_session_gets_a_new_one(stage):
    """Two jobs without a session share nothing, and each can be continued in its own session."""
    first, second = plain.enqueue("one"), plain.enqueue("two")
    assert first.session_id != second.session_id
    assert first.result(PATIENCE_S).session_id == first.session_id
    third = plain.enqueue("three", session_id=first.session_id)
    assert third.result(PATIENCE_S).output == "You said: three"
    assert [m.text for m in stage.client.sessions.messages(first.session_id) if m.role == "user"] == ["one", "three"]


def test_a_rejecting_agent_refuses_a_busy_session_and_takes_a_free_one(stage, wait_for):
    """With `on_busy="reject"`, SessionBusy names the current job, and no job is stored. Later a job is accepted."""
    busy = scribe.enqueue(haul(stage), session_id="rejected")
    wait_until_begun(busy, wait_for)
    with pytest.raises(SessionBusy, match=rf"session 'rejected' runs job '{busy.id}'.*on_busy='enqueue'"):
        rejecting.enqueue("now", session_id="rejected")
    assert busy.cancel()
    assert busy.result(PATIENCE_S).status is JobStatus.CANCELLED
    assert rejecting.run("now", session_id="rejected", timeout_s=PATIENCE_S).output == "You said: now"


def test_a_refused_job_can_be_enqueued_again_with_its_key(stage, wait_for):
    """A refusal stores no job, so the same key is accepted later. The handle has the job's session."""
    busy = scribe.enqueue(haul(stage), session_id="key-refused")
    wait_until_begun(busy, wait_for)
    with pytest.raises(SessionBusy):
        rejecting.enqueue("now", session_id="key-refused", idempotency_key="refused-once")
    busy.cancel()
    busy.result(PATIENCE_S)
    handle = rejecting.enqueue("now", session_id="elsewhere", idempotency_key="refused-once")
    assert handle.accepted
    assert handle.session_id == stage.job(handle).session_id
    assert handle.result(PATIENCE_S).output == "You said: now"


def test_an_interrupting_job_cancels_the_running_one_and_runs_next(stage, wait_for):
    """With `on_busy="interrupt"` the running tool sees the cancel and the job ends cancelled. Waiting jobs wait longer."""
    running = scribe.enqueue(haul(stage), session_id="interrupted")
    wait_until_begun(running, wait_for)
    waiting = plain.enqueue("in line", session_id="interrupted")
    urgent = interrupting.enqueue("urgent", session_id="interrupted")
    assert running.result(PATIENCE_S).status is JobStatus.CANCELLED
    assert urgent.result(PATIENCE_S).output == "You said: urgent"
    assert waiting.result(PATIENCE_S).output == "You said: in line"
    assert stage.job(urgent).finished_ms <= stage.job(waiting).started_ms
    assert [result.content for result in stage.results(running)] == ["given up"]
    assert marks(f"haul-{running.id}") == ["begun", "told"]


def test_the_same_key_twice_is_the_same_job(stage):
    """The second enqueue gets the first job, even with another session. Keys of another agent are separate."""
    first = plain.enqueue("pay the bill", idempotency_key="bill-7")
    again = plain.enqueue("pay the bill", idempotency_key="bill-7", session_id="elsewhere")
    assert (first.accepted, again.accepted) == (True, False)
    assert (again.id, again.session_id) == (first.id, first.session_id)
    assert again.result(PATIENCE_S).output == "You said: pay the bill"
    late = stage.client.enqueue("plain", "pay the bill", idempotency_key="bill-7")
    assert (late.id, late.accepted) == (first.id, False)
    other = rejecting.enqueue("pay the bill", idempotency_key="bill-7")
    assert other.accepted
    assert other.id != first.id
    assert other.result(PATIENCE_S).status is JobStatus.COMPLETED


@pytest.mark.parametrize("sessions", ["none", "one", "different"])
def test_the_same_key_from_many_producers_at_once_is_one_job(stage, sessions):
    """Eight threads use one key. One is accepted, all get the same job in the same session, and one model call is made."""
    text = stage.cast(["Paid."])

    def enqueue(number):
        session = {"none": None, "one": "race-one", "different": f"race-{number}"}[sessions]
        return plain.enqueue(text, idempotency_key=f"race-{sessions}", session_id=session)

    handles = at_once(8, enqueue)
    assert [handle.accepted for handle in handles].count(True) == 1
    assert len({handle.id for handle in handles}) == 1
    assert {handle.session_id for handle in handles} == {stage.job(handles[0]).session_id}
    assert handles[0].result(PATIENCE_S).output == "Paid."
    assert len(stage.heard(text)) == 1


def test_a_dead_letter_holds_its_session_until_it_is_replayed(stage):
    """The next job must not run before the failed one. A replay finishes the failed job, then the next one runs."""
    answers = iter([Say("", stop=Stop.REFUSAL), Say("Well then.")])
    text = stage.cast([lambda conversation: next(answers)])
    first = plain.enqueue(text, session_id="held")
    behind = plain.enqueue("next", session_id="held")
    result = first.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "refused")
    assert behind.status() is JobStatus.QUEUED
    letter = stage.client.dead_letters.show(first.id)
    assert (letter.step, letter.failure.kind, len(letter.tries)) == ("1", "refused", 1)
    assert stage.client.dead_letters.replay(first.id)
    assert not stage.client.dead_letters.replay(first.id)
    assert first.result(PATIENCE_S).output == "Well then."
    assert behind.result(PATIENCE_S).output == "You said: next"
    assert [m.text for m in stage.client.sessions.messages("held")] == [text, "Well then.", "next", "You said: next"]


def test_a_discarded_dead_letter_frees_its_session(stage):
    """A discard is final: the job stays dead, it can't be replayed, and the next one runs."""
    first = plain.enqueue(stage.cast([Say("", stop=Stop.REFUSAL)]), session_id="given-up")
    behind = plain.enqueue("next", session_id="given-up")
    assert first.result(PATIENCE_S).status is JobStatus.DEAD_LETTERED
    assert stage.client.dead_letters.discard(first.id)
    assert not stage.client.dead_letters.discard(first.id)
    assert not stage.client.dead_letters.replay(first.id)
    assert behind.result(PATIENCE_S).output == "You said: next"
    assert first.status() is JobStatus.DEAD_LETTERED


def test_a_job_in_line_can_be_cancelled_and_the_others_move_up(stage, wait_for):
    """A job that waits for its session ends at once, without a model call."""
    running = scribe.enqueue(haul(stage), session_id="line")
    wait_until_begun(running, wait_for)
    text = stage.cast(["never said"])
    waiting, last = plain.enqueue(text, session_id="line"), plain.enqueue("last", session_id="line")
    assert waiting.cancel()
    assert not waiting.cancel()
    assert waiting.result(PATIENCE_S).status is JobStatus.CANCELLED
    running.cancel()
    assert last.result(PATIENCE_S).output == "You said: last"
    assert stage.heard(text) == []
