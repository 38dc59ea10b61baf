"""Operations on sessions, for operators: read messages, originals, memory and size; compact a session; delete it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from midwatch.orchestration.errors import NotFound, Refused, UnreadableRecord
from midwatch.orchestration.keyspace import partition
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.reading import (
    Listing,
    explain,
    guard,
    read_field,
    read_listing,
    read_record,
    split_errors,
)
from midwatch.orchestration.store.conversation.log_cache import LogCache, decode
from midwatch.orchestration.store.due_and_owed import DueAndOwed
from midwatch.orchestration.store.earlier_keys import move_earlier_keys
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.records import is_id, job_of_reply
from midwatch.orchestration.store.script_calls import shorten
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepRef

FORGOTTEN = "forgotten with its session"

BY_OPERATOR = "0c"
"""The step of a compaction that an operator requests. A worker runs it even if the session is not full."""


@dataclass(frozen=True)
class SessionNumbers:
    """A session in numbers."""

    session_id: str
    active_job: str | None
    """The job that has the session: it is running, parked, or a dead letter."""
    messages: int
    """Number of live messages: those that the next call sends after the memory."""
    groups_live: int
    groups_archived: int
    results_kept: int
    """Number of tool results and cut messages that are stored whole."""
    compactions: int
    originals_bytes: int
    """Size of archived groups and whole results, compressed. MIDWATCH_SESSION_ORIGINALS_BYTES limits it."""
    redis_bytes: int
    """Size of all keys of the session, by MEMORY USAGE. The records of its jobs are not counted."""
    last_call_tokens: int | None
    """The provider's count of the input tokens of the session's last model call. None before the first call."""
    last_call_model: str | None


class Sessions(DueAndOwed):
    """The part of `Operations` that is about sessions."""

    def messages(self, session_id: str) -> Listing[Message]:
        """The live messages of a session, in the order in which they are sent. Empty if there is no such session."""
        self._check_session(session_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.lrange(self.keys.log(session_id), 0, -1)
        return _in_order(session_id, self._run(pipe, with_errors=True)[0])

    def memory(self, session_id: str) -> Memory | None:
        """The memory that replaces the archived groups. None before the first compaction."""
        self._check_session(session_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.get(self.keys.memory(session_id))
        what = f"the memory of session {session_id}"
        raw = read_field(self._run(pipe, with_errors=True)[0], what)
        return read_record(Memory, raw, what) if raw else None

    def originals(self, session_id: str) -> Listing[Message]:
        """All messages, archived ones first, each in its original length if its original is still stored."""
        from midwatch.orchestration.context.recall import (
            unpack_group,  # with jsonschema, which other operations don't need
        )

        self._check_session(session_id)
        pipe = self.client.pipeline(transaction=True)  # a compaction in between would show a group twice, or not at all
        pipe.hgetall(self.keys.archive(session_id))
        pipe.lrange(self.keys.log(session_id), 0, -1)
        archive, log = self._run(pipe, with_errors=True)
        archives, damaged = split_errors([(f"the archive of session {session_id}", archive)])
        bodies = [item for one in archives for item in one.items()]
        stored = [(f"group {group.decode(errors='replace')} of session {session_id}", body) for group, body in bodies]
        groups, live = read_listing(stored, unpack_group), _in_order(session_id, log)
        archived = [message for group in groups for message in group]
        # The prompt of the running job stays live while later groups leave.
        messages = sorted((*archived, *live), key=lambda message: message.group)
        whole = (self._restored(session_id, message) for message in messages)
        return Listing(whole, [*damaged, *groups.unreadable, *live.unreadable])

    def numbers(self, session_id: str) -> SessionNumbers:
        """The session in numbers. Raises NotFound."""
        self._check_session(session_id)
        keys = self._keys_of(session_id)
        pipe = self.client.pipeline(transaction=True)
        pipe.hmget(keys[0], "active", "compactions", "anchor", "originals")
        pipe.lrange(keys[1], 0, -1)
        pipe.hlen(keys[3])
        pipe.hlen(keys[5])
        for key in keys:
            pipe.memory_usage(key, samples=0)
        replies = self._run(pipe, with_errors=True)
        return guard(f"session {session_id}", lambda: self._numbers(session_id, replies))

    def _numbers(self, session_id: str, replies: list[Any]) -> SessionNumbers:
        _, damaged = split_errors((f"session {session_id}", reply) for reply in replies)
        if damaged:
            raise damaged[0]
        (active, compactions, anchor, originals), log, results, archived, *sizes = replies
        if not log:
            raise NotFound(f"no session {session_id!r}: it has no messages, or its retention is over")
        messages = _in_order(session_id, log)
        last = Anchor.read(anchor.decode()) if anchor else None
        return SessionNumbers(
            session_id=session_id,
            active_job=active.decode() if active else None,
            messages=len(messages),
            groups_live=len({message.group for message in messages}),
            groups_archived=archived,
            results_kept=results,
            compactions=int(compactions or 0),
            originals_bytes=int(originals or 0),
            redis_bytes=sum(size or 0 for size in sizes),
            last_call_tokens=last.tokens if last else None,
            last_call_model=last.model if last else None,
        )

    def compact(self, session_id: str) -> bool:
        """Let a worker compact the session, even if it is not full. Returns False if a worker is already compacting it.

        Raises:
            NotFound: there is no such session, or no record of its jobs is left that names its agent.

        """
        self._check_session(session_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.time()
        pipe.hget(self.keys.session(session_id), "compacting")
        (seconds, micros), lock = self._run(pipe)
        if lock and int(lock.partition(b"|")[0]) > seconds * 1_000 + micros // 1_000:
            return False
        newest = next(iter(self._jobs_of(session_id)), None)
        if newest is None:
            raise NotFound(f"no session {session_id!r} with a known job: it has no messages, or its retention is over")
        ref = StepRef(job_id=newest.job_id, session_id=session_id, step=BY_OPERATOR, priority=newest.priority)
        self.publish((ref,))
        return True

    def forget(self, session_id: str) -> bool:
        """Delete a session's texts: log, memory, archive, results, and the input, output and failure details of its jobs.

        The records of its jobs stay, without texts, until they expire. Returns False if there was nothing to delete.

        Raises:
            Refused: a job runs in the session, or a dead letter holds it.

        """
        self._check_session(session_id)
        jobs = [job.job_id for job in self._jobs_of(session_id)]
        reply = self._scripts.run(
            shorten.forget(self.keys, jobs, session_id=session_id, detail=FORGOTTEN), patience_ms=1_000
        )
        if isinstance(reply, shorten.SessionHeld):
            todo = "discard it" if reply.status is JobStatus.DEAD_LETTERED else "wait for its end, or cancel it"
            raise Refused(
                f"session {session_id!r} is held by job {reply.job!r} ({reply.status}); {todo}, then forget the session"
            )
        return reply.deleted > 0

    def _check_session(self, session_id: str) -> None:
        """Refuse text that is no id. Move what an earlier release stored for the session to the keys of this release."""
        if not is_id(session_id):
            raise NotFound(f"no session {session_id!r:.140}: this is no id of a session")
        move_earlier_keys(self.client, self.keys, session_id)

    def _restored(self, session_id: str, message: Message) -> Message:
        """Restore a message from its stored originals. A message that was cut twice is restored in two steps."""
        from midwatch.orchestration.context.restore import decompress_text, handles_of, restore

        for _ in range(8):
            found = {handle: self._kept(session_id, handle) for handle in handles_of(message)}
            whole = restore(
                message, {handle: decompress_text(body) for handle, body in found.items() if body is not None}
            )
            if whole == message:
                break
            message = whole
        return message

    def _kept(self, session_id: str, handle: str) -> bytes | None:
        pipe = self.client.pipeline(transaction=False)
        pipe.hget(self.keys.results(session_id), handle)
        body = self._run(pipe, with_errors=True)[0]
        return body if isinstance(body, bytes) else None

    def _jobs_of(self, session_id: str) -> Iterator[Job]:
        """The jobs of a session, the newest first. They are found by their pointers, among the jobs of the partition."""
        pipe = self.client.pipeline(transaction=False)
        pipe.zrange(self.keys.index(partition(session_id), "jobs"), 0, -1, desc=True)
        job_ids = [job_id.decode() for job_id in self._run(pipe)[0]]
        for start in range(0, len(job_ids), 500):
            some = job_ids[start : start + 500]
            pipe = self.client.pipeline(transaction=False)
            for job_id in some:
                pipe.hgetall(self.keys.job(session_id, job_id))
                pipe.get(self.keys.job_pointer(job_id))
            replies = self._run(pipe, with_errors=True)
            stored = [
                (f"job {job_id}", (job_id, flat))
                for job_id, flat, pointer in zip(some, replies[::2], replies[1::2], strict=True)
                if flat and pointer == session_id.encode()
            ]
            yield from read_listing(stored, job_of_reply)

    def _keys_of(self, session_id: str) -> list[str]:
        keys = self.keys
        parts = (keys.session, keys.log, keys.waiting, keys.results, keys.memory, keys.archive, keys.originals)
        return [key(session_id) for key in parts]

    def _run(self, pipe: Any, *, with_errors: bool = False) -> list[Any]:
        """Run a pipeline and return its replies. With `with_errors`, the error of a command is returned as its reply."""
        return run_pipeline(pipe, with_errors=with_errors)


def _in_order(session_id: str, entries: list[bytes] | Exception) -> Listing[Message]:
    """Decode the messages of a log, in the order in which they are sent. One unreadable message does not hide the others."""
    if isinstance(entries, Exception):
        return Listing((), [UnreadableRecord(f"the log of session {session_id}", explain(entries))])
    stored = [(f"entry {at} of session {session_id}", entry) for at, entry in enumerate(entries)]
    readable = read_listing(stored, lambda entry: (decode(entry), entry))
    cache = LogCache()
    held = cache.extend(session_id, cache.mark(session_id), 0, 0, [entry for _, entry in readable])
    return Listing(held.messages, readable.unreadable)
