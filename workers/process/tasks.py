"""The Celery tasks: each decodes its arguments and runs one step.

Task names and arguments are a wire contract (`schemas/wire/`). They do not depend on this module's name.
"""

from __future__ import annotations

import json
import random
import time
from contextvars import copy_context
from typing import Any

import structlog
from pydantic import ValidationError
from redis.exceptions import NoPermissionError

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.client.repetition import find_first
from midwatch.orchestration.errors import ConfigError, Refused, StoreUnavailable, UnknownAgent
from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.schemas.contract import WIRE_VERSION
from midwatch.schemas.job import NewJob, StartEnvelope
from midwatch.schemas.step import DeadLetter, StepRef
from midwatch.schemas.traceparent import is_traceparent
from midwatch.workers.celery_app.app import app
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.write_message import QUEUES
from midwatch.workers.process.runtime import runtime

START_RETRY_S = 60.0
"""How long `midwatch.start` retries while the server is unavailable or full.

The broker has accepted the message, so the producer will not send it again. A step's message needs no retry: the step
is still owed.
"""

START_AGAIN_S = 5.0
"""When a start message that was published again may be taken. A broker on another server gets it back at once."""

UNUSABLE = (StoreUnavailable, NoPermissionError)
"""The store can't be used now, for example because the rights of its user were changed."""

WRONG_SESSION = "the job belongs to another session than the message says; nothing was read or written"
"""Why such a message is poison."""

log = structlog.get_logger("midwatch.tasks")


class DeadLettered(Exception):
    """Raised after a step has become a dead letter, so that its Celery task fails.

    The result of the step is already stored. Only Celery's tools see this exception.

    `celery events`, Flower's *Failed* and exporters of metrics count failed tasks. Celery logs an expected exception without a
    traceback.
    """


@app.task(name="midwatch.model", throws=(DeadLettered,))
def model(*args: Any, **envelope: Any) -> None:
    """Run one model turn."""
    _run_step("model", args, envelope)


@app.task(name="midwatch.tool", throws=(DeadLettered,))
def tool(*args: Any, **envelope: Any) -> None:
    """Run one tool call."""
    _run_step("tools", args, envelope)


@app.task(name="midwatch.compact", throws=(DeadLettered,))
def compact(*args: Any, **envelope: Any) -> None:
    """Compact a session, concurrently with the job that runs in it."""
    _run_step("maintenance", args, envelope)


@app.task(name="midwatch.start")
def start(*args: Any, **envelope: Any) -> None:
    """Enqueue a job for a producer in another language. Its envelope is described in `schemas/wire/start.json`."""
    given = args[0] if len(args) == 1 and isinstance(args[0], dict) else envelope
    try:
        wanted = StartEnvelope.model_validate(_without_invalid_trace(given))
        if ignored := sorted(map(str, set(given) - set(StartEnvelope.model_fields))):
            log.warning("start.ignored_fields", job_id=wanted.job_id, fields=[name[:40] for name in ignored[:10]])
        current = runtime()
        agent = current.agents.find(wanted.agent) if wanted.agent in current.agents else wanted.agent
        job = new_job(
            agent,
            wanted.input,
            job_id=None if wanted.idempotency_key else wanted.job_id,  # a job with a key gets its id from the key
            session_id=wanted.session_id,
            idempotency_key=wanted.idempotency_key,
            priority=wanted.priority,
            tenant=wanted.tenant,
            traceparent=wanted.traceparent,
        )
        _enqueue(current.client, job, START_RETRY_S if current.settings.one_server else 0.0)
    except UNUSABLE as error:
        _give_back(given, error)
    except (ValidationError, ConfigError, Refused, UnknownAgent) as error:
        _keep_start(given, error)


def _give_back(given: dict[str, Any], error: Exception) -> None:
    """Publish the message again. The job exists nowhere else, and Redis as a broker has deleted the message already.

    It comes back after a while. On Redis it waits in the broker, and a steward delivers it when the store can be used again.
    If the broker does not take it, it goes to the poison list, which at least logs it.
    """
    priority = (start.request.delivery_info or {}).get("priority")
    try:
        app.send_task(
            "midwatch.start",
            args=(given,),
            argsrepr="()",  # Celery's tools show it, and it would hold the user's text
            queue=_queue("model"),
            priority=priority,
            countdown=START_AGAIN_S,
            retry=False,
            ignore_result=True,
            add_to_parent=False,
        )
    except Exception as refusal:
        log.warning("start.not_given_back", job_id=str(given.get("job_id"))[:128], error=str(refusal)[:300])
        _keep_start(given, error)
        return
    log.warning("start.given_back", job_id=str(given.get("job_id"))[:128], error=str(error)[:300])


def _keep_start(given: dict[str, Any], error: Exception) -> None:
    _poison_list().keep(_queue("model"), json.dumps(given, default=repr), f"midwatch.start: {_describe(error)}")


def _without_invalid_trace(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out a traceparent that is not valid. A job must not fail because of its producer's tracing."""
    traceparent = given.get("traceparent")
    if traceparent is None or is_traceparent(traceparent):
        return given
    log.warning("start.invalid_traceparent", job_id=str(given.get("job_id"))[:128])
    return {name: value for name, value in given.items() if name != "traceparent"}


def _enqueue(client: Client, job: NewJob, patience_s: float) -> None:
    give_up_s = time.monotonic() + patience_s
    while True:
        try:
            if not client.store.enqueue(job, on_interrupt=client.operations.cancel):
                find_first(client.operations, job)
            return
        except UNUSABLE as error:
            if time.monotonic() >= give_up_s:
                raise
            log.warning("start.store_unavailable", job_id=job.job_id, error=str(error)[:300])
        time.sleep(random.uniform(0.5, 1.0))


def _run_step(queue: str, args: tuple[Any, ...], envelope: dict[str, Any]) -> None:
    version = envelope.pop("v", 1)
    try:
        if args or version not in range(1, WIRE_VERSION + 1):
            raise ValueError(
                f"expected keyword arguments of version {WIRE_VERSION} at most, got version {version!r} and "
                f"{len(args)} positional ones"
            )
        ref = StepRef.model_validate(envelope)
    except (ValidationError, ValueError) as error:
        _poison_list().keep(_queue(queue), json.dumps([list(args), envelope], default=repr), _describe(error))
        return
    copy_context().run(_run, ref)  # fields that the step adds to its log lines end with the step


def _run(ref: StepRef) -> None:
    try:
        outcome = runtime().runner.run(ref)
        if outcome is ClaimRefusal.WRONG_SESSION:
            _poison_list().keep(_queue(QUEUES[ref.kind]), ref.model_dump_json(), WRONG_SESSION)
    except UNUSABLE as error:  # nothing was recorded, so the step is still owed
        log.warning("step.store_unavailable", job_id=ref.job_id, step=ref.step, error=str(error)[:300])
        return
    log.debug("step.done", job_id=ref.job_id, step=ref.step, outcome=getattr(outcome, "kind", outcome))
    if isinstance(outcome, DeadLetter):
        raise DeadLettered(outcome.failure.kind.value)


def _poison_list() -> PoisonList:
    client = runtime().client
    return PoisonList(client.store.client, client.operations.keys.poison())


def _queue(name: str) -> str:
    return runtime().client.operations.keys.queue(name)


def _describe(error: Exception) -> str:
    """Describe an error without the invalid values: they may hold a user's text."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))[:300]
    return str(error)[:300]
