"""What a dead letter says about its cause, and which letters have one cause."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import tool
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.code_version import code_version
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.protocol.redrive import Cause, RedriveGroup, group_of
from midwatch.orchestration.steps.letter_cause import add_cause
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import StepKind

MODEL = "anthropic:claude-sonnet-4-6"


@tool(name="look", description="Look.", idempotent=True, retry=RetryConfig(redrive="auto", max_redrives=1))
def look(order: str) -> str:
    return order


@tool(name="refund", description="Refund an order.")
def refund(order: str) -> str:
    return order


def agent(redrive: str = "auto", **fields: Any) -> Agent:
    return Agent("clerk", MODEL, "Be brief.", [look, refund], retry_config=RetryConfig(redrive=redrive), **fields)


def letter(kind: FailureKind, *, limit: str | None = None, **fields: Any) -> DeadLetterRecord:
    known = {"job_id": "j", "session_id": "s", "agent": "clerk", "step": "1", "kind": StepKind.MODEL, "dead_ms": 1}
    return DeadLetterRecord(**(known | fields), failure=Failure(kind=kind, detail="why", limit=limit))


def complete(letter: DeadLetterRecord, of: Agent, *, redrives: int = 0, downstream: str | None = MODEL) -> Ending:
    job = Job(
        job_id="j", agent="clerk", agent_version="v0", session_id="s", root_id="j", status=JobStatus.RUNNING,
        max_steps=1, created_ms=1, redrives=redrives,
    )  # fmt: skip
    return add_cause(Ending(JobStatus.DEAD_LETTERED, letter=letter), Registry([of]), job, downstream)


def test_letter_names_its_model_downstream_and_version():
    """The version is that of the code that failed, not the one with which the job began."""
    clerk = agent()
    found = complete(letter(FailureKind.OVERLOADED), clerk, redrives=2).letter
    assert (found.model, found.downstream, found.agent_version) == (MODEL, MODEL, clerk.version)
    assert (found.redrive, found.generation) == (True, 2)


def test_letter_of_an_agent_that_is_not_loaded_is_for_a_human():
    """The worker does not know its policy."""
    other = Agent("other", MODEL, "Be brief.")
    ending = complete(letter(FailureKind.INTERNAL), other)
    assert (ending.letter.agent_version, ending.letter.redrive, ending.redrive) == ("v0", False, "")


def test_letter_is_not_redriven_by_default():
    """`redrive` is `manual` unless the agent says otherwise."""
    assert complete(letter(FailureKind.OVERLOADED), agent("manual")).redrive == ""


def test_entry_of_a_letter_begins_with_its_cause_and_its_redrives():
    """The index therefore lists letters with the same cause together, and first those that were redriven least."""
    entry = complete(letter(FailureKind.OVERLOADED), agent(), redrives=1).redrive
    group, generation, job = entry.split("\t")
    assert (RedriveGroup.parse(group), generation, job) == (RedriveGroup(Cause.AWAY, downstream=MODEL), "001", "j")


def test_policy_of_a_tool_decides_for_its_failures():
    """The agent's policy allows no redrive. The tool's policy allows one."""
    dead = letter(FailureKind.TOOL_ERROR, tool="look", step="1.0")
    clerk = agent("manual")
    assert complete(dead, clerk, downstream=None).letter.redrive
    assert not complete(dead, clerk, downstream=None, redrives=1).letter.redrive


def test_tool_that_is_not_idempotent_runs_again_only_for_a_human():
    """It may have taken effect. A call that the gate denied did not run, so it may be made."""
    assert not complete(letter(FailureKind.TOOL_ERROR, tool="refund", step="1.0"), agent()).letter.redrive
    assert complete(
        letter(FailureKind.QUOTA_EXHAUSTED, tool="refund", step="1.0"), agent(), downstream="shop"
    ).letter.redrive


def test_letter_beyond_max_redrives_waits_for_a_human():
    """The default allows three."""
    assert complete(letter(FailureKind.OVERLOADED), agent(), redrives=2).letter.redrive
    assert not complete(letter(FailureKind.OVERLOADED), agent(), redrives=3).letter.redrive


@pytest.mark.parametrize("kind", list(FailureKind))
def test_cause_of_each_kind(kind):
    """What must have passed before a letter of this kind may be replayed. None: only a human knows."""
    limit = "max_wait_s" if kind is FailureKind.WAITED_TOO_LONG else None
    group = group_of(letter(kind, limit=limit, downstream=MODEL), "v1")
    expected = {
        **dict.fromkeys(("rate_limited", "overloaded", "provider_error", "timeout", "connection"), Cause.AWAY),
        **dict.fromkeys(("tool_error", "format_error", "output_invalid", "internal", "worker_lost"), Cause.CODE),
        "waited_too_long": Cause.AWAY, "quota_exhausted": Cause.CAPPED,
    }  # fmt: skip
    assert (group.cause if group else None) == expected.get(kind.value)


def test_transient_kinds_and_waits_of_one_downstream_are_one_group():
    """One probe finds out about all of them."""
    waited = letter(FailureKind.WAITED_TOO_LONG, limit="max_wait_s", downstream=MODEL)
    others = [letter(kind, downstream=MODEL) for kind in (FailureKind.OVERLOADED, FailureKind.CONNECTION)]
    assert len({group_of(one, "v1") for one in (waited, *others)}) == 1


def test_limit_of_the_user_does_not_pass():
    """A job that ran out of its own time would run out of it again."""
    assert group_of(letter(FailureKind.TIMEOUT, limit="session_timeout_s", downstream=MODEL), "v1") is None
    assert group_of(letter(FailureKind.WAITED_TOO_LONG, limit="max_wait_s", downstream=MODEL), "v1") is not None
    assert group_of(letter(FailureKind.WAITED_TOO_LONG, limit="expires_s"), "v1") is None, "a human did not decide"


def test_job_that_waited_for_a_worker_is_redriven():
    """During an outage of a downstream all workers may be busy, so some of its jobs never reach its line."""
    assert group_of(letter(FailureKind.WAITED_TOO_LONG, limit="max_wait_s"), "v1") is not None


def test_code_version_changes_with_the_agent_and_not_with_a_second_load():
    """The same code gives the same version in every worker."""
    assert code_version(agent()) == code_version(agent())
    assert code_version(agent()) != code_version(agent(output_schema={"type": "object"}))
