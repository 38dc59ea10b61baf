"""TraceRecord: when, where, how and why one attempt ended, and what it cost. The messages themselves are in the session."""

from __future__ import annotations

from midwatch.schemas.contract import Record, Version
from midwatch.schemas.failure import Failure
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepKind


class TraceRecord(Record):
    """One attempt at one step. `started_ms` is the server's time of the claim. `ended_ms` is later by the time of the work."""

    v: Version = 1
    step: str
    kind: StepKind
    group: int | None = None
    """The group of the session's messages that this step added to."""
    attempt: int
    outcome: str
    """continue, complete, defer, park, dead_letter, or cancelled. Releases before 0.2 also wrote timed_out."""
    started_ms: int
    ended_ms: int
    worker: str
    reason: str = ""
    model: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    request_id: str | None = None
    estimated_tokens: int | None = None
    """Input tokens as estimated before the call; `usage` has what the provider counted."""
    tools: tuple[str, ...] = ()
    """For a model turn: the names of the tools it called, in order."""
    tool: str | None = None
    effect: str | None = None
    """What is known of a tool call's side effect: done, unknown, none (refused before it ran)."""
    idempotency_key: str | None = None
    asked: str = ""
    """For a model turn after refused calls: how the request differed from the usual (`only execute_sql, strict; claude-…`)."""
    prompt_cut: str | None = None
    """For a model turn whose prompt is cut, because it does not fit into a call: the handle of the whole prompt."""
    invalid: tuple[str, ...] = ()
    """For a model turn: what was wrong with each refused call (`tool: kind`), without the arguments."""
    failure: Failure | None = None
