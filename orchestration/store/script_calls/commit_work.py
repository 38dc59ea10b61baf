"""Script calls that commit work: a model turn, results of tool calls, the end of a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.commits import CallRow
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.store.conversation.log_cache import encode
from midwatch.orchestration.store.records import first_step, usage_fields
from midwatch.orchestration.store.records import member as member_of
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, as_json, in_order
from midwatch.orchestration.store.step_keys import StepKeys
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import Message
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


class CallOfTurn(NamedTuple):
    """One tool call of a model turn."""

    step: str
    started: int
    """1: it runs inline, under the turn's fence. 0: it is owed to the tools queue."""
    call: str
    """A ToolCall, as JSON."""
    member: str
    """The call's step in `due` and `owed`."""
    message: bytes
    """The message for the tools queue. Empty for an inline call, or without hand-off."""

    @classmethod
    def of(cls, ref: StepRef, row: CallRow, message: bytes) -> CallOfTurn:
        """Encode one row of a `TurnCommit`."""
        return cls(ref.step, int(row.started), as_json(row.call), member_of(ref), message)


class ResultOfCall(NamedTuple):
    """The result of one tool call."""

    step: str
    member: str
    """The call's step in `due` and `owed`."""
    message: bytes
    """An entry of the log."""
    trace: str
    """A TraceRecord, as JSON."""

    @classmethod
    def of(cls, ref: StepRef, message: Message, trace: TraceRecord) -> ResultOfCall:
        """Encode one result of a `ResultCommit`."""
        return cls(ref.step, member_of(ref), encode(message), as_json(trace))


class CommitTurnReply(NamedTuple):
    """The reply of `commit_turn`."""

    committed: TurnCommitted
    now: bool
    """True if this call wrote the turn, so that its owed steps must be published. False if an earlier call wrote it."""


class CommitResultsReply(NamedTuple):
    """The reply of `commit_results`."""

    applied: int
    """Number of results that were appended."""
    owes_next_turn: bool
    """The turn has all its results, so the next model turn must be published."""


class FinishReply(NamedTuple):
    """The reply of `finish`."""

    finished: bool
    """False if the claim was no longer valid: nothing changed."""
    next_step: StepRef | None
    """First step of the job that has the session now; it must be published."""


def commit_turn(
    keys: StepKeys, *, step: str, fence: int, member: str, group: int, lease_ms: int, tool_calls: int, invalid_calls: int,
    children: int, is_alone: bool, trace: TraceRecord, anchor: Anchor | None, next_step: str, next_member: str,
    next_message: bytes,
    usage: Usage, messages: Sequence[Message], calls: Sequence[CallOfTurn], drift: Sequence[str],
) -> ScriptCall[CommitTurnReply]:  # fmt: skip
    """Append a model turn. Mark its tool calls as owed, or the next turn if no call runs.

    Args:
        keys: of the step, with the queues when it hands off.
        step: the model step.
        fence: of the claim.
        member: the step in `due` and `owed`.
        group: of the messages.
        lease_ms: of calls that are started.
        tool_calls: number of calls to add to the job's count. `invalid_calls` and `children` are added too.
        invalid_calls: calls that were refused.
        children: calls that are child jobs.
        is_alone: the calls were not reserved in a lineage, because the job had neither parent nor children.
        trace: of this attempt.
        anchor: None leaves the session's anchor as it is.
        next_step: the next model turn.
        next_member: the next turn in `due` and `owed`.
        next_message: of the next turn, for the model queue; b'' when there are calls, or without hand-off.
        usage: added to the job's.
        messages: appended to the log.
        calls: those that will run.
        drift: the counters to increment by one.

    """
    args = in_order(
        (
            step, fence, member, group, lease_ms, tool_calls, invalid_calls, children, int(is_alone), as_json(trace),
            str(anchor or ""), next_step, next_member, next_message,
        ),
        usage_fields(usage), [encode(message) for message in messages], calls, drift,
    )  # fmt: skip

    def read(reply: Any) -> CommitTurnReply:
        word, *applied = reply
        return CommitTurnReply(TurnCommitted(word.decode()), applied == [1])

    return ScriptCall("commit_turn", keys.used(), args, read)


def bill(
    keys: StepKeys, *, paid_by: str, invalid_calls: int, usage: Usage, drift: Sequence[str]
) -> ScriptCall[bool]:  # fmt: skip
    """Add to a job what a worker has paid for, if no commit carries it. Returns False if it was added before.

    Args:
        keys: of the step.
        paid_by: who paid. Each pays once.
        invalid_calls: calls that were refused.
        usage: added to the job's.
        drift: the counters to increment by one.

    """
    args = in_order((paid_by, invalid_calls), usage_fields(usage), drift)
    return ScriptCall("bill", keys.used(), args, bool)


def commit_results(
    keys: StepKeys,
    *,
    fence: int,
    worked_ms: int,
    next_step: str,
    next_member: str,
    next_message: bytes,
    results: Sequence[ResultOfCall],
) -> ScriptCall[CommitResultsReply]:
    """Append results of tool calls. The last result of a turn makes the next model turn owed.

    Args:
        keys: of the step, with the queues when it hands off.
        fence: of the claim. A result whose row is not held under it is left out.
        worked_ms: of the child job whose answer this is; 0 without one.
        next_step: the next model turn.
        next_member: the next turn in `due` and `owed`.
        next_message: of the next turn, for the model queue; b'' without hand-off.
        results: one for each call.

    """
    args = in_order((fence, worked_ms, next_step, next_member, next_message), results)
    return ScriptCall("commit_results", keys.used(), args, lambda reply: CommitResultsReply(reply[0], bool(reply[1])))


def finish(
    keys: StepKeys, *, step: str, fence: int, member_base: str, job: str, session: str, status: JobStatus,
    output: str | None, failure: Failure | None, trace: TraceRecord, letter: DeadLetterRecord | None,
    redrive: str, repair_text: str,
    group: int, anchor: Anchor | None, usage: Usage, messages: Sequence[Message], drift: Sequence[str],
) -> ScriptCall[FinishReply]:  # fmt: skip
    """End a job. A dead letter holds its session. After any other ending, the session's next job starts.

    Args:
        keys: of the step.
        step: the step that ends the job.
        fence: of the claim.
        member_base: see `records.member_base`.
        job: its id.
        session: the session's id.
        status: dead_lettered becomes cancelled when the job was cancelled.
        output: of a completed job.
        failure: of a job that failed.
        trace: of this attempt.
        letter: present exactly when the status is dead_lettered.
        redrive: the letter's entry in the index of letters to redrive; '' if it has none.
        repair_text: the answer to open calls.
        group: of the messages.
        anchor: None leaves the session's anchor as it is.
        usage: added to the job's.
        messages: appended to the log.
        drift: the counters to increment by one.

    """
    args = in_order(
        (
            step, fence, member_base, job, session, status,
            "" if output is None else json.dumps(output, ensure_ascii=False), as_json(failure), as_json(trace),
            as_json(letter), redrive, repair_text, group, str(anchor or ""),
        ),
        usage_fields(usage), [encode(message) for message in messages], drift,
    )  # fmt: skip

    def read(reply: Any) -> FinishReply:
        finished, *next_job = reply
        return FinishReply(bool(finished), first_step(session, next_job[0]) if next_job else None)

    return ScriptCall("finish", keys.used(), args, read)
