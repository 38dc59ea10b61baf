"""RedisStore: the step machine's one truth. Each method is one script, one round trip."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis
import structlog

from midwatch.orchestration.errors import SessionBusy, StoreUnavailable
from midwatch.orchestration.keyspace import HELD_S, KEPT_S, ORIGINALS_BYTES, Keyspace
from midwatch.orchestration.ports import Dispatcher, Piggyback
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import LeaseState, TurnCommitted
from midwatch.orchestration.store.compaction import Compacting
from midwatch.orchestration.store.decisions import read_decision
from midwatch.orchestration.store.log_cache import Held, LogCache, encode
from midwatch.orchestration.store.reads import Shelf
from midwatch.orchestration.store.records import (
    fields,
    following,
    job_of,
    member,
    member_base,
    spec,
    step_keys,
    usage_args,
)
from midwatch.orchestration.store.scripts import UNAVAILABLE, Arg, Scripts, unavailable
from midwatch.schemas.job import NewJob, SessionPolicy
from midwatch.schemas.message import ToolCall
from midwatch.schemas.step import Defer, Park, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord

LEASE_MS = 3_000
"""How long a claim holds without renewal: a worker that dies delays its step by this at the most."""

MAX_LOSSES = 3
"""Deliveries of a step that may take their worker with them before it becomes a dead letter."""

COMMIT_PATIENCE_MS = 60_000
"""How long finished work waits for a server that restarts, before it is given up (and found again by its lease)."""

log = structlog.get_logger("midwatch.store")


class RedisStore(Shelf, Compacting):
    """See `ports.Store` for the promises. Thread-safe; one per process."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keyspace,
        dispatcher: Dispatcher,
        *,
        lease_ms: int = LEASE_MS,
        originals_bytes: int = ORIGINALS_BYTES,
    ) -> None:
        super().__init__(client, keys)
        self.scripts = Scripts(client)
        self.lease_ms = lease_ms
        self.originals_bytes = originals_bytes
        self._dispatcher = dispatcher
        self._cache = LogCache()

    def enqueue(self, job: NewJob, *, on_interrupt: Callable[[str], object] | None = None) -> bool:
        """See `ports.Store.enqueue`. `on_interrupt` is called with the job that an `interrupt` policy is to cancel."""
        home = self._home(job)
        job = job.model_copy(update={"session_id": home})
        ref = job.ref
        reply = self._call(
            "enqueue",
            ref,
            (
                job.job_id, home, job.priority, spec(job), json.dumps(job.input, ensure_ascii=False), job.max_steps,
                job.timeout_ms, job.on_busy, self._message(ref),
            ),
            patience_ms=1_000,
        )  # fmt: skip
        match reply[0]:
            case b"exists":
                return False
            case b"busy":
                self.client.delete(self.keys.job_pointer(job.job_id))  # a refused job binds its id to no session
                raise SessionBusy(
                    f"session {home!r} runs job {reply[1].decode()!r} and the agent's policy is on_busy='reject'; "
                    "wait for it, cancel it, or use on_busy='enqueue'"
                )
            case b"queued":
                if job.on_busy is SessionPolicy.INTERRUPT and on_interrupt:
                    on_interrupt(reply[1].decode())
            case _:
                self._published((ref,))
        return True

    def _home(self, job: NewJob) -> str:
        """The session a job id belongs to: the first enqueue decides, so one id never becomes two jobs."""
        pointer = self.keys.job_pointer(job.job_id)
        try:
            known = self.client.set(pointer, job.session_id, nx=True, get=True, ex=HELD_S + KEPT_S)
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        return known.decode() if isinstance(known, bytes) else job.session_id

    def claim(self, ref: StepRef, nonce: str) -> Claim | ClaimRefusal:
        """See `ports.Store.claim`."""
        mark = self._cache.mark(ref.session_id) if ref.kind is StepKind.MODEL else None
        reply = self._call(
            "claim",
            ref,
            (
                ref.job_id, ref.step, nonce, self.lease_ms, MAX_LOSSES, member(ref),
                mark.epoch if mark else -1, mark.length if mark else 0, mark.digest if mark else "",
            ),
            hand_off=False,
        )  # fmt: skip
        if reply[0] != b"claimed":
            return ClaimRefusal(reply[0].decode())
        _, now_ms, fence, attempt, losses, interrupted, ending, verdict, groups, call, flags, *rest = reply
        epoch, start, entries, flat, anchor, memory = rest
        held = self._cache.extend(ref.session_id, mark, int(epoch), start, entries, memory) if mark else Held()
        return Claim(
            ref=ref,
            fence=int(fence),
            nonce=nonce,
            now_ms=now_ms,
            job=job_of(ref.job_id, fields(flat)),
            attempt=attempt,
            losses=losses,
            interrupted=bool(interrupted),
            ending=ending.decode(),
            call=ToolCall.model_validate_json(call) if call else None,
            group=groups + (1 if mark else 0),
            decision=read_decision(verdict.decode()),
            log=held.messages,
            log_weight=held.weight,
            memory=held.memory,
            anchor=Anchor.read(anchor.decode()),
            flags=frozenset(flags.decode().split(",")) if flags else frozenset(),
        )

    def renew(self, claim: Claim) -> LeaseState:
        """See `ports.Store.renew`."""
        args = (claim.ref.step, claim.fence, self.lease_ms, member(claim.ref))
        reply = self._call("renew", claim.ref, args, hand_off=False)
        return (LeaseState.LOST, LeaseState.HELD, LeaseState.CANCELLED)[reply]

    def commit_turn(self, claim: Claim, commit: TurnCommit, piggyback: Piggyback | None = None) -> TurnCommitted:
        """See `ports.Store.commit_turn`."""
        ref = claim.ref
        following_turn = ref.model_turn(ref.turn + 1)
        args: list[Arg] = [
            ref.step, claim.fence, member(ref), claim.group, self.lease_ms, *usage_args(commit.usage),
            commit.tool_calls, commit.invalid_calls, commit.children, commit.trace.model_dump_json(exclude_none=True),
            len(commit.messages), *map(encode, commit.messages), len(commit.calls),
        ]  # fmt: skip
        owed = []
        for row in commit.calls:
            call_ref = ref.call(row.ordinal)
            args += [
                call_ref.step, int(row.started), row.call.model_dump_json(exclude_none=True), member(call_ref),
                "" if row.started else self._message(call_ref),
            ]  # fmt: skip
            if not row.started:
                owed.append(call_ref)
        if not commit.calls:
            owed.append(following_turn)
        args += [following_turn.step, member(following_turn), "" if commit.calls else self._message(following_turn)]
        args += [str(commit.anchor or ""), len(commit.drift), *commit.drift]
        reply = self._call("commit_turn", ref, args, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback)
        if reply in (1, 2):
            self._published(owed)
        done, cancelled = TurnCommitted.COMMITTED, TurnCommitted.CANCELLED
        return (TurnCommitted.LOST, done, cancelled, done, cancelled)[reply]

    def commit_results(self, claim: Claim, commit: ResultCommit, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.commit_results`."""
        following_turn = claim.ref.model_turn(claim.ref.turn + 1)
        args: list[Arg] = [claim.fence, len(commit.refs)]
        for ref, message, trace in zip(commit.refs, commit.messages, commit.traces, strict=True):
            args += [ref.step, member(ref), encode(message), trace.model_dump_json(exclude_none=True)]
        args += [following_turn.step, member(following_turn), self._message(following_turn)]
        applied, next_owed = self._call(
            "commit_results", claim.ref, args, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback
        )
        if next_owed:
            self._published((following_turn,))
        return bool(applied == len(commit.refs))

    def set_limits(self, claim: Claim, *, agent_version: str, max_steps: int, timeout_ms: int) -> None:
        """See `ports.Store.set_limits`."""
        args = (claim.ref.step, claim.fence, agent_version, max_steps, timeout_ms)
        self._call("set_limits", claim.ref, args, hand_off=False)

    def defer(self, claim: Claim, defer: Defer, trace: TraceRecord) -> bool:
        """See `ports.Store.defer`."""
        args = (
            claim.ref.step, claim.fence, member(claim.ref), defer.after_ms, int(defer.counts_as_attempt),
            trace.model_dump_json(exclude_none=True), json.dumps(defer.reason), int(defer.wakes),
        )  # fmt: skip
        return bool(self._call("defer", claim.ref, args, hand_off=False, patience_ms=COMMIT_PATIENCE_MS))

    def park(self, claim: Claim, park: Park, trace: TraceRecord) -> bool:
        """See `ports.Store.park`."""
        reason = f"{park.reason}: {park.question}"
        waiting = json.dumps({"step": claim.ref.step, "reason": reason, "kind": park.reason.value})
        args = (
            claim.ref.step, claim.fence, member(claim.ref), "parked", 0, trace.model_dump_json(exclude_none=True), waiting,
        )  # fmt: skip
        return bool(self._call("park", claim.ref, args, hand_off=False, patience_ms=COMMIT_PATIENCE_MS))

    def wait_for_child(self, claim: Claim, poll_ms: int) -> bool:
        """See `ports.Store.wait_for_child`."""
        args = (claim.ref.step, claim.fence, member(claim.ref), "waiting", poll_ms, "", "")
        return bool(self._call("park", claim.ref, args, hand_off=False, patience_ms=COMMIT_PATIENCE_MS))

    def finish(self, claim: Claim, ending: Ending, trace: TraceRecord, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.finish`."""
        ref = claim.ref
        args: list[Arg] = [
            ref.step, claim.fence, member_base(ref), ref.job_id, ref.session_id, ending.status,
            "" if ending.output is None else json.dumps(ending.output, ensure_ascii=False),
            ending.failure.model_dump_json(exclude_none=True) if ending.failure else "", *usage_args(ending.usage),
            trace.model_dump_json(exclude_none=True), ending.letter.model_dump_json(exclude_none=True) if ending.letter else "",
            ending.repair, claim.group, len(ending.messages), *map(encode, ending.messages), str(ending.anchor or ""),
            len(ending.drift), *ending.drift,
        ]  # fmt: skip
        reply = self._call("finish", ref, args, hand_off=False, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback)
        if not reply[0]:
            return False
        for next_step in (following(ref, reply[1]), claim.job.parent):
            if next_step:
                self._publish((next_step,))
        return True

    def _call(
        self, name: str, ref: StepRef, args: Sequence[Arg], *,
        hand_off: bool = True, patience_ms: int = 0, piggyback: Piggyback | None = None,
    ) -> Any:  # fmt: skip
        keys = step_keys(self.keys, ref)
        if hand_off and (queues := self._dispatcher.hand_off(ref.priority)):
            keys += queues
        return self.scripts.call(name, keys, args, patience_ms=patience_ms, piggyback=piggyback)

    def _message(self, ref: StepRef) -> bytes:
        return self._dispatcher.message(ref) if self._dispatcher.hand_off(ref.priority) else b""

    def _published(self, refs: Sequence[StepRef]) -> None:
        """Publish what was just owed, unless the script has handed it off already."""
        if refs and not self._dispatcher.hand_off(refs[0].priority):
            self._publish(refs)

    def _publish(self, refs: Sequence[StepRef]) -> None:
        try:
            self._dispatcher.publish(refs)
        except StoreUnavailable as error:  # recorded as owed: a steward publishes it
            log.warning("publish.failed", steps=len(refs), error=str(error))
