"""A lineage: a root job and its descendants. Each job's limits bind the job and all its descendants."""

from __future__ import annotations

from midwatch.schemas.contract import Id, Record


class Bounds(Record):
    """The limits of one job that bind its descendants too, as numbers. None: no limit."""

    max_steps: int | None = None
    max_tool_calls: int | dict[str, int] | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_children: int | None = None
    """Children of the job itself. Its descendants have their own limit."""
    max_depth: int | None = None
    """The deepest level of a descendant. The root is at level 0."""


class Member(Record):
    """A job of a lineage, with the limits that bind its descendants."""

    job_id: Id
    session_id: Id | None = None
    """None if it is not known: a job of an earlier release names no sessions of its ancestors but the parent's."""
    bounds: Bounds | None = None
    """None if they are not known yet: a job that was enqueued by name gets its limits at its first step."""
