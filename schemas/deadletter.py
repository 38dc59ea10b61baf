"""A dead letter: a step that will not be tried again, kept with what is needed to show and replay it."""

from __future__ import annotations

from midwatch.schemas.contract import Id, Record, Version
from midwatch.schemas.failure import Failure
from midwatch.schemas.loss import Loss
from midwatch.schemas.step import StepKind


class Try(Record):
    """One attempt at the step: when, where and why it failed."""

    at_ms: int
    worker: str
    attempt: int
    failure: Failure | None = None
    loss: Loss | None = None
    """What is known of the process that was lost, if one was. `worker` is its name."""


class DeadLetterRecord(Record):
    """A dead letter as `dlq list` shows it. Session and job are kept, so a replay resumes where the job stopped."""

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
    model: str | None = None
    """The model of the agent, as `provider:model`."""
    downstream: str | None = None
    """The downstream whose call failed, if the failure is one of a call."""
    agent_version: str = ""
    redrive: bool = False
    """May it be replayed without a human?"""
    generation: int = 0
    """How often the job was replayed without a human before this letter."""


class PoisonRecord(Record):
    """A message that is not a valid step: it can't be decoded, is unknown, or is nested too deeply. A person can inspect it."""

    v: Version = 1
    poison_id: Id
    queue: str
    reason: str
    body: str
    """The first 4,000 bytes as received. Bytes that can't be decoded are escaped."""
    size_bytes: int
    seen_ms: int
    worker: str
