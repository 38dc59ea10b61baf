"""Compactions in Redis. They begin under the session's lock. One script commits them and archives the originals."""

from __future__ import annotations

from midwatch.orchestration.keyspace import KEPT_S
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.store.conversation.originals import Originals
from midwatch.orchestration.store.script_calls import shorten
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.schemas.step import StepRef


class Compactions(Originals):
    """The part of `ports.Store` that shortens conversations."""

    def begin_compaction(
        self, ref: StepRef, nonce: str, *, job_id: str = "", lock_ms: int = 15_000
    ) -> CompactionWork | CompactionBusy | NothingToCompact:
        """See `ports.Store.begin_compaction`."""
        begun = self.scripts.run(
            shorten.compact_begin(self.keys, ref.session_id, nonce=nonce, lock_ms=lock_ms, job=job_id)
        )
        if not isinstance(begun, shorten.CompactionBegun):
            return begun
        return CompactionWork(
            ref=ref,
            nonce=nonce,
            epoch=begun.epoch,
            active_job=begun.active_job,
            memory=begun.memory,
            anchor=begun.anchor,
            messages=begun.messages,
            weights=tuple(map(weigh_message, begun.messages)),
            last_digest=begun.last_digest,
        )

    def commit_compaction(self, work: CompactionWork, compaction: Compaction) -> bool:
        """See `ports.Store.commit_compaction`."""
        call = shorten.compact(
            self.keys, work.ref.session_id, work.ref.job_id, nonce=work.nonce, epoch=work.epoch,
            known_length=len(work.messages), known_digest=work.last_digest, kept_s=KEPT_S, new_memory=compaction.memory,
            most_bytes=self.originals_bytes, archived=compaction.archived, replaced=compaction.replaced,
            kept_results=compaction.results, removed=compaction.removed, usage=compaction.usage,
        )  # fmt: skip
        return self.scripts.run(call, patience_ms=10_000)
