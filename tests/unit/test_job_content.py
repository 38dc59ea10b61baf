"""The input of a job and the arguments of its failing call are shown only with `--content`."""

from __future__ import annotations

import pytest

from midwatch import Agent, Client, Escalation, RetryConfig, tool
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.step import StepRef
from midwatch.testing import InlineFleet, ScriptedModel, call
from midwatch.workers.cli.commands.jobs import content_card, read_failing_content, relatives


@tool(idempotent=True, retry=RetryConfig(max_retries=0, retry_on=[], fail_hard_on=["tool_error"]))
def pay(amount: int) -> str:
    """Pay."""
    raise RuntimeError(f"the bank is closed for {amount}")


CLERK = Agent("clerk", "scripted:m-1", "You help.", [pay])
ASKING = Agent("asking", "scripted:m-1", "You help.", [pay], escalation=[Escalation("tool_approval", tools=["pay"])])


def ended(agent, *replies):
    """A client, and the record of a job of these replies."""
    fleet = InlineFleet(agent, model=ScriptedModel(list(replies)))
    client = Client(store=fleet.store, operations=fleet.operations)
    job_id = fleet.enqueue(agent, "Pay Ms Doe five.", session_id="s1")
    fleet.run(job_id)
    return client, client.jobs.show(job_id)


def test_a_failed_call_is_shown_with_its_arguments():
    """The unknown effect of a tool: input, tool and arguments, and where the conversation is."""
    client, job = ended(CLERK, call("pay", amount=5))
    found = read_failing_content(client, job)
    assert job.status == "dead_lettered"
    assert (found.input, found.tool, found.arguments) == ("Pay Ms Doe five.", "pay", '{"amount": 5}')
    card = dict(content_card(job, found))
    assert card["called with"] == 'pay({"amount": 5})'
    assert card["conversation"] == "midwatch sessions show s1"


def test_a_question_is_shown_with_its_call():
    """A parked job waits for a decision about exactly this call."""
    client, job = ended(ASKING, call("pay", amount=7))
    assert job.status == "parked"
    assert read_failing_content(client, job).call == 'pay({"amount": 7})'


def test_a_job_that_died_in_its_first_turn_has_its_input():
    """No turn was committed, so the trace can't tell the job's part. The session's last input is its own."""
    client, job = ended(CLERK, FailureKind.AUTH_ERROR)
    found = read_failing_content(client, job)
    assert (found.input, found.call) == ("Pay Ms Doe five.", "")


def test_a_queued_job_has_its_input():
    """It is not in the session yet."""
    fleet = InlineFleet(CLERK, model=ScriptedModel([]))
    client = Client(store=fleet.store, operations=fleet.operations)
    job_id = fleet.enqueue(CLERK, "Pay.")
    assert read_failing_content(client, client.jobs.show(job_id)).input == "Pay."


@pytest.mark.parametrize("replies", [(FailureKind.AUTH_ERROR,), (call("pay", amount=5),)])
def test_content_is_hidden_unless_it_is_asked_for(replies):
    """A card without content holds none of the customer's words, and says how to see them."""
    _client, job = ended(CLERK, *replies)
    shown = str(content_card(job, None))
    assert "Doe" not in shown
    assert "--content" in shown
    assert relatives(job, []) == [("parent job", ""), ("child jobs", "")]


def test_parent_and_children_name_each_other():
    """From either job the other one can be reached. Children of earlier turns are counted."""
    _client, job = ended(CLERK, FailureKind.AUTH_ERROR)
    child = job.model_copy(update={"parent": StepRef(job_id="job-p", session_id="s1", step="2.0")})
    assert dict(relatives(child, []))["parent job"] == "job-p, step 2.0"
    parent = job.model_copy(update={"children": 1})
    assert dict(relatives(parent, ["job-c"]))["child jobs"] == "job-c"
    assert dict(relatives(parent.model_copy(update={"children": 3}), ["job-c"]))["child jobs"].startswith("3 in all")
