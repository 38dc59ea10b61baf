"""Convert what is stored in Redis: a job's hash, and the members of the indexes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from midwatch.orchestration.errors import UnreadableRecord
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.reading import MISREAD, check_version, explain, guard, read_listing
from midwatch.schemas.contract import Id
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Holder, Job, JobStatus, NewJob, Waiting
from midwatch.schemas.lineage import Bounds, Member
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Park, Priority, StepRef, WaitOwner

log = get_logger("midwatch.store")

SESSION_ID: TypeAdapter[str] = TypeAdapter(Id)


LIMITS = ("max_steps", "timeout_ms", "max_wait_ms", "max_total_ms")
"""Limits of a job. A replay changes them."""


def member_base(ref: StepRef) -> str:
    """`priority|session|job|`, the beginning of the job's members in `due` and `owed`."""
    return f"{ref.priority}|{ref.session_id}|{ref.job_id}|"


def member(ref: StepRef) -> str:
    """The member of `due` and `owed` for this step."""
    return member_base(ref) + ref.step


def refs_of(entries: Iterable[bytes]) -> list[StepRef]:
    """Parse index members. One unreadable member does not hide the others."""
    found = read_listing((("an entry of due or owed", entry) for entry in entries), ref_of)
    if found.unreadable:
        log.warning("entry.unreadable", entries=len(found.unreadable), why=found.unreadable[0].why)
    return found


def ref_of(entry: bytes | str) -> StepRef:
    """Parse the index member of a step."""
    text = entry.decode() if isinstance(entry, bytes) else entry
    priority, session_id, job_id, step = text.split("|")
    return StepRef.model_construct(job_id=job_id, session_id=session_id, step=step, priority=Priority(priority))


def first_step(session_id: str, entry: bytes | str) -> StepRef | None:
    """The first step of the session's next job, which a script returned as `job|priority`. None for ''."""
    if not entry:
        return None
    text = entry.decode() if isinstance(entry, bytes) else entry
    job_id, _, priority = text.rpartition("|")
    return StepRef.model_construct(job_id=job_id, session_id=session_id, step="1", priority=Priority(priority))


def is_id(text: str) -> bool:
    """Can this be the id of a job or a session? Text from a command line or a page may be anything."""
    try:
        SESSION_ID.validate_python(text)
    except ValidationError:
        return False
    return True


def is_step(text: str) -> bool:
    """Can this be the id of a step? Other fields of the same hash have longer names, such as `3.0:call`."""
    return re.fullmatch(r"\d{1,6}(\.\d{1,4}|c)?", text, re.ASCII) is not None


def session_of(pointer: bytes) -> str:
    """The session id that a job's pointer holds. Raises ValueError if it is not a valid id."""
    return SESSION_ID.validate_python(pointer.decode())


def spec(job: NewJob) -> str:
    """The part of a job's record that never changes."""
    fixed = job.model_dump(mode="json", exclude={*LIMITS, "input", "on_busy"}, exclude_none=True)
    return json.dumps(fixed, separators=(",", ":"), ensure_ascii=False)


def usage_fields(usage: Usage) -> list[tuple[str, int]]:
    """The fields of the job's hash to which this usage adds, with the amounts. `job_of` reads these fields."""
    fields = (
        ("in", usage.input_tokens),
        ("cached", usage.cached_tokens),
        ("cwrite", usage.cache_write_tokens),
        ("out", usage.output_tokens),
        ("reasoning", usage.reasoning_tokens),
        ("unreported", 0 if usage.reported else 1),
    )
    return [field for field in fields if field[1]]


def fields(flat: list[bytes]) -> dict[str, str]:
    """A HGETALL reply as a dictionary of text."""
    texts = [item.decode() for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def job_of(job_id: str, stored: Mapping[str, str]) -> Job:
    """The job that a hash holds.

    Raises:
        UnreadableRecord: the record is of a later version, or damaged.

    """
    return guard(f"job {job_id}", lambda: _job_of(job_id, stored))


def job_and_session(reply: tuple[str, Any]) -> tuple[str, str]:
    """Return a job id with its session. `pointer` is the reply to GET of the job's pointer, which may be an error."""
    job_id, pointer = reply
    if isinstance(pointer, Exception):
        raise UnreadableRecord(f"the session id of job {job_id}", explain(pointer))
    return job_id, session_of(pointer)


def job_of_reply(reply: tuple[str, Any]) -> Job:
    """The job, from its id and the reply to HGETALL, which may be an error."""
    job_id, flat = reply
    if isinstance(flat, Exception):
        raise UnreadableRecord(f"job {job_id}", explain(flat))
    return job_of(job_id, {key.decode(): value.decode() for key, value in flat.items()})


def priority_of(stored: Any) -> Priority:
    """The priority of a job's steps, from its fields `spec` and `lane`. It is `normal` if they can't be read."""
    try:
        spec, lane = stored
        return Priority(lane.decode() if lane else json.loads(spec)["priority"])
    except MISREAD:
        return Priority.NORMAL


def _job_of(job_id: str, f: Mapping[str, str]) -> Job:
    fixed = json.loads(f["spec"])
    check_version(fixed)
    parent = fixed.get("parent")
    return Job(
        job_id=job_id,
        agent=fixed["agent"],
        agent_version=f.get("version") or fixed["agent_version"],
        session_id=fixed["session_id"],
        root_id=parent["root_id"] if parent else job_id,
        parent=StepRef(**parent["ref"]) if parent else None,
        ancestors=_ancestors(parent) if parent else (),
        time_left_ms=parent.get("time_left_ms") if parent else None,
        total_left_ms=parent.get("total_left_ms") if parent else None,
        bounds=_bounds(f, fixed),
        depth=parent["depth"] if parent else 0,
        tenant=fixed.get("tenant"),
        priority=Priority(f.get("lane") or fixed["priority"]),
        traceparent=fixed.get("traceparent"),
        status=JobStatus(f["status"]),
        turn=int(f.get("turn", 0)),
        open_calls=int(f.get("open", 0)),
        max_steps=int(f["max_steps"]),
        created_ms=int(f["created_ms"]),
        started_ms=_int(f.get("started_ms")),
        deadline_ms=_int(f.get("deadline_ms")),
        ends_by_ms=_int(f.get("ends_by_ms")),
        finished_ms=_int(f.get("finished_ms")),
        working=int(f.get("working", 0)),
        held_ms=int(f.get("held_ms", 0)),
        held_since_ms=_int(f.get("held_since")),
        max_worked_ms=_int(f.get("max_worked_ms") or f["timeout_ms"]),
        max_held_ms=_int(f.get("max_held_ms") or f.get("max_wait_ms")),
        holder=Holder.model_validate_json(f["holder"]) if "holder" in f else None,
        usage=Usage(
            input_tokens=int(f.get("in", 0)),
            cached_tokens=int(f.get("cached", 0)),
            cache_write_tokens=int(f.get("cwrite", 0)),
            output_tokens=int(f.get("out", 0)),
            reasoning_tokens=int(f.get("reasoning", 0)),
            reported="unreported" not in f,
        ),
        tool_calls=int(f.get("tool_calls", 0)),
        invalid_calls=int(f.get("invalid_calls", 0)),
        children=int(f.get("children", 0)),
        adopted=tuple(f.get("adopted", "").split()),
        granted_steps=int(f.get("granted", 0)),
        retries=int(f.get("retries", 0)),
        redrives=int(f.get("redrives", 0)),
        waiting=Waiting.model_validate_json(f["waiting"]) if "waiting" in f else None,
        output=json.loads(f["output"]) if "output" in f else None,
        failure=Failure.model_validate_json(f["failure"]) if "failure" in f else None,
    )


def _ancestors(parent: Mapping[str, Any]) -> tuple[Member, ...]:
    """The ancestors in a child's `spec`. An earlier release recorded only the ids of the parent and the root."""
    if stored := parent.get("ancestors"):
        return tuple(Member.model_validate(one) for one in stored)
    ref, root_id = parent["ref"], parent["root_id"]
    nearest = Member(job_id=ref["job_id"], session_id=ref["session_id"])
    return (nearest,) if nearest.job_id == root_id else (nearest, Member(job_id=root_id))


def _bounds(f: Mapping[str, str], fixed: Mapping[str, Any]) -> Bounds | None:
    """The bounds that the first step set, or those of the producer."""
    if "bounds" in f:
        return Bounds.model_validate_json(f["bounds"])
    return Bounds.model_validate(fixed["bounds"]) if fixed.get("bounds") else None


def _int(text: str | None) -> int | None:
    return int(text) if text else None


def waits_for_human(ref: StepRef, park: Park) -> Waiting:
    """What a job shows while a step is parked."""
    reason, on_expiry = f"{park.reason}: {park.question}", park.on_expiry if park.expires_ms else None
    return Waiting(step=ref.step, reason=reason, kind=park.reason, owner=WaitOwner.HUMAN, on_expiry=on_expiry)


def waits_for_child(ref: StepRef, child_id: str) -> Waiting:
    """What a job shows while a step waits for its child job."""
    return Waiting(step=ref.step, reason=f"child job {child_id}", owner=WaitOwner.CHILD)
