"""The coordinator's real functions on a real server, with a clock that only the test moves."""

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
"""The downstream of most tests. It has no limits but those of the test."""

CLOCK_KEY = Key("{prefix}:{gate}:clock", "STRING", "the time of a test, in us", "none: deleted with the test's prefix")

NEW_YEAR_2026_US = 1_767_225_600_000_000
PRELUDE = "local function clock()"
SERVER_TIME = "redis.call('TIME')"
TEST_TIME = "{{ 0, redis.call('GET', string.match({}, '^.-}}') .. ':clock') }}"
"""The clock's key is in the slot of the coordinator's keys, so it is legal on a cluster too."""

if TYPE_CHECKING:
    from midwatch.orchestration.store.script_library import Library as Shipped
else:
    Shipped = type(COORDINATOR)


@dataclass(frozen=True)
class OnTestTime(Shipped):
    """The coordinator's library as shipped, except that it reads the time from a key instead of the server."""

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
    """A clock that stops until a test moves it."""

    __test__ = False

    def __init__(self, client: redis_py.Redis, key: str) -> None:
        self._client = client
        self._key = key
        self.us = NEW_YEAR_2026_US
        self.move_to(self.us)

    def move_to(self, us: float) -> None:
        """Set it to any moment, also an earlier one."""
        self.us = int(us)
        self._client.set(self._key, self.us)

    def pass_s(self, seconds: float) -> None:
        """Let time pass; with a negative number the server's clock jumps back."""
        self.move_to(self.us + seconds * 1_000_000)


def limits(**fields: Any) -> Limits:
    """Limits for a test. Without head-room, unless the test is about it, because figures are easier to follow."""
    return Limits.model_validate({"headroom": 0.0, "burst_s": 1.0, **fields})


class GateBench:
    """A gate, its board, and calls that the test makes."""

    def __init__(self, client: redis_py.Redis, prefix: str, at: Mapping[str, Limits], *, version: int = 1) -> None:
        self.client = client
        self.keys = Keyspace(prefix)
        self.time = TestTime(client, self.keys.gate_index().replace(":index", ":clock"))
        self.library = ON_TEST_TIME
        self.held_ms: list[int] = []
        """Waits that were short enough for the worker to sleep."""
        self.gate = self.another_gate(at, version)
        self.board = Board(client, self.keys, self.library)
        self._fences = 0

    def another_gate(self, at: Mapping[str, Limits], version: int = 1) -> RedisGate:
        """The gate of another worker process, with its own limits."""
        return RedisGate(self.client, self.keys, at, version, sleep_ms=self.held_ms.append, library=self.library)

    def wipe(self, name: str = SHOP) -> None:
        """Delete everything that the server knows of this downstream."""
        *own, index = self.keys.downstream(name)
        self.client.delete(*own)
        self.client.zrem(index, name)

    def warm(self, name: str = SHOP) -> None:
        """Bring a downstream to its full rate, with full buckets, as if it had been called before."""
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
        """A call of a step, under a new claim."""
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

    def claim_again(self, call: Call, *, failed: bool = False, lost: bool = False) -> Call:
        """The step's next claim. The step had waited, its last call had failed, or its last worker had been lost."""
        self._fences += 1
        claim = call.claim
        again = replace(
            claim, fence=self._fences, attempt=claim.attempt + failed, losses=claim.losses + lost,
            now_ms=self.time.us // 1_000,
        )  # fmt: skip
        return replace(call, claim=again)

    def ask(self, call: Call) -> str:
        """Ask to start. Returns `admitted`, or in one word why not: the reason of a wait, or the kind of a failure."""
        return said(self.gate.admit(call))

    def admit_all(self, *calls: Call) -> None:
        """Ask to start each call, and assert that each is admitted."""
        for call in calls:
            answer = self.gate.admit(call)
            assert answer is None, answer

    def ok(self, call: Call, tokens: int | None = None, output: int = 0, **usage: int) -> Settlement:
        """Settle the call as answered. With `tokens=None` the answer contains no usage."""
        used = None if tokens is None else Usage(input_tokens=tokens, output_tokens=output, **usage)
        return self.gate.settle(call, Report(usage=used, latency_ms=100))

    def fail(
        self,
        call: Call,
        kind: FailureKind = FailureKind.OVERLOADED,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        sent: bool = True,
    ) -> Settlement:
        """Settle the call as failed."""
        wait_ms = None if retry_after_s is None else int(retry_after_s * 1_000)
        failure = Failure(kind=kind, detail="as the test says", retry_after_ms=wait_ms)
        return self.gate.settle(call, Report(failure=failure, headers=headers or {}, sent=sent))

    def answer_others(self, calls: int = 1, name: str = SHOP) -> None:
        """Let calls of other jobs be answered."""
        for _ in range(calls):
            call = self.call(f"other-{self._fences}", to=name)
            self.admit_all(call)
            self.ok(call, 10, 10)

    def status(self, name: str = SHOP) -> DownstreamStatus:
        """Return the state of a downstream."""
        return self.board.show(name)

    def lineage(self, root: str) -> dict[str, float]:
        """The stored fields of a lineage, by the short names in `legend.LINEAGE`."""
        found: dict[bytes, bytes] = self.client.hgetall(self.keys.lineage(root))  # type: ignore[assignment]
        return {name.decode(): float(value) for name, value in found.items()}


def said(answer: Defer | Failure | None) -> str:
    """Return an answer of the gate as one word."""
    if answer is None:
        return "admitted"
    if isinstance(answer, Failure):
        return answer.kind.value
    assert not answer.counts_as_attempt, "a wait is not an attempt"
    return answer.reason.rpartition(": ")[2].partition(",")[0]
