"""Compactions of MemoryStore: the same promises as `store.compacting`, in plain objects."""

from __future__ import annotations

from hashlib import sha1

from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.testing.local_state import MemoryState
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepRef


class MemoryCompacting:
    """The part of `ports.Store` that shortens conversations."""

    state: MemoryState
    originals_bytes: int

    def begin_compaction(
        self, ref: StepRef, nonce: str, *, job_id: str = "", lock_ms: int = 15_000
    ) -> CompactionWork | CompactionBusy | NothingToCompact:
        """See `ports.Store.begin_compaction`."""
        session, now_ms = self.state.sessions.get(ref.session_id), self.state.now_ms
        if session is None or not session.log or (job_id and session.active != job_id):
            return NothingToCompact()
        holder, until_ms = session.lock
        if until_ms > now_ms and holder != nonce:
            return CompactionBusy(until_ms - now_ms)
        session.lock = (nonce, now_ms + lock_ms)
        return CompactionWork(
            ref=ref,
            nonce=nonce,
            epoch=session.epoch,
            active_job=session.active or "",
            memory=session.memory,
            anchor=session.anchor,
            messages=tuple(session.log),
            weights=tuple(map(weigh_message, session.log)),
            last_digest=_digest(session.log[-1]),
        )

    def commit_compaction(self, work: CompactionWork, compaction: Compaction) -> bool:
        """See `ports.Store.commit_compaction`."""
        session = self.state.sessions[work.ref.session_id]
        known = len(work.messages)
        if session.lock[0] != work.nonce or session.epoch != work.epoch:
            return False
        if len(session.log) < known or _digest(session.log[known - 1]) != work.last_digest:
            return False
        session.lock = ("", 0)
        if compaction.empty:
            return True
        for group, body in compaction.archived:
            session.keep("archive", str(group), body)
        for handle, body in compaction.results:
            session.keep("results", handle, body)
        session.bound_originals(self.originals_bytes)
        for at, message in compaction.replaced:
            session.log[at] = message
        gone = set(compaction.removed)
        session.log = [message for at, message in enumerate(session.log) if at not in gone]
        if compaction.results:
            session.flags.add("results")
        session.memory = compaction.memory or session.memory
        session.epoch += 1
        if job := self.state.jobs.get(work.active_job):
            job.update(usage=job.record.usage + compaction.usage)
        self.state.counters["compactions"] += 1
        return True

    def archived(self, session_id: str, group: int) -> bytes | None:
        """See `ports.Store.archived`."""
        return self.state.sessions[session_id].originals.get(("archive", str(group)))


def _digest(message: Message) -> str:
    return sha1(message.model_dump_json(exclude_none=True).encode(), usedforsecurity=False).hexdigest()
