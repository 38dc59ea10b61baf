"""Claims and messages for tests that only read them."""

from __future__ import annotations

from typing import Any

from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.tokens.weight import weigh_all
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, Stop, Usage
from midwatch.schemas.step import StepRef


def claim_of(step: str = "1", *, log: tuple[Message, ...] = (), ending: str = "", **fields: Any) -> Claim:
    """Make a claim of a step. Fields of the job are given as `job_...`."""
    job = {name.removeprefix("job_"): fields.pop(name) for name in list(fields) if name.startswith("job_")}
    ref = StepRef(job_id="job-1", session_id="s1", step=step)
    fixed = {"job_id": "job-1", "session_id": "s1", "root_id": "job-1", "agent": "clerk", "agent_version": "v1"}
    times = {"created_ms": 1_000, "started_ms": 1_000, "deadline_ms": 61_000, "max_worked_ms": 60_000}
    said = log or (UserMessage(group=1, text="Where is A-17?"),)
    return Claim(
        ref=ref,
        fence=1,
        nonce="n",
        now_ms=2_000,
        job=Job(**{**fixed, **times, "status": JobStatus.RUNNING, "max_steps": 50, **job}),
        attempt=fields.pop("attempt", 0),
        losses=fields.pop("losses", 0),
        interrupted=False,
        ending=ending,
        group=fields.pop("group", said[-1].group + 1),
        log=said,
        log_weight=weigh_all(said),
        **fields,
    )


def reply_of(*parts: str | ToolCall, stop: Stop | None = None, **fields: Any) -> ModelReply:
    """Make a reply with texts and calls in order. Its stop is TOOLS if it has calls."""
    made = tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
    asks = any(isinstance(part, ToolCall) for part in made)
    usage = Usage(input_tokens=10, output_tokens=2)
    return ModelReply(parts=made, stop=stop or (Stop.TOOLS if asks else Stop.END), usage=usage, model="m-1", **fields)


def tool_call(name: str, raw_arguments: str = "{}", id: str = "call_0") -> ToolCall:
    """Make a call as a model wrote it."""
    return ToolCall(id=id, name=name, raw_arguments=raw_arguments)


def said(group: int, *parts: str | ToolCall) -> AssistantMessage:
    """Make an earlier turn of the model."""
    return AssistantMessage(group=group, parts=reply_of(*parts).parts, provider="scripted", model="m-1")


def note(group: int, text: str = "again, please") -> NoteMessage:
    """Make a note of the runtime."""
    return NoteMessage(group=group, text=text)


def result(group: int, ordinal: int, content: str = "fine") -> ToolMessage:
    """Make a tool result."""
    return ToolMessage(group=group, ordinal=ordinal, call_id="call_0", tool="look_up", content=content)
