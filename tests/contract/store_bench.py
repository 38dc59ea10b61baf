"""One bench for the two Redis servers, the real one and the one in this process: a store, its operations, and what they
published.
"""

from __future__ import annotations

from typing import Any

import redis as redis_py

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Store
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import CallRow, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import ChildWait, TurnCommitted
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.in_process_redis import connect
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, Park, StepRef
from midwatch.schemas.trace import TraceRecord
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import Recorder, Stopped, expire_step, new_job

FAILURE = Failure(kind=FailureKind.PROVIDER_ERROR, detail="503 from the model")


class Bench:
    """A store under test, driven as workers and operators drive it."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self.client, self.keys, self.sent = client, Keyspace(prefix), Recorder()
        self.store: Store = RedisStore(client, self.keys, self.sent, lease_ms=HOUR_MS)
        self.operations = Operations(client, self.keys, self.sent)
        self._nonces = 0

    def expire(self, ref: StepRef) -> None:
        """End the lease of a step, or let its due time come."""
        expire_step(self.client, self.keys, ref)

    def lose(self, claim: Claim, kept_ms: int = 0) -> Claim:
        """Let the claim's worker vanish after it renewed the lease for `kept_ms`. Claim the step as another worker."""
        steps, step = self.keys.steps(claim.ref.session_id, claim.ref.job_id), claim.ref.step
        row = self.client.hget(steps, step).split(b"|")
        until_ms = claim.now_ms - 1
        row[1], row[2] = b"%d" % (until_ms - HOUR_MS - kept_ms), b"%d" % until_ms
        self.client.hset(steps, step, b"|".join(row))
        return self.claim(claim.ref)

    def outlive(self, job_id: str) -> None:
        """Let the deadline of a job pass."""
        self.client.hset(self.keys.job(self.operations.job(job_id).session_id, job_id), "deadline_ms", 1)

    def published(self) -> list[str]:
        """Return the steps published since the last call, as `job/step`."""
        refs = [f"{ref.job_id}/{ref.step}" for ref in self.sent.refs]
        self.sent.refs.clear()
        return refs

    def begin(self, job_id: str = "job-1", session_id: str = "s1", **fields: Any) -> Claim:
        """Enqueue a job and claim its first step."""
        job = new_job(job_id, session_id, **fields)
        assert self.store.enqueue(job)
        return self.claim(job.ref)

    def take(self, ref: StepRef) -> Claim | ClaimRefusal:
        """Try to claim a step as another worker. Return the claim, or why there is none."""
        self._nonces += 1
        return self.store.claim(ref, f"worker-{self._nonces}")

    def claim(self, ref: StepRef) -> Claim:
        """Claim a step as another worker."""
        claim = self.take(ref)
        assert isinstance(claim, Claim), claim
        return claim

    def wait_for_child(self, claim: Claim, worked_ms: int = 0) -> ChildWait:
        """Let a claimed call wait for its child, which has worked for `worked_ms`."""
        return self.store.wait_for_child(claim, HOUR_MS, child_id="job-child", worked_ms=worked_ms)

    def sweep(self, patience_ms: int = HOUR_MS) -> list[str]:
        """Return what a steward would publish now."""
        refs, _ = self.operations.sweep(patience_ms=patience_ms, stale_ms=HOUR_MS, idle=(True, True))
        return [f"{ref.job_id}/{ref.step}" for ref in refs]

    def to_calls(self, count: int = 2, *, inline: int = 0, **fields: Any) -> tuple[Claim, list[StepRef]]:
        """Run a job's first turn, in which the model makes `count` calls. The first `inline` of them are inline calls."""
        claim = self.begin(**fields)
        assert self.store.commit_turn(claim, turn_of(claim, count, inline=inline)) is TurnCommitted.COMMITTED
        return claim, [claim.ref.call(n) for n in range(count)]

    def to_dead_letter(self, job_id: str = "job-1", **fields: Any) -> Claim:
        """Run a job whose first turn becomes a dead letter."""
        claim = self.begin(job_id, **fields)
        assert self.store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
        return claim


def redis_bench(client: redis_py.Redis, prefix: str) -> Bench:
    """Make a bench on a real server."""
    return Bench(client, prefix)


def in_process_bench() -> Bench:
    """Make a bench on the Redis in this process that `run_inline` uses."""
    return Bench(connect(Stopped()), "inline")


def trace_of(claim: Claim, outcome: str = "continue", step: str = "") -> TraceRecord:
    """Make the record of one attempt."""
    ref = claim.ref
    return TraceRecord(
        step=step or ref.step,
        kind=ref.kind,
        attempt=claim.attempt,
        outcome=outcome,
        started_ms=1,
        ended_ms=2,
        worker="w",
    )


def turn_of(claim: Claim, count: int = 0, *, inline: int = 0, usage: Usage | None = None) -> TurnCommit:
    """Make a model turn with `count` calls. All calls have one provider id, because ids repeat in real sessions."""
    calls = [ToolCall(id="call_0", name=f"tool_{n}", raw_arguments=f'{{"n":{n}}}') for n in range(count)]
    said = AssistantMessage(
        group=claim.group, parts=(Text(text=f"turn {claim.ref.step}"), *calls), provider="scripted", model="m-1"
    )
    rows = tuple(CallRow(ordinal=n, call=call, started=n < inline) for n, call in enumerate(calls))
    return TurnCommit(
        messages=(said,), calls=rows, usage=usage or Usage(input_tokens=10, output_tokens=2), trace=trace_of(claim)
    )


def results_of(claim: Claim, *refs: StepRef, said: str = "result") -> ResultCommit:
    """Make results of the claimed call, or of the given inline calls."""
    refs = refs or (claim.ref,)
    messages = tuple(
        ToolMessage(
            group=claim.group,
            ordinal=ref.ordinal or 0,
            call_id="call_0",
            tool=f"tool_{ref.ordinal}",
            content=f"{said} {ref.step}",
        )
        for ref in refs
    )
    return ResultCommit(refs=refs, messages=messages, traces=tuple(trace_of(claim, step=ref.step) for ref in refs))


def ending_of(claim: Claim, status: JobStatus) -> Ending:
    """Make a job's ending, with everything that is committed with it."""
    if status is JobStatus.COMPLETED:
        said = AssistantMessage(group=claim.group, parts=(Text(text="done"),), provider="scripted", model="m-1")
        return Ending(status, "done", messages=(said,), usage=Usage(input_tokens=5, output_tokens=1), repair="ended")
    ref = claim.ref
    ids = {"job_id": ref.job_id, "session_id": ref.session_id, "agent": "clerk", "step": ref.step, "kind": ref.kind}
    letter = DeadLetterRecord(**ids, failure=FAILURE, dead_ms=1)
    return Ending(status, failure=FAILURE, repair="ended", letter=letter if status is JobStatus.DEAD_LETTERED else None)


def not_now(after_ms: int = HOUR_MS, *, counts: bool = False) -> Defer:
    """Make a deferral."""
    return Defer(after_ms=after_ms, reason="the provider is busy", counts_as_attempt=counts)


ASK = Park(question="May tool_0 run?", reason=ParkReason.TOOL_APPROVAL)
