"""Make a new job: create its ids, check its input, take its limits from the agent."""

from __future__ import annotations

import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, TypedDict, get_args

from pydantic import TypeAdapter, ValidationError

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.protocol.addresses import own_session_id
from midwatch.orchestration.protocol.lineage import bounds_of
from midwatch.schemas.contract import MAX_INPUT_BYTES, Id, Name
from midwatch.schemas.job import Job, NewJob, Parent, SessionPolicy
from midwatch.schemas.policy import RunLimits
from midwatch.schemas.step import LivePriority, Priority

if TYPE_CHECKING:
    from midwatch.orchestration.agents.agent import Agent

_ID: TypeAdapter[str] = TypeAdapter(Id)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def new_id(kind: str) -> str:
    """`kind-` and the 32 hex digits of a UUIDv7: ids sort by creation time and can't be guessed (RFC 9562, section 5.7)."""
    ms = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = (ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
    return f"{kind}-{value:032x}"


def keyed_job_id(agent: str, tenant: str | None, key: str) -> str:
    """The job id of an idempotency key. It is a hash, so every producer gets the same id without a lookup."""
    return "job-" + sha256(f"{agent}\0{tenant or ''}\0{key}".encode()).hexdigest()[:32]


def check_id(value: str, what: str) -> str:
    """Check that an id from outside is safe as part of a Redis key. Raises ConfigError."""
    try:
        return _ID.validate_python(value)
    except ValidationError as error:
        raise ConfigError(
            f"{what}={value!r}: expected 1 to 128 letters, digits or . _ : @ -, beginning with a letter or digit"
        ) from error


def check_agent_name(name: str) -> str:
    """Check the form of an agent's name. The agent need not be loaded here. Raises ConfigError."""
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"agent name {name!r:.100}: expected a letter or _, then letters, digits, _ or -, at most 64"
        ) from error


def check_input(text: str) -> str:
    """Check that a job's input is text, not empty, not too long, and encodable. Raises ConfigError."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"input: expected text, got {type(text).__name__} {str(text)[:40]!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"input: not valid text, there is a lone surrogate at position {error.start}; decode the text correctly"
        ) from error
    if size > MAX_INPUT_BYTES:
        raise ConfigError(
            f"input: {size:,} bytes, at most {MAX_INPUT_BYTES:,}; store the document and give the agent a tool to read it"
        )
    return text


class TimeLimits(TypedDict):
    """The limits of a job's time, by the names of `NewJob`."""

    timeout_ms: int
    max_wait_ms: int | None
    max_total_ms: int | None


def times_of(limits: RunLimits, parent: Parent | Job | None = None) -> TimeLimits:
    """The limits of a job's time, in ms. A child has no more time than its parent had left when the child was enqueued.

    Args:
        limits: of the job's agent.
        parent: the parent of the job, or the child's record, which holds what its parent had left.

    """
    time_left_ms, total_left_ms = (parent.time_left_ms, parent.total_left_ms) if parent else (None, None)
    timeout_ms = _least(int(limits.session_timeout_s * 1_000), time_left_ms)
    return TimeLimits(
        timeout_ms=timeout_ms or 1,
        max_wait_ms=_ms(limits.max_wait_s),
        max_total_ms=_least(_ms(limits.deadline_s), total_left_ms),
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1_000))


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def new_job(
    agent: Agent | str,
    input: str,
    *,
    job_id: str | None = None,
    session_id: str | None = None,
    idempotency_key: str | None = None,
    priority: str = Priority.NORMAL,
    tenant: str | None = None,
    parent: Parent | None = None,
    traceparent: str | None = None,
) -> NewJob:
    """Make a job for the store. If only the agent's name is given, a worker fills in the limits at the first step.

    Raises:
        ConfigError: an id, the priority or the input is invalid.

    """
    if priority not in set(Priority):
        raise ConfigError(f"priority={priority!r}: expected one of {', '.join(get_args(LivePriority))}")
    if priority == Priority.REPLAY and not (parent and parent.ref.priority is Priority.REPLAY):
        raise ConfigError(
            "priority='replay' is for replays of dead letters only; use 'low' for work that can wait, "
            "or replay dead letters with `midwatch dlq replay`"
        )
    name = agent.name if not isinstance(agent, str) else check_agent_name(agent)
    limits = agent.limits if not isinstance(agent, str) else RunLimits()
    if tenant is not None:
        check_id(tenant, "tenant")
    if job_id is None and idempotency_key is not None:
        job_id = keyed_job_id(name, tenant, check_id(idempotency_key, "idempotency_key"))
    job_id = check_id(job_id, "job_id") if job_id else new_id("job")
    session_id = check_id(session_id, "session_id") if session_id is not None else own_session_id(job_id)
    times = times_of(limits, parent)
    return NewJob(
        job_id=job_id,
        agent=name,
        agent_version=agent.version if not isinstance(agent, str) else "",
        session_id=session_id,
        input=check_input(input),
        tenant=tenant,
        priority=Priority(priority),
        parent=parent,
        traceparent=traceparent,
        bounds=bounds_of(limits) if not isinstance(agent, str) else None,
        max_steps=limits.max_steps,
        timeout_ms=times["timeout_ms"],
        max_wait_ms=times["max_wait_ms"],
        max_total_ms=times["max_total_ms"],
        on_busy=SessionPolicy(limits.on_busy),
    )
