"""A job's state in one line: what it does, what it waits for and until when, or why it ended."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus, Waiting
from midwatch.schemas.step import WaitOwner
from midwatch.workers.views.output import duration

SHOWN_CHARS = 200

HELD = "held"
"""The word for a job that waits for others."""

NO_WORKER_MS = 1_000
"""After this time without a claim, a step is shown as waiting for a free worker."""


@dataclass(frozen=True)
class JobState:
    """A word for the state, and the reason for it."""

    word: str
    detail: str
    tone: str
    """Colour of the word: quiet, active, good, warning or bad."""

    def __str__(self) -> str:
        joint = " " if self.word == HELD else ", "
        return f"{self.word}{joint}{self.detail}" if self.detail else self.word


_TONES = {
    JobStatus.QUEUED: "quiet",
    JobStatus.RUNNING: "active",
    JobStatus.PARKED: "warning",
    JobStatus.COMPLETED: "good",
    JobStatus.DEAD_LETTERED: "bad",
    JobStatus.CANCELLED: "quiet",
    JobStatus.TIMED_OUT: "bad",
}

_HOLDERS = {
    WaitOwner.DOWNSTREAM: "a downstream",
    WaitOwner.SESSION: "its session",
    WaitOwner.WORKERS: "a lack of workers",
}


def describe_state(job: Job, now_ms: int, why: str = "") -> JobState:
    """Describe a job's state: `held by anthropic:claude-sonnet-4-6 since 41m 00s, next try in 20 s`. Long reasons are cut.

    `why` is the reason that `client.jobs.explain` found for a job whose record has none.
    """
    word, tone = job.status.replace("_", " "), _TONES[job.status]
    if job.status is JobStatus.RUNNING and job.waiting:
        return describe_wait(job.waiting, now_ms, SHOWN_CHARS)
    if job.status is JobStatus.PARKED and job.waiting:
        return JobState(word, cut(describe_question(job.waiting, now_ms)), tone)
    if why:
        return JobState(word, cut(why), "warning")
    if lacks_worker(job, now_ms):
        return JobState(
            HELD, f"by a lack of workers since {duration(now_ms - (job.held_since_ms or now_ms))}", "warning"
        )
    return JobState(word, describe_failure(job.failure) if job.failure else "", tone)


def lacks_worker(job: Job, now_ms: int) -> bool:
    """Does the job's next step wait for a free worker?"""
    is_ready = job.status in (JobStatus.QUEUED, JobStatus.RUNNING) and job.waiting is None and not job.working
    return is_ready and job.held_since_ms is not None and now_ms - job.held_since_ms >= NO_WORKER_MS


def describe_wait(waiting: Waiting, now_ms: int, most_chars: int | None = None) -> JobState:
    """Describe who holds a step and until when. The reason is cut to `most_chars`."""
    reason = waiting.reason if most_chars is None else cut(waiting.reason, most_chars)
    since = "" if waiting.since_ms is None else f" since {duration(max(0, now_ms - waiting.since_ms))}"
    if waiting.owner is WaitOwner.CHILD:
        return JobState(HELD, f"by {reason}{since}", "warning")
    left_ms = (waiting.until_ms or now_ms) - now_ms
    soon = f"{-(-left_ms // 1_000)} s" if left_ms < 100_000 else duration(left_ms)
    if waiting.owner in _HOLDERS:
        holder = waiting.downstream or _HOLDERS[waiting.owner]
        when = f"next try in {soon}" if left_ms > 0 else "next try now"
        return JobState(HELD, f"by {holder}{since}, {when}" + (f": {reason}" if reason else ""), "warning")
    when = f"next in {soon}" if left_ms > 0 else "due now"
    detail = f"{when}: {reason}" if reason else when
    if waiting.attempt:
        return JobState("retrying", f"attempt {waiting.attempt + 1}, {detail}", "warning")
    return JobState("waiting", detail, "warning")


def describe_question(waiting: Waiting, now_ms: int) -> str:
    """Describe what a parked step asks, since when, and what happens when no one answers."""
    since = "" if waiting.since_ms is None else f" (since {duration(max(0, now_ms - waiting.since_ms))})"
    if waiting.until_ms is None or waiting.on_expiry is None:
        return f"{waiting.reason}{since}"
    left = duration(max(0, waiting.until_ms - now_ms))
    return f"{waiting.reason}{since}; expires in {left}, then: {waiting.on_expiry.replace('_', ' ')}"


def describe_failure(failure: Failure) -> str:
    """Describe a failure in one line."""
    return cut(f"{failure.kind}: {failure.detail}")


def cut(text: str, limit: int = SHOWN_CHARS) -> str:
    """Cut a text to at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
