"""A dead letter: a step that will not be tried again, kept with what is needed to show and replay it."""

from __future__ import annotations

from midwatch.schemas.contract import Id, Record, Version
from midwatch.schemas.failure import Failure
from midwatch.schemas.step import StepKind


class Try(Record):
    """One attempt at the step: when, where, why it failed."""

    at_ms: int
    worker: str
    attempt: int
    failure: Failure | None = None


class DeadLetterRecord(Record):
    """The row of `dlq list`. The conversation stays in the session, the steps in the job: a replay resumes in place."""

    v: Version = 1
    job_id: Id
    session_id: Id
    agent: str
    step: str
    kind: StepKind
    tool: str | None = None
    failure: Failure
    dead_ms: int
    tries: tuple[Try, ...] = ()


class PoisonRecord(Record):
    """A message that could not even become a step: undecodable, unknown, too deep. Kept raw, bounded, for a person to look at."""

    v: Version = 1
    poison_id: Id
    queue: str
    reason: str
    body: str
    """The first 4,000 bytes as they came, undecodable bytes escaped."""
    size_bytes: int
    seen_ms: int
    worker: str
