"""The id of a child job, computed from the address of the call that starts it."""

from __future__ import annotations

from hashlib import sha256

from midwatch.schemas.step import StepRef


def child_id(ref: StepRef) -> str:
    """The id of the child job of this tool call. It is computed, so a repeated step finds the same child."""
    return "job-" + sha256(f"{ref.job_id}/{ref.step}".encode()).hexdigest()[:24]
