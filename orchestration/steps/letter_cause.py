"""What a dead letter says about its cause: the model, the downstream, the version, and whether it heals itself."""

from __future__ import annotations

from dataclasses import replace

from midwatch.orchestration.agents.code_version import code_version
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.errors import UnknownAgent
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.protocol.redrive import entry_of, group_of
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import Job
from midwatch.schemas.step import WaitOwner

NEVER_RAN = (FailureKind.QUOTA_EXHAUSTED, FailureKind.WAITED_TOO_LONG)
"""Kinds with which a call ends before it runs. After any other kind it may have taken effect, so a tool that is not idempotent
is not called again without a human."""


def add_cause(ending: Ending, agents: Registry, job: Job, downstream: str | None) -> Ending:
    """Complete the dead letter of an ending. If its cause can pass, it gets an entry in the index of letters to redrive.

    Args:
        ending: of the job. Without a dead letter, it is returned as it is.
        agents: those that this worker has loaded.
        job: that ends.
        downstream: whose call failed, or that held the job. None: the failure is not one of a call.

    """
    if ending.letter is None:
        return ending
    letter = ending.letter.model_copy(update={"downstream": downstream, "generation": job.redrives})
    try:
        agent = agents.find(job.agent)
    except UnknownAgent:
        return replace(ending, letter=letter.model_copy(update={"agent_version": job.agent_version}))
    tool = next((tool for tool in agent.tools if tool.name == letter.tool), None)
    config = (tool and tool.retry) or agent.retry_config
    is_held_by_human = job.holder is not None and job.holder.owner is WaitOwner.HUMAN
    group = None if is_held_by_human else group_of(letter, code_version(agent))
    is_auto = (
        config.redrive == "auto" and group is not None and letter.generation < config.max_redrives
        and (tool is None or tool.idempotent or letter.failure.kind in NEVER_RAN)
    )  # fmt: skip
    known = {"model": str(agent.model), "agent_version": agent.version, "redrive": is_auto}
    letter = letter.model_copy(update=known)
    return replace(ending, letter=letter, redrive=entry_of(group, letter) if group and is_auto else "")
