"""The counts that `midwatch demo` shows and prints."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Account:
    """The result of one demo run, as `midwatch demo --json` prints it."""

    submitted: int = 0
    completed: int = 0
    dead_lettered: int = 0
    lost: int = 0
    duplicate_effects: int = 0
    invalid_calls_caught: int = 0
    failed_calls: int = 0
    """Model calls that the provider failed or throttled. In an outage they count against no job's retries."""
    retries: int = 0
    """Failed attempts that counted against `max_retries`."""
    worker_kills: int = 0
    seconds: float = 0.0
    not_completed: list[dict[str, str]] = field(default_factory=list)
    """One entry for each job that did not complete: ticket, job_id, status, why."""
