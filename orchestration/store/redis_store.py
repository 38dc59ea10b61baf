"""RedisStore: the state of all jobs and sessions. Each method is one script and one round trip."""

from __future__ import annotations

from typing import Any

import redis

from midwatch.orchestration.keyspace import ORIGINALS_BYTES, Keyspace
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.ports import Dispatcher, Piggyback
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import Bill, CallRow, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import ChildWait, LeaseState, TurnCommitted
from midwatch.orchestration.store.conversation.compaction import Compactions
from midwatch.orchestration.store.conversation.log_cache import Held, HeldMark, LogCache
from midwatch.orchestration.store.damage.unreadable import SettingAside
from midwatch.orchestration.store.decisions import decision_at_expiry
from midwatch.orchestration.store.earlier_keys import move_earlier_keys
from midwatch.orchestration.store.new_jobs import NewJobs
from midwatch.orchestration.store.reads import Reads
from midwatch.orchestration.store.records import member, member_base, waits_for_child, waits_for_human
from midwatch.orchestration.store.script_calls import begin_work, commit_work, put_aside
from midwatch.orchestration.store.script_calls.commit_work import CallOfTurn, ResultOfCall
from midwatch.orchestration.store.scripts import Scripts
from midwatch.orchestration.store.step_keys import StepKeys, step_keys
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.loss import Loss
from midwatch.schemas.step import Defer, Park, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord

LEASE_MS = 3_000
"""How long a claim is valid without renewal. If a worker dies, its step is delayed by this time at most."""

COMMIT_PATIENCE_MS = 60_000
"""How long a commit waits for a server that restarts. Then the work is dropped, and repeated when its lease has ended."""

log = get_logger("midwatch.store")


class RedisStore(Reads, NewJobs, Compactions, SettingAside):
    """Implements `ports.Store`. Thread-safe; one per process."""

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

    def claim(self, ref: StepRef, nonce: str) -> Claim | ClaimRefusal:
        """See `ports.Store.claim`."""
        move_earlier_keys(self.client, self.keys, ref.session_id, ref.job_id)
        mark = self._cache.mark(ref.session_id) if ref.kind is StepKind.MODEL else None
        known = mark or HeldMark()
        call = begin_work.claim(
            self._keys(ref), job=ref.job_id, step=ref.step, nonce=nonce, lease_ms=self.lease_ms, max_losses=begin_work.MAX_LOSSES,
            max_alone=begin_work.MAX_LOSSES_ALONE, member=member(ref), known_epoch=known.epoch, known_length=known.length,
            known_digest=known.digest,
        )  # fmt: skip
        reply = self.scripts.run(call)
        if reply is ClaimRefusal.ABSENT:
            return self._explain_absence(ref)
        if isinstance(reply, ClaimRefusal):
            return reply
        if reply.job.priority is not ref.priority:  # the message is older than the job's last replay
            ref = ref.model_copy(update={"priority": reply.job.priority})
        held = Held()
        if mark:
            held = self._cache.extend(ref.session_id, mark, reply.epoch, reply.first_entry, reply.entries, reply.memory)
        return reply.as_claim(ref, nonce, held)

    def _explain_absence(self, ref: StepRef) -> ClaimRefusal:
        """Say why there is no record of the job. It may be in the partition of another session."""
        known: Any = self.client.get(self.keys.job_pointer(ref.job_id))
        is_elsewhere = known is not None and known.decode() != ref.session_id
        return ClaimRefusal.WRONG_SESSION if is_elsewhere else ClaimRefusal.GONE

    def renew(self, claim: Claim) -> LeaseState:
        """See `ports.Store.renew`."""
        return self.scripts.run(begin_work.renew(
            self._keys(claim.ref), step=claim.ref.step, fence=claim.fence, lease_ms=self.lease_ms, member=member(claim.ref),
        ))  # fmt: skip

    def set_limits(
        self, claim: Claim, *, agent_version: str, max_steps: int, timeout_ms: int, bounds: Bounds,
        max_wait_ms: int | None = None, max_total_ms: int | None = None,
    ) -> None:  # fmt: skip
        """See `ports.Store.set_limits`."""
        self.scripts.run(begin_work.set_limits(
            self._keys(claim.ref), step=claim.ref.step, fence=claim.fence, agent_version=agent_version,
            max_steps=max_steps, bounds=bounds, timeout_ms=timeout_ms, max_wait_ms=max_wait_ms, max_total_ms=max_total_ms,
        ))  # fmt: skip

    def commit_turn(self, claim: Claim, commit: TurnCommit, piggyback: Piggyback | None = None) -> TurnCommitted:
        """See `ports.Store.commit_turn`."""
        ref, next_turn = claim.ref, claim.ref.model_turn(claim.ref.turn + 1)
        call = commit_work.commit_turn(
            self._keys_with_queues(ref), step=ref.step, fence=claim.fence, member=member(ref), group=claim.group,
            lease_ms=self.lease_ms, tool_calls=commit.tool_calls, invalid_calls=commit.invalid_calls, children=commit.children,
            is_alone=commit.is_alone, trace=commit.trace, anchor=commit.anchor, next_step=next_turn.step,
            next_member=member(next_turn), next_message=b"" if commit.calls else self._message(next_turn),
            usage=commit.usage, messages=commit.messages,
            calls=[self._call_of_turn(ref.call(row.ordinal), row) for row in commit.calls], drift=commit.drift,
        )  # fmt: skip
        reply = self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback)
        if reply.now:
            owed = [ref.call(row.ordinal) for row in commit.calls if not row.started]
            self._publish_unless_handed_off(owed if commit.calls else [next_turn])
        return reply.committed

    def _call_of_turn(self, ref: StepRef, row: CallRow) -> CallOfTurn:
        return CallOfTurn.of(ref, row, b"" if row.started else self._message(ref))

    def commit_results(self, claim: Claim, commit: ResultCommit, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.commit_results`."""
        next_turn = claim.ref.model_turn(claim.ref.turn + 1)
        rows = [
            ResultOfCall.of(ref, message, trace)
            for ref, message, trace in zip(commit.refs, commit.messages, commit.traces, strict=True)
        ]
        call = commit_work.commit_results(
            self._keys_with_queues(claim.ref), fence=claim.fence, worked_ms=commit.child_worked_ms, next_step=next_turn.step,
            next_member=member(next_turn), next_message=self._message(next_turn), results=rows,
        )  # fmt: skip
        reply = self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback)
        if reply.owes_next_turn:
            self._publish_unless_handed_off((next_turn,))
        return reply.applied == len(rows)

    def defer(self, claim: Claim, defer: Defer, trace: TraceRecord) -> bool:
        """See `ports.Store.defer`."""
        ref = claim.ref
        call = put_aside.defer(
            self._keys(ref), step=ref.step, fence=claim.fence, member=member(ref), after_ms=defer.after_ms,
            counts=defer.counts_as_attempt, wakes=defer.wakes, trace=trace, reason=defer.reason,
            owner=defer.owner, downstream=defer.downstream,
        )  # fmt: skip
        return self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS)

    def record_loss(self, claim: Claim, loss: Loss, after_ms: int) -> bool:
        """See `ports.Store.record_loss`."""
        ref = claim.ref
        call = put_aside.record_loss(
            self._keys(ref), step=ref.step, fence=claim.fence, member=member(ref), after_ms=after_ms, loss=loss
        )
        return self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS)

    def park(self, claim: Claim, park: Park, trace: TraceRecord) -> bool:
        """See `ports.Store.park`."""
        ref = claim.ref
        call = put_aside.park(
            self._keys(ref), step=ref.step, fence=claim.fence, member=member(ref), trace=trace,
            waiting=waits_for_human(ref, park), expires_ms=park.expires_ms, expiry=decision_at_expiry(park),
        )  # fmt: skip
        return self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS)

    def wait_for_child(self, claim: Claim, poll_ms: int, *, child_id: str, worked_ms: int) -> ChildWait:
        """See `ports.Store.wait_for_child`."""
        ref = claim.ref
        call = put_aside.wait_for_child(
            self._keys(ref), step=ref.step, fence=claim.fence, member=member(ref), poll_ms=poll_ms, worked_ms=worked_ms,
            waiting=waits_for_child(ref, child_id),
        )  # fmt: skip
        return self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS)

    def finish(self, claim: Claim, ending: Ending, trace: TraceRecord, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.finish`."""
        ref = claim.ref
        call = commit_work.finish(
            self._keys(ref), step=ref.step, fence=claim.fence, member_base=member_base(ref), job=ref.job_id,
            session=ref.session_id, status=ending.status, output=ending.output, failure=ending.failure, trace=trace,
            letter=ending.letter, redrive=ending.redrive, repair_text=ending.repair, group=claim.group, anchor=ending.anchor,
            usage=ending.usage, messages=ending.messages, drift=ending.drift,
        )  # fmt: skip
        reply = self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS, piggyback=piggyback)
        if reply.finished:
            if reply.next_step is None:
                self._cache.forget(ref.session_id)
            for next_step in (reply.next_step, claim.job.parent):
                if next_step:
                    self._publish((next_step,))
        return reply.finished

    def bill(self, ref: StepRef, bill: Bill) -> bool:
        """See `ports.Store.bill`."""
        call = commit_work.bill(
            self._keys(ref), paid_by=bill.paid_by, invalid_calls=bill.invalid_calls, usage=bill.usage, drift=bill.drift
        )
        return self.scripts.run(call, patience_ms=COMMIT_PATIENCE_MS)

    def _keys(self, ref: StepRef) -> StepKeys:
        return step_keys(self.keys, ref)

    def _keys_with_queues(self, ref: StepRef) -> StepKeys:
        """The keys for scripts that hand off the next step."""
        return step_keys(self.keys, ref, self._dispatcher.hand_off(ref.priority))
