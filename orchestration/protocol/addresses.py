"""Addresses that follow from other addresses."""

from __future__ import annotations

from hashlib import sha256

from midwatch.schemas.step import StepRef


def child_id(ref: StepRef) -> str:
    """The child's job id follows from the call's address, so a repeated step finds the same child."""
    return "job-" + sha256(f"{ref.job_id}/{ref.step}".encode()).hexdigest()[:24]
