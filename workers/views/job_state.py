"""A job's state in one line: what it does, what it waits for and until when, or why it ended."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus, Waiting
from midwatch.workers.views.output import duration

SHOWN_CHARS = 200


@dataclass(frozen=True)
class JobState:
    """A word for the state, and the reason for it."""

    word: str
    detail: str
    tone: str
    """Colour of the word: quiet, active, good, warning or bad."""

    def __str__(self) -> str:
        return f"{self.word}, {self.detail}" if self.detail else self.word


_TONES = {
    JobStatus.QUEUED: "quiet",
    JobStatus.RUNNING: "active",
    JobStatus.PARKED: "warning",
    JobStatus.COMPLETED: "good",
    JobStatus.DEAD_LETTERED: "bad",
    JobStatus.CANCELLED: "quiet",
    JobStatus.TIMED_OUT: "bad",
}


def describe_state(job: Job, now_ms: int) -> JobState:
    """Describe a job's state: `retrying, attempt 3, next in 12 s: rate_limited`. Long reasons are cut."""
    word, tone = job.status.replace("_", " "), _TONES[job.status]
    if job.status is JobStatus.RUNNING and job.waiting:
        return describe_wait(job.waiting, now_ms, SHOWN_CHARS)
    if job.status is JobStatus.PARKED and job.waiting:
        return JobState(word, cut(job.waiting.reason), tone)
    return JobState(word, describe_failure(job.failure) if job.failure else "", tone)


def describe_wait(waiting: Waiting, now_ms: int, most_chars: int | None = None) -> JobState:
    """Describe what a deferred step waits for. The reason is cut to `most_chars`."""
    left_ms = (waiting.until_ms or now_ms) - now_ms
    soon = f"{-(-left_ms // 1_000)} s" if left_ms < 100_000 else duration(left_ms)
    when = f"next in {soon}" if left_ms > 0 else "due now"
    reason = waiting.reason if most_chars is None else cut(waiting.reason, most_chars)
    detail = f"{when}: {reason}" if reason else when
    if waiting.attempt:
        return JobState("retrying", f"attempt {waiting.attempt + 1}, {detail}", "warning")
    return JobState("waiting", detail, "warning")


def describe_failure(failure: Failure) -> str:
    """Describe a failure in one line."""
    return cut(f"{failure.kind}: {failure.detail}")


def cut(text: str, limit: int = SHOWN_CHARS) -> str:
    """Cut a text to at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
