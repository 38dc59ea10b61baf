"""The coordinator's real scripts on a real server, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import redis as redis_py

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.admission.functions import COORDINATOR
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.keyspace import Key, Keyspace
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.limits import DownstreamStatus, Limits
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, Priority, StepRef

SHOP = "shop"
"""The downstream of most tests: nothing is known of it but what a test says."""

CLOCK_KEY = Key("{prefix}:{gate}:clock", "STRING", "the time of a test, in us", "none: deleted with the test's prefix")

NEW_YEAR_2026_US = 1_767_225_600_000_000
PRELUDE = "local function clock()"
SERVER_TIME = "redis.call('TIME')"
TEST_TIME = "{{ 0, redis.call('GET', string.match({}, '^.-}}') .. ':clock') }}"
"""Beside the coordinator's own keys, in their slot: so that it is legal on a cluster, too."""

if TYPE_CHECKING:
    from midwatch.orchestration.store.scripts import Library as Shipped
else:
    Shipped = type(COORDINATOR)


@dataclass(frozen=True)
class OnTestTime(Shipped):
    """The coordinator's library, reading the time of a key beside its own instead of the server's; all else is as shipped."""

    @cache  # noqa: B019 (there is one)
    def source(self, name: str) -> str:
        """See `Library.source`."""
        text: str = super().source(name)
        assert SERVER_TIME in text, f"{name}.lua takes the time from somewhere else"
        if PRELUDE in text:
            text = text.replace(SERVER_TIME, TEST_TIME.format("STATE"), 1)
        return text.replace(SERVER_TIME, TEST_TIME.format("KEYS[1]"))


ON_TEST_TIME = OnTestTime(**{part.name: getattr(COORDINATOR, part.name) for part in fields(COORDINATOR)})


class TestTime:
    """Stands still until it is moved."""

    __test__ = False

    def __init__(self, client: redis_py.Redis, key: str) -> None:
        self._client = client
        self._key = key
        self.us = NEW_YEAR_2026_US
        self.move_to(self.us)

    def move_to(self, us: float) -> None:
        """Any moment, also an earlier one."""
        self.us = int(us)
        self._client.set(self._key, self.us)

    def pass_s(self, seconds: float) -> None:
        """Let time pass; below zero the server's clock jumps back."""
        self.move_to(self.us + seconds * 1_000_000)


def limits(**fields: Any) -> Limits:
    """Limits, by the short names too, and without head-room unless a test is about it: figures are easier to follow."""
    return Limits.model_validate({"headroom": 0.0, "burst_s": 1.0, **fields})


class GateBench:
    """A gate, its board, and calls made by hand."""

    def __init__(self, client: redis_py.Redis, prefix: str, at: Mapping[str, Limits], *, version: int = 1) -> None:
        self.client = client
        self.keys = Keyspace(prefix)
        self.time = TestTime(client, self.keys.gate_index().replace(":index", ":clock"))
        self.library = ON_TEST_TIME
        self.held_ms: list[int] = []
        """Waits that were short enough to be slept in the worker."""
        self.gate = self.another_gate(at, version)
        self.board = Board(client, self.keys, self.library)
        self._fences = 0

    def another_gate(self, at: Mapping[str, Limits], version: int = 1) -> RedisGate:
        """Of another worker process, with limits of its own."""
        return RedisGate(self.client, self.keys, at, version, sleep_ms=self.held_ms.append, library=self.library)

    def wipe(self, name: str = SHOP) -> None:
        """The server loses all that it knew of it."""
        *own, index = self.keys.downstream(name)
        self.client.delete(*own)
        self.client.zrem(index, name)

    def warm(self, name: str = SHOP) -> None:
        """A downstream that was called before: at its full rate, with full buckets."""
        self.gate.configure(name)
        self.board.resume(name)
        self.time.pass_s(600)

    def call(
        self,
        job: str = "job",
        tokens: int = 0,
        output: int = 0,
        *,
        to: str = SHOP,
        step: str = "1",
        root: str = "",
        attempt: int = 0,
        losses: int = 0,
        priority: Priority = Priority.NORMAL,
        tenant: str | None = None,
        lasts_s: float = 60.0,
        **fields: Any,
    ) -> Call:
        """A call of a step, under a claim of its own."""
        self._fences += 1
        fixed = {"agent": "clerk", "agent_version": "v1", "session_id": f"s-{job}", "max_steps": 50, "created_ms": 0}
        record = Job(
            job_id=job, root_id=root or job, status=JobStatus.RUNNING, priority=priority, tenant=tenant, **fixed
        )
        claim = Claim(
            ref=StepRef(job_id=job, session_id=record.session_id, step=step, priority=priority),
            fence=self._fences,
            nonce="n",
            now_ms=self.time.us // 1_000,
            job=record,
            attempt=attempt,
            losses=losses,
            interrupted=False,
            ending="",
        )
        return Call(claim, to, int(lasts_s * 1_000), input_tokens=tokens, output_tokens=output, **fields)

    def claimed_again(self, call: Call, *, failed: bool = False, lost: bool = False) -> Call:
        """The same step's next claim: it only waited, or its last one failed, or the worker of its last one vanished."""
        self._fences += 1
        claim = call.claim
        again = replace(
            claim, fence=self._fences, attempt=claim.attempt + failed, losses=claim.losses + lost,
            now_ms=self.time.us // 1_000,
        )  # fmt: skip
        return replace(call, claim=again)

    def ask(self, call: Call) -> str:
        """May it start? `admitted`, or the one word for why not: of a wait (`rate`, `paused`...) or of a failure's kind."""
        return said(self.gate.admit(call))

    def admitted(self, *calls: Call) -> None:
        """All of them are."""
        for call in calls:
            answer = self.gate.admit(call)
            assert answer is None, answer

    def ok(self, call: Call, tokens: int | None = None, output: int = 0, **usage: int) -> Settlement:
        """It was answered; tokens None: the answer says nothing of usage."""
        used = None if tokens is None else Usage(input_tokens=tokens, output_tokens=output, **usage)
        return self.gate.settle(call, Report(usage=used, latency_ms=100))

    def fails(
        self,
        call: Call,
        kind: FailureKind = FailureKind.OVERLOADED,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        sent: bool = True,
    ) -> Settlement:
        """It was not."""
        wait_ms = None if retry_after_s is None else int(retry_after_s * 1_000)
        failure = Failure(kind=kind, detail="as the test says", retry_after_ms=wait_ms)
        return self.gate.settle(call, Report(failure=failure, headers=headers or {}, sent=sent))

    def status(self, name: str = SHOP) -> DownstreamStatus:
        """How it stands."""
        return self.board.show(name)

    def lineage(self, root: str) -> dict[str, float]:
        """Figures of a lineage: calls n, retries u; input and output tokens reserved ri, ro and used ui, uo."""
        found: dict[bytes, bytes] = self.client.hgetall(self.keys.lineage(root))  # type: ignore[assignment]
        return {name.decode(): float(value) for name, value in found.items()}


def said(answer: Defer | Failure | None) -> str:
    """An answer of the gate in one word."""
    if answer is None:
        return "admitted"
    if isinstance(answer, Failure):
        return answer.kind.value
    assert not answer.counts_as_attempt, "a wait is no attempt"
    return answer.reason.rpartition(": ")[2].partition(",")[0]
