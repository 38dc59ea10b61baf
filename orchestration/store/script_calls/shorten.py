"""Script calls that shorten a session: begin and commit a compaction, store a whole result, delete the session."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, NamedTuple

from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.store.conversation.log_cache import decode, encode
from midwatch.orchestration.store.records import usage_fields
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, in_order
from midwatch.schemas.job import JobStatus
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.model import Usage


class CompactionBegun(NamedTuple):
    """The reply of `compact_begin` when the lock was taken. See `protocol.compactions.CompactionWork`."""

    epoch: int
    active_job: str
    """Empty if no job is active in the session."""
    memory: Memory | None
    anchor: Anchor | None
    messages: tuple[Message, ...]
    last_digest: str
    """SHA-1 of the last entry, in hex."""


class SessionHeld(NamedTuple):
    """The reply of `forget` when a job has the session: nothing changed."""

    job: str
    status: JobStatus


class Forgotten(NamedTuple):
    """The reply of `forget` when the session was deleted."""

    deleted: int
    """Number of deleted keys, and of deleted fields in the jobs' records."""


def compact_begin(
    keys: Keyspace, session_id: str, *, nonce: str, lock_ms: int, job: str
) -> ScriptCall[CompactionBegun | CompactionBusy | NothingToCompact]:
    """Take the session's lock, and read the conversation to compact.

    Args:
        keys: of the fleet.
        session_id: the session to compact.
        nonce: of this compaction; the same nonce again prolongs the lock.
        lock_ms: the lock ends after this time.
        job: it must have the session; '' for an operator, who may compact any session.

    """

    def read(reply: Any) -> CompactionBegun | CompactionBusy | NothingToCompact:
        match reply:
            case [b"busy", left_ms]:
                return CompactionBusy(left_ms)
            case [b"begun", epoch, active_job, memory, anchor, entries]:
                return CompactionBegun(
                    epoch=int(epoch),
                    active_job=active_job.decode(),
                    memory=Memory.model_validate_json(memory) if memory else None,
                    anchor=Anchor.read(anchor.decode()),
                    messages=tuple(decode(entry)[0] for entry in entries),
                    last_digest=sha1(entries[-1], usedforsecurity=False).hexdigest(),
                )
            case _:
                return NothingToCompact()

    names = [keys.session(session_id), keys.log(session_id), keys.memory(session_id)]
    return ScriptCall("compact_begin", names, in_order((nonce, lock_ms, job)), read)


def compact(
    keys: Keyspace, session_id: str, paying_job: str, *, nonce: str, epoch: int, known_length: int, known_digest: str,
    kept_s: int, new_memory: Memory | None, most_bytes: int, archived: Sequence[tuple[int, bytes]],
    replaced: Sequence[tuple[int, Message]], kept_results: Sequence[tuple[str, bytes]], removed: Sequence[int], usage: Usage,
) -> ScriptCall[bool]:  # fmt: skip
    """Commit a compaction. Returns False if its lock was lost, or if the log was replaced.

    Args:
        keys: of the fleet.
        session_id: the session that is compacted.
        paying_job: the job that requested the compaction. It is charged for the summary.
        nonce: of the compaction.
        epoch: of the log that the compaction began with.
        known_length: of that log, in entries.
        known_digest: SHA-1 of the last entry of that log, in hex.
        kept_s: how long originals are kept, at least.
        new_memory: None leaves the memory as it is.
        most_bytes: of the session's originals.
        archived: group and its original messages, packed.
        replaced: index from 0 in the log, and the message that takes its place.
        kept_results: handle and body of what was elided or cut.
        removed: indexes from 0 of messages that leave the log.
        usage: of the summary.

    """
    session = keys.session(session_id)
    names = [
        session, keys.log(session_id), keys.memory(session_id), keys.archive(session_id), keys.results(session_id),
        keys.originals(session_id), keys.index(partition(session_id), "counters"),
        keys.job(session_id, paying_job) if paying_job else session,
    ]  # fmt: skip
    args = in_order(
        (
            nonce, epoch, known_length, known_digest, kept_s,
            new_memory.model_dump_json(exclude_defaults=True) if new_memory else "", most_bytes,
        ),
        archived, [(index, encode(message)) for index, message in replaced], kept_results, removed, usage_fields(usage),
    )  # fmt: skip
    return ScriptCall("compact", names, args, bool)


def keep_result(
    keys: Keyspace, session_id: str, *, kept_s: int, most_bytes: int, handle: str, body: bytes
) -> ScriptCall[bool]:
    """Store a whole tool result for its session. Returns False if there is no such session.

    Args:
        keys: of the fleet.
        session_id: the session of the result.
        kept_s: how long, at least.
        most_bytes: of the session's originals.
        handle: what `get_result` finds it by.
        body: the result, compressed.

    """
    names = [keys.session(session_id), keys.results(session_id), keys.archive(session_id), keys.originals(session_id)]
    return ScriptCall("keep_result", names, in_order((kept_s, most_bytes, handle, body)), bool)


def forget(
    keys: Keyspace, known_jobs: Sequence[str], *, session_id: str, detail: str
) -> ScriptCall[SessionHeld | Forgotten]:
    """Delete a session and the texts of its jobs, unless a job has it.

    Args:
        keys: of the fleet.
        known_jobs: ids of the session's jobs.
        session_id: the session to forget.
        detail: replaces the detail of a job's failure.

    """

    def read(reply: Any) -> SessionHeld | Forgotten:
        if reply[0] == b"held":
            return SessionHeld(reply[1].decode(), JobStatus(reply[2].decode()))
        return Forgotten(reply[1])

    parts = (keys.session, keys.log, keys.waiting, keys.results, keys.memory, keys.archive, keys.originals)
    names = [key(session_id) for key in parts]
    for job_id in known_jobs:
        names += [key(session_id, job_id) for key in (keys.job, keys.steps, keys.trace)]
    return ScriptCall("forget", names, in_order((session_id, detail)), read)
