"""A lineage as the steps, the client and the coordinator exchange it: who is bound by whom, and which limit is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.job import Job
from midwatch.schemas.lineage import Bounds, Member
from midwatch.schemas.policy import RunLimits

Chain = tuple[Member, ...]
"""A job, its parent, and so on up to the root. All their limits bind the job. Empty if it has no ancestors and no children."""


@dataclass(frozen=True)
class PlannedCall:
    """One tool call of a turn that would run."""

    tool: str
    is_child: bool = False
    """The call starts a child job. It counts for `max_children`, and not for a total number of tool calls."""


@dataclass(frozen=True)
class CallReservation:
    """The calls of one turn, to be reserved in its lineage. A repeated turn replaces its earlier reservation."""

    claim: Claim
    chain: Chain
    calls: Sequence[PlannedCall]
    """Empty: give back what this turn had reserved."""
    calls_before: Mapping[str, int] = field(default_factory=dict)
    """Calls of earlier turns of this job, by tool. They are used if the lineage's record does not know the job yet."""


@dataclass(frozen=True)
class LimitReached:
    """The limit of a lineage that a call would exceed."""

    field: str
    """`max_tool_calls` or `max_children`."""
    job_id: str
    """The job that has the limit."""
    most: int
    tool: str = ""
    """The tool that the limit names, if it names one."""


def bounds_of(limits: RunLimits, granted_steps: int = 0) -> Bounds:
    """The limits of an agent that bind the descendants of its job. Replays have granted `granted_steps` more model turns."""
    return Bounds(
        max_steps=limits.max_steps + granted_steps,
        max_tool_calls=limits.max_tool_calls,
        max_input_tokens=limits.max_input_tokens,
        max_output_tokens=limits.max_output_tokens,
        max_children=limits.max_children,
        max_depth=limits.max_depth,
    )


def chain_of(job: Job, limits: RunLimits) -> Chain:
    """The job, with the limits that its agent has now, and its ancestors."""
    own = Member(job_id=job.job_id, session_id=job.session_id, bounds=bounds_of(limits, job.granted_steps))
    return (own, *job.ancestors)


def family_chain(job: Job, limits: RunLimits) -> Chain:
    """Like `chain_of`. Empty if the job has neither ancestors nor children, because then only its own limits count."""
    return chain_of(job, limits) if job.has_family else ()


def deepest_level(chain: Chain) -> int | None:
    """The deepest level that a descendant of these jobs may have. None if no limit is known."""
    levels = [one.bounds.max_depth for one in chain if one.bounds and one.bounds.max_depth is not None]
    return min(levels, default=None)


def time_left_ms(parent: Job, now_ms: int) -> int | None:
    """What is left of a job's working time, at least a millisecond. None if its clock has not started."""
    return None if parent.deadline_ms is None else max(1, parent.deadline_ms - now_ms)


def bounded_timeout_ms(limits: RunLimits, time_left_ms: int | None) -> int:
    """The working time of a job: its agent's, but no more than its parent had left when it was enqueued."""
    own_ms = int(limits.session_timeout_s * 1000)
    return own_ms if time_left_ms is None else min(own_ms, time_left_ms)
