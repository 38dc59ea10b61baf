"""A lineage as the steps, the client and the coordinator exchange it: who is bound by whom, and which limit is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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


@dataclass(frozen=True)
class OverAncestor:
    """An ancestor that is over, so that its descendants have nothing to work for."""

    job_id: str
    how: str
    """`completed`, `cancelled`, `timed_out`, or `discarded`: its dead letter was discarded."""
    is_parent: bool

    @property
    def ends_descendants(self) -> bool:
        """Do its descendants end at their next step? A producer's child may go on when its parent has completed."""
        return self.how != "completed"

    @property
    def verb(self) -> str:
        """How it ended, as a verb: `has completed`."""
        words = {"completed": "has completed", "timed_out": "has timed out", "discarded": "was given up"}
        return words.get(self.how, f"was {self.how}")

    def __str__(self) -> str:
        return f"its {'parent' if self.is_parent else 'ancestor'}, job {self.job_id}, {self.verb}"


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


def own_chain(job: Job) -> Chain:
    """Like `chain_of`, for a reader that does not have the agent: the limits are those of the job's record."""
    return (Member(job_id=job.job_id, session_id=job.session_id, bounds=job.bounds), *job.ancestors)


def shared_chain(job: Job, limits: RunLimits) -> Chain:
    """Like `chain_of`. Empty if the job has neither ancestors nor children, because then only its own limits count."""
    return chain_of(job, limits) if job.shares_limits else ()


def deepest_level(chain: Chain) -> int | None:
    """The deepest level that a descendant of these jobs may have. None if no limit is known."""
    levels = [one.bounds.max_depth for one in chain if one.bounds and one.bounds.max_depth is not None]
    return min(levels, default=None)


class TimeLeft(NamedTuple):
    """What is left of a parent's time when a child is enqueued. None: no bound."""

    time_left_ms: int | None
    """Of its working time (`session_timeout_s`)."""
    total_left_ms: int | None
    """Until its `deadline_s`."""


def time_left(parent: Job, now_ms: int) -> TimeLeft:
    """What is left of a job's time, at least a millisecond. The limits of a job that was enqueued by name are not known yet."""
    if not parent.agent_version or parent.max_worked_ms is None:
        return TimeLeft(None, None)
    total_left_ms = None if parent.ends_by_ms is None else max(1, parent.ends_by_ms - now_ms)
    return TimeLeft(max(1, parent.max_worked_ms - parent.count_worked_ms(now_ms)), total_left_ms)
