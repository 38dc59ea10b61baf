"""An agent as a tool: a child job in the same lineage, whose answer or failure is the tool's result."""

from __future__ import annotations

import pytest

from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import Stop
from midwatch.workers.simulator import Say
from tests.functional.fleet_agents import SHORT_S, chief, hasty, head
from tests.functional.fleet_marks import marks, open_gate
from tests.functional.fleet_stage import fleet_on_stage, told, use
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """Two workers that run both model turns and tools, so parents and children may run on either."""
    both = (("model,tools", "threads", 6), ("model,tools", "threads", 6))
    with (
        lend_prefix() as prefix,
        fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("children"), both) as stage,
    ):
        yield stage


def whole_lineage(stage, handle):
    """Return all jobs of a job's lineage, the oldest first."""
    root_id = stage.job(handle).root_id
    return sorted((job for job in stage.client.jobs.list() if job.root_id == root_id), key=lambda job: job.created_ms)


def test_a_child_completes_and_its_answer_is_the_result(stage):
    """The child sees only its task, and the parent's model sees the answer. Both are in one lineage."""
    task = stage.cast([use(("add", {"a": 2, "b": 2})), "It is four."])
    text = stage.cast([use(("scribe", {"input": task})), "Four, says the scribe."])
    handle = head.enqueue(text, tenant="acme", priority="high")
    assert handle.result(PATIENCE_S).output == "Four, says the scribe."
    assert told(stage.heard(text)[1]) == ["It is four."]
    assert [turn.text for turn in stage.heard(task)[0].turns] == [task]
    parent, child = whole_lineage(stage, handle)
    assert (parent.job_id, parent.depth, parent.parent) == (handle.id, 0, None)
    assert (child.agent, child.status, child.depth, child.root_id) == ("scribe", JobStatus.COMPLETED, 1, handle.id)
    assert (child.parent.job_id, child.parent.step) == (handle.id, "1.0")
    assert (child.tenant, child.priority) == ("acme", "high")
    assert child.session_id != parent.session_id
    assert parent.children == 1


def test_grandchildren_belong_to_the_root(stage):
    """Root, parent and depth are recorded at each level."""
    leaf = stage.cast(["Written."])
    middle = stage.cast([use(("scribe", {"input": leaf})), "Read."])
    text = stage.cast([use(("head", {"input": middle})), "Done."])
    handle = chief.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    jobs = whole_lineage(stage, handle)
    assert [(job.agent, job.depth) for job in jobs] == [("chief", 0), ("head", 1), ("scribe", 2)]
    assert {job.root_id for job in jobs} == {handle.id}
    assert jobs[2].parent.job_id == jobs[1].job_id


def test_two_children_run_at_the_same_time(stage):
    """Each child waits for the other one in a tool. If they ran one after the other, they would never end."""
    tasks = [
        stage.cast([use(("scribe", {"input": stage.cast([f"Part {n}."])})), lambda seen: Say(told(seen)[0])])
        for n in (1, 2)
    ]
    text = stage.cast([use(*(("head", {"input": task}) for task in tasks)), "Both."])
    handle = chief.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Both."
    assert told(stage.heard(text)[1]) == ["Part 1.", "Part 2."]
    assert len(whole_lineage(stage, handle)) == 5
    records = [record for record in handle.events() if record.tool]
    assert sorted(record.step for record in records) == ["1.0", "1.1"]


def test_a_failed_child_is_reported_to_the_parents_model(stage):
    """The parent's model gets the reason and a hint not to repeat the call. The child is a separate dead letter."""
    task = stage.cast([Say("No.", stop=Stop.REFUSAL)])
    text = stage.cast([use(("scribe", {"input": task})), "Then not."])
    handle = head.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Then not."
    (said,) = told(stage.heard(text)[1])
    assert said.startswith("Error: the child agent scribe did not finish (refused: the model refused to answer).")
    assert "do not just repeat the call" in said
    _, child = whole_lineage(stage, handle)
    assert child.status is JobStatus.DEAD_LETTERED
    assert stage.client.dead_letters.show(child.job_id).agent == "scribe"


def test_a_child_runs_concurrently_with_tools_of_the_same_turn(stage):
    """The next turn starts when the child and the tool are done. Results are in the order of the calls."""
    task = stage.cast(["Noted."])
    text = stage.cast([use(("scribe", {"input": task}), ("add", {"a": 1, "b": 1})), "Done."])
    handle = head.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["Noted.", "2"]


def test_a_child_without_a_task_is_refused_like_any_invalid_call(stage):
    """No child is started."""
    text = stage.cast([use(("scribe", {"input": ""}), ("scribe", {"task": "write"})), "Done."])
    handle = head.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert all(said.startswith("scribe was not run") for said in told(stage.heard(text)[1]))
    assert len(whole_lineage(stage, handle)) == 1


def test_a_cancelled_parent_cancels_its_children(stage, wait_for):
    """No job waits for the child's answer any more, so the child and its own children end cancelled."""
    leaf = stage.cast([use(("long_haul", {}))])
    middle = stage.cast([use(("scribe", {"input": leaf}))])
    handle = chief.enqueue(stage.cast([use(("head", {"input": middle}))]))
    jobs = wait_for(lambda: len(found := whole_lineage(stage, handle)) == 3 and found, "the grandchild")
    wait_for(lambda: marks(f"haul-{jobs[2].job_id}"), "the grandchild's tool to begin")
    assert handle.cancel()
    assert handle.result(PATIENCE_S).status is JobStatus.CANCELLED
    ended = wait_for(
        lambda: all(job.status.ended for job in whole_lineage(stage, handle)) and whole_lineage(stage, handle),
        "the lineage to end",
    )
    assert [job.status for job in ended] == [JobStatus.CANCELLED] * 3
    assert marks(f"haul-{jobs[2].job_id}") == ["begun", "told"]


def test_a_cancelled_child_is_reported_to_the_parents_model(stage, wait_for):
    """Cancelling a child does not cancel its parent."""
    task = stage.cast([use(("long_haul", {}))])
    text = stage.cast([use(("scribe", {"input": task})), "Without the scribe, then."])
    handle = head.enqueue(text)
    jobs = wait_for(lambda: len(found := whole_lineage(stage, handle)) == 2 and found, "the child")
    wait_for(lambda: marks(f"haul-{jobs[1].job_id}"), "the child's tool to begin")
    assert stage.client.jobs.cancel(jobs[1].job_id)
    assert handle.result(PATIENCE_S).output == "Without the scribe, then."
    assert "did not finish (cancelled" in told(stage.heard(text)[1])[0]


def test_a_timed_out_lineage_goes_on_after_replays(stage, wait_for):
    """The child had no more time than its parent. Replays bring the child's answer, and no call is paid for twice."""
    task = stage.cast([use(("idle", {"gate": "child"})), "Late, but here."])
    text = stage.cast([use(("scribe", {"input": task}), ("idle", {"gate": "parent"})), "Done, late."])
    handle = hasty.enqueue(text)
    wait_for(lambda: stage.heard(task), "the child's first turn")
    late_ms = stage.job(handle).started_ms + 1_000 * (SHORT_S + 1)
    wait_for(lambda: stage.client.operations.client.time()[0] * 1_000 > late_ms, "the time to be over")
    open_gate("parent")
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.limit) == (JobStatus.DEAD_LETTERED, "session_timeout_s")
    open_gate("child")
    child = wait_for(lambda: (found := whole_lineage(stage, handle)[1]).status.ended and found, "the child to end")
    assert (child.status, child.failure.limit) == (JobStatus.DEAD_LETTERED, "session_timeout_s")
    assert stage.client.dead_letters.replay(child.job_id)
    assert stage.client.jobs.get(child.job_id).result(PATIENCE_S).output == "Late, but here."
    assert stage.client.dead_letters.replay(handle.id)
    assert handle.result(PATIENCE_S).output == "Done, late."
    assert told(stage.heard(text)[1])[0] == "Late, but here."
    assert (len(stage.heard(task)), len(stage.heard(text))) == (2, 2)
