"""Compactions in Redis: begun under the session's lock, committed in one script, originals archived."""

from __future__ import annotations

from hashlib import sha1
from typing import Any

from midwatch.orchestration.keyspace import KEPT_S, partition
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.store.log_cache import decode, encode
from midwatch.orchestration.store.originals import Originals
from midwatch.orchestration.store.records import usage_args
from midwatch.orchestration.store.scripts import Arg
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.schemas.memory import Memory
from midwatch.schemas.step import StepRef


class Compacting(Originals):
    """The part of `ports.Store` that shortens conversations."""

    def begin_compaction(
        self, ref: StepRef, nonce: str, *, job_id: str = "", lock_ms: int = 15_000
    ) -> CompactionWork | CompactionBusy | NothingToCompact:
        """See `ports.Store.begin_compaction`."""
        session_id = ref.session_id
        keys = [self.keys.session(session_id), self.keys.log(session_id), self.keys.memory(session_id)]
        reply = self.scripts.call("compact_begin", keys, (nonce, lock_ms, job_id))
        match reply[0]:
            case b"busy":
                return CompactionBusy(int(reply[1]))
            case b"begun":
                return self._work(ref, nonce, *reply[2:])
            case _:
                return NothingToCompact()

    def _work(
        self, ref: StepRef, nonce: str, epoch: bytes, active: bytes, memory: bytes, anchor: bytes, log: Any
    ) -> CompactionWork:
        messages = tuple(decode(entry)[0] for entry in log)
        return CompactionWork(
            ref=ref,
            nonce=nonce,
            epoch=int(epoch),
            active_job=active.decode(),
            memory=Memory.model_validate_json(memory) if memory else None,
            anchor=Anchor.read(anchor.decode()),
            messages=messages,
            weights=tuple(map(weigh_message, messages)),
            last_digest=sha1(log[-1], usedforsecurity=False).hexdigest(),
        )

    def commit_compaction(self, work: CompactionWork, compaction: Compaction) -> bool:
        """See `ports.Store.commit_compaction`."""
        session_id = work.ref.session_id
        session = self.keys.session(session_id)
        keys = [
            session, self.keys.log(session_id), self.keys.memory(session_id), self.keys.archive(session_id),
            self.keys.results(session_id), self.keys.index(partition(session_id), "counters"),
            self.keys.job(session_id, work.active_job) if work.active_job else session, self.keys.originals(session_id),
        ]  # fmt: skip
        memory = compaction.memory.model_dump_json(exclude_defaults=True) if compaction.memory else ""
        args: list[Arg] = [
            work.nonce, work.epoch, len(work.messages), work.last_digest, KEPT_S, memory, *usage_args(compaction.usage)
        ]  # fmt: skip
        args += [len(compaction.archived), *(part for group, body in compaction.archived for part in (group, body))]
        args += [len(compaction.replaced), *(part for at, said in compaction.replaced for part in (at, encode(said)))]
        args += [len(compaction.results), *(part for handle, body in compaction.results for part in (handle, body))]
        args += [len(compaction.removed), *compaction.removed, self.originals_bytes]
        return bool(self.scripts.call("compact", keys, args, patience_ms=10_000))
