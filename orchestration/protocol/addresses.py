"""Ids that are computed: of a child job, and of a session that is made for one job."""

from __future__ import annotations

from hashlib import sha256

from midwatch.schemas.step import StepRef

MADE_ID_LENGTH = 120
"""Longest job id that becomes a part of its session's id, which has at most 128 characters."""


def child_id(ref: StepRef) -> str:
    """The id of the child job of this tool call. It is computed, so a repeated step finds the same child."""
    return "job-" + sha256(f"{ref.job_id}/{ref.step}".encode()).hexdigest()[:24]


def own_session_id(job_id: str) -> str:
    """The id of the session that is made for a job if its producer names none. Different jobs have different sessions."""
    if job_id.startswith("job-") and len(job_id) <= MADE_ID_LENGTH:
        return "session-" + job_id.removeprefix("job-")
    return "session:" + (job_id if len(job_id) <= MADE_ID_LENGTH else sha256(job_id.encode()).hexdigest())
