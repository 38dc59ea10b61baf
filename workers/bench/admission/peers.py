"""The contenders of `bench admission`: a PING as the minimum, other rate limiters, and Midwatch's coordinator.

Each is used as its documentation shows: with its own client and pool, one decision at a time. The limits are so high that
no call is refused, except in the row for refusals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, repeat

from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.limits import Limits
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, StepRef
from midwatch.workers.redis_connection import connect_redis

Decisions = Iterator[Callable[[], bool]]
"""An endless iterator of decisions. Each is prepared before its timing starts. Calling one makes the decision.

It returns whether the call was admitted.
"""

RATE_PER_S = 10_000_000
"""More than any server can decide, so nothing is refused."""

KEYS = Keyspace("bench")
DOWNSTREAM = "bench:model"
STEPS_PER_JOB = 10
INPUT_TOKENS, MOST_OUTPUT_TOKENS, OUTPUT_TOKENS = 4_000, 1_000, 500
LASTS_MS = 60_000

AMPLE = Limits(requests_per_minute=60.0 * RATE_PER_S, input_tokens_per_minute=1e12, output_tokens_per_minute=1e12)
TIGHT = Limits(requests_per_minute=0.001, input_tokens_per_minute=1e12, output_tokens_per_minute=1e12)
"""Admits one call, which is made while the client prepares. All other calls are refused."""

REPORT = Report(usage=Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS), latency_ms=1_200)
HEADERS = {
    f"anthropic-ratelimit-{resource}-{figure}": "900000000000"
    for resource in ("requests", "input-tokens", "output-tokens")
    for figure in ("limit", "remaining")
}


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    decides: str
    """The work of one decision. Rows with different work must be compared with care."""
    connect: Callable[[str], AbstractContextManager[Decisions]]
    """Connects to the server with this URL."""
    admits: bool = True
    """The expected result of every decision."""
    library: str = ""
    """The required module."""


@contextmanager
def _ping(url: str) -> Iterator[Decisions]:
    with connect_redis(url) as client:
        yield repeat(lambda: bool(client.ping()))


@contextmanager
def _connect_limits(strategy: str, url: str) -> Iterator[Decisions]:
    from limits import RateLimitItemPerSecond, strategies
    from limits.storage import RedisStorage

    limiter = getattr(strategies, strategy)(RedisStorage(url))
    item = RateLimitItemPerSecond(RATE_PER_S)
    yield repeat(lambda: bool(limiter.hit(item, "bench")))


@contextmanager
def _connect_throttled(algorithm: str, url: str) -> Iterator[Decisions]:
    from throttled import RedisStore, Throttled, rate_limiter

    quota = rate_limiter.per_sec(RATE_PER_S, burst=RATE_PER_S)
    limiter = Throttled(key="bench", using=algorithm, quota=quota, store=RedisStore(server=url))
    yield repeat(lambda: not limiter.limit().limited)


@contextmanager
def _pyrate(url: str) -> Iterator[Decisions]:
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

    name = f"client-{os.getpid()}"  # entries with the same name and time count once
    with connect_redis(url) as client:
        bucket = RedisBucket.init([Rate(RATE_PER_S, Duration.SECOND)], client, "bench")
        with Limiter(bucket) as limiter:
            yield repeat(lambda: bool(limiter.try_acquire(name, blocking=False)))


@contextmanager
def _gate(limits: Limits, decide: Callable[[RedisGate, Call], bool], url: str) -> Iterator[Decisions]:
    with connect_redis(url) as client:
        gate = RedisGate(client, KEYS, {DOWNSTREAM: limits}, version=1)
        yield (partial(decide, gate, call) for call in _make_calls())


def _make_calls() -> Iterator[Call]:
    """Yield first attempts of new root jobs, ten steps each, without token limits per lineage. No two calls are equal."""
    for number in count():
        job_id = f"{os.getpid()}-{number}"
        job = Job(
            job_id=job_id, agent="bench", agent_version="1", session_id=job_id, root_id=job_id,
            status=JobStatus.RUNNING, max_steps=STEPS_PER_JOB, created_ms=0,
        )  # fmt: skip
        for step in range(1, STEPS_PER_JOB + 1):
            claim = Claim(
                ref=StepRef(job_id=job_id, session_id=job_id, step=str(step)), fence=step, nonce="", now_ms=0,
                job=job, attempt=0, losses=0, interrupted=False, ending="",
            )  # fmt: skip
            yield Call(
                claim, DOWNSTREAM, LASTS_MS, INPUT_TOKENS, 0, MOST_OUTPUT_TOKENS,
                lineage_input_tokens=0, lineage_output_tokens=0,
            )  # fmt: skip


def _admit_and_settle(report: Report, gate: RedisGate, call: Call) -> bool:
    admitted = gate.admit(call) is None
    if admitted:
        gate.settle(call, report)
    return admitted


def _admit(gate: RedisGate, call: Call) -> bool:
    """Try to admit the call. Returns False if it was deferred. A denial, which would end a job, is not expected here."""
    return not isinstance(gate.admit(call), Defer)


FLOOR = Contender("PING (floor)", "nothing", _ping)
WHOLE_CALL = Contender(
    "midwatch admit + settle",
    "a whole call: block, pause, breaker, lines, retry budgets, buckets of requests, input and output tokens, a "
    "reservation; then the real usage and the health of the downstream",
    partial(_gate, AMPLE, partial(_admit_and_settle, REPORT)),
)
WITH_HEADERS = Contender(
    "midwatch, with headers",
    "the same, and the provider's six rate-limit headers are read and obeyed",
    partial(_gate, AMPLE, partial(_admit_and_settle, replace(REPORT, headers=HEADERS))),
)
REFUSED = Contender(
    "midwatch admit, refused", "admit alone, over the limit: the call is put in line", partial(_gate, TIGHT, _admit),
    admits=False,
)  # fmt: skip
CONTENDERS = (
    FLOOR,
    Contender(
        "limits fixed window", "one counter", partial(_connect_limits, "FixedWindowRateLimiter"), library="limits"
    ),
    Contender(
        "limits sliding window",
        "two counters",
        partial(_connect_limits, "SlidingWindowCounterRateLimiter"),
        library="limits",
    ),
    Contender(
        "limits moving window", "a list of calls", partial(_connect_limits, "MovingWindowRateLimiter"), library="limits"
    ),
    Contender(
        "throttled-py token bucket", "one bucket", partial(_connect_throttled, "token_bucket"), library="throttled"
    ),
    Contender("throttled-py GCRA", "one bucket", partial(_connect_throttled, "gcra"), library="throttled"),
    Contender("pyrate-limiter", "a sorted set of calls", _pyrate, library="pyrate_limiter"),
    WHOLE_CALL,
    WITH_HEADERS,
    REFUSED,
)
