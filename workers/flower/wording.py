"""How a job's standing is said. Durations and counts are said as the command line says them."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus, Waiting
from midwatch.workers.views.output import count, duration

__all__ = ["Standing", "cause", "count", "cut", "duration", "standing"]

SHOWN_CHARS = 200


@dataclass(frozen=True)
class Standing:
    """Where a job stands: a word, and what it waits for or why it ended."""

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


def standing(job: Job, now_ms: int) -> Standing:
    """What the job does now, or what it waits for and until when: `retrying, attempt 3, next in 12 s: rate_limited`."""
    word, tone = job.status.replace("_", " "), _TONES[job.status]
    if job.status is JobStatus.RUNNING and job.waiting:
        return _put_back(job.waiting, now_ms)
    if job.status is JobStatus.PARKED and job.waiting:
        return Standing(word, cut(job.waiting.reason), tone)
    return Standing(word, cause(job.failure) if job.failure else "", tone)


def _put_back(waiting: Waiting, now_ms: int) -> Standing:
    left_ms = (waiting.until_ms or now_ms) - now_ms
    soon = f"{-(-left_ms // 1_000)} s" if left_ms < 100_000 else duration(left_ms)
    when = f"next in {soon}" if left_ms > 0 else "due now"
    why = f": {cut(waiting.reason)}" if waiting.reason else ""
    if waiting.attempt:
        return Standing("retrying", f"attempt {waiting.attempt + 1}, {when}{why}", "warning")
    return Standing("waiting", f"{when}{why}", "warning")


def cause(failure: Failure) -> str:
    """A failure in one line."""
    return cut(f"{failure.kind}: {failure.detail}")


def cut(text: str, limit: int = SHOWN_CHARS) -> str:
    """At most `limit` characters of it."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
