"""A human decides on parked calls. A parked call holds no worker, and runs once or not at all, by the first decision."""

from __future__ import annotations

import threading

import pytest

from midwatch import Escalation
from midwatch.orchestration.errors import ConfigError, JobTimeout, Refused
from midwatch.schemas.job import JobStatus
from tests.functional.fleet_agents import CLAUDE, SHORT_S, agent, desk, escalating, plain, soon
from tests.functional.fleet_marks import marks
from tests.functional.fleet_stage import fleet_on_stage, told, use
from tests.functional.fleet_tools import ship
from tests.patience import PATIENCE_S

SLOTS = 2
ONE_SMALL_WORKER = (("model,tools", "threads", SLOTS),)


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """One worker with two slots, so a parked job that held a slot would be noticed."""
    folder = tmp_path_factory.mktemp("approvals")
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, folder, ONE_SMALL_WORKER) as stage:
        yield stage


def park_job(stage, agent, *calls, lines=("Done.",)):
    """Enqueue a job that waits for a human. Return its handle and its input."""
    text = stage.cast([use(*calls), *lines])
    handle = agent.enqueue(text)
    assert handle.result(PATIENCE_S).status is JobStatus.PARKED
    return handle, text


def test_a_call_that_needs_approval_is_parked_and_runs_once_when_approved(stage):
    """`result()` returns at once with `parked`, and the listing has the question. After the approval the job goes on."""
    handle, text = park_job(stage, desk, ("wipe", {"target": "disk"}))
    job = stage.job(handle)
    assert (job.waiting.step, job.waiting.reason) == ("1.0", "tool_approval: May wipe run?")
    assert [one.job_id for one in stage.client.approvals.list()] == [handle.id]
    assert marks(f"wipe-{handle.id}") == []
    assert handle.approve() is True
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["wiped disk"]
    assert marks(f"wipe-{handle.id}") == ["disk"]
    assert [record.outcome for record in handle.events()] == ["continue", "park", "continue", "complete"]


def test_a_rejected_call_does_not_run_and_the_model_gets_the_reason(stage):
    """The model gets the reason in an error result, and the job goes on."""
    handle, text = park_job(stage, desk, ("wipe", {"target": "archive"}), lines=("I kept it.",))
    assert handle.reject("the archive | is needed") is True
    assert handle.result(PATIENCE_S).output == "I kept it."
    (said,) = told(stage.heard(text)[1])
    assert said.startswith("A human rejected this call: the archive")
    assert marks(f"wipe-{handle.id}") == []


def test_a_rule_decides_which_calls_need_approval(stage, wait_for):
    """`requires_approval=callable` gets the arguments: a small amount is paid at once, a large one waits for a human."""
    handle, text = park_job(stage, desk, ("pay", {"amount": 5}), ("pay", {"amount": 5_000}))
    wait_for(lambda: marks(f"pay-{handle.id}"), "the small amount to be paid")
    assert marks(f"pay-{handle.id}") == [5]
    assert stage.job(handle).waiting.step == "1.1"
    handle.approve()
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["paid 5", "paid 5000"]


def test_a_broken_approval_rule_asks_a_human(stage):
    """A bug in the rule must neither run the call nor end the job."""
    handle, _ = park_job(stage, desk, ("gamble", {}))
    assert marks(f"gamble-{handle.id}") == []
    handle.reject("mend the rule")
    assert handle.result(PATIENCE_S).output == "Done."


def test_an_escalation_parks_the_tools_that_the_agent_lists(stage):
    """`Escalation("tool_approval", tools=[...])` parks those tools, inline or not, although they don't ask for it themselves."""
    handle, text = park_job(stage, escalating, ("add", {"a": 1, "b": 1}), ("ship", {"parcel": "P1"}))
    assert marks(f"ship-{handle.id}") == []
    handle.approve()
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["2", "shipped P1"]
    assert marks(f"ship-{handle.id}") == ["P1"]


def test_several_parked_calls_are_decided_one_by_one(stage, wait_for):
    """The job stays parked until the last decision. Each call gets its own decision."""
    handle, text = park_job(
        stage, desk, ("wipe", {"target": "a"}), ("wipe", {"target": "b"}), ("wipe", {"target": "c"})
    )
    wait_for(lambda: sum(record.outcome == "park" for record in handle.events()) == 3, "all calls to be parked")
    assert handle.approve("1.2")
    assert handle.reject("keep b", "1.1")
    assert handle.status() is JobStatus.PARKED
    assert stage.job(handle).waiting.step == "1.0"
    assert handle.approve()
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["wiped a", "A human rejected this call: keep b", "wiped c"]
    assert sorted(marks(f"wipe-{handle.id}")) == ["a", "c"]


def test_a_decision_is_made_once(stage):
    """A second approval, or a decision on a job that is not parked, is refused with a message."""
    handle, _ = park_job(stage, desk, ("wipe", {"target": "once"}))
    assert handle.approve() is True
    assert handle.result(PATIENCE_S).status is JobStatus.COMPLETED
    with pytest.raises(Refused, match=rf"job '{handle.id}' is completed, not parked"):
        handle.approve()
    with pytest.raises(Refused, match="nothing to decide"):
        handle.reject("too late")
    assert marks(f"wipe-{handle.id}") == ["once"]


def test_only_the_first_of_two_concurrent_decisions_counts(stage):
    """Approve and reject race twenty times. Exactly one returns True, and the call does what that decision says."""
    pairs = [park_job(stage, desk, ("wipe", {"target": "race"}))[0] for _ in range(20)]
    for handle in pairs:
        start, won = threading.Barrier(2), {}

        def decide(word, act, start=start, won=won):
            start.wait(PATIENCE_S)
            try:
                won[word] = act()
            except Refused:
                won[word] = False

        threads = [
            threading.Thread(target=decide, args=("approve", handle.approve)),
            threading.Thread(target=decide, args=("reject", handle.reject)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(won.values()) == [False, True]
        assert handle.result(PATIENCE_S).output == "Done."
        assert marks(f"wipe-{handle.id}") == (["race"] if won["approve"] else [])


def test_parked_jobs_hold_no_worker(stage):
    """There are more parked jobs than the worker has slots, and a new job still runs at once."""
    waiting = [park_job(stage, desk, ("wipe", {"target": f"{n}"}))[0] for n in range(SLOTS + 3)]
    assert plain.run("still there?", timeout_s=PATIENCE_S).output == "You said: still there?"
    for handle in waiting:
        handle.reject()
    assert {handle.result(PATIENCE_S).output for handle in waiting} == {"Done."}


def test_a_parked_job_can_be_cancelled(stage, wait_for):
    """The call is answered without running, and the session is free again."""
    text = stage.cast([use(("wipe", {"target": "gone"}))])
    handle = desk.enqueue(text, session_id="parked-cancelled")
    assert handle.result(PATIENCE_S).status is JobStatus.PARKED
    assert handle.cancel()
    assert wait_for(lambda: (job := stage.job(handle)).status.ended and job, "its end").status is JobStatus.CANCELLED
    assert marks(f"wipe-{handle.id}") == []
    assert plain.run("next", session_id="parked-cancelled", timeout_s=PATIENCE_S).output == "You said: next"


def test_a_session_waits_behind_a_parked_job(stage):
    """The next job of the session must not run before the decision."""
    handle = desk.enqueue(stage.cast([use(("wipe", {"target": "x"})), "Done."]), session_id="behind")
    assert handle.result(PATIENCE_S).status is JobStatus.PARKED
    behind = plain.enqueue("next", session_id="behind")
    why = rf"job {behind.id} is queued after 0.3 s: behind job {handle.id} of its session, which waits for a decision"
    with pytest.raises(JobTimeout, match=why):
        behind.result(0.3)
    handle.approve()
    assert behind.result(PATIENCE_S).output == "You said: next"


def test_the_time_a_human_takes_does_not_count_for_the_deadline(stage, wait_for):
    """`session_timeout_s` limits the fleet's work only. A decision after that time is still carried out."""
    handle, _ = park_job(stage, soon, ("wipe", {"target": "late"}))
    started_ms = stage.job(handle).started_ms
    late_ms = started_ms + 1_000 * (SHORT_S + 1)
    wait_for(lambda: stage.client.operations.client.time()[0] * 1_000 > late_ms, "the time to be over")
    handle.approve()
    assert handle.result(PATIENCE_S).output == "Done."
    assert marks(f"wipe-{handle.id}") == ["late"]


def test_an_approval_rule_for_an_unknown_tool_is_refused():
    """A misspelt tool name must not remove the approval."""
    with pytest.raises(ConfigError, match=r"escalation tool_approval names 'shipp'.*did you mean 'ship'\?"):
        agent("typo", CLAUDE, ship, escalation=[Escalation(when="tool_approval", tools=("shipp",))])
