"""Read a model's reply: what is said, what is called, what may run. Pure: no I/O, so every odd reply is a unit test."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import takewhile

from orchestration import ladder
from orchestration.agent import Agent
from orchestration.commits import CallRow, Claim
from orchestration.examples import example
from orchestration.recall import RECALL
from orchestration.results import READ_RESULT
from orchestration.tools import CheckedCall, RefusedCall, Tool
from orchestration.validation import JSONSchemaValidator, explain
from schemas.contract import JsonObject
from schemas.failure import Failure, FailureKind
from schemas.message import AssistantMessage, NoteMessage, ToolCall, ToolMessage, UserMessage
from schemas.model import ModelReply, Stop

MAX_REPAIRS = 2
"""How often in a row a final answer may be sent back before the job becomes a dead letter."""

MAX_CALLS_PER_TURN = 64
"""More calls than this in one turn are answered with an error: a fan-out that wide is a model gone wrong."""


@dataclass
class Turn:
    """What a reply comes to."""

    assistant: AssistantMessage
    answers: list[ToolMessage | NoteMessage] = field(default_factory=list)
    """Results known without running anything: refused calls; notes."""
    calls: list[CallRow] = field(default_factory=list)
    inline: list[tuple[CallRow, Tool, JsonObject]] = field(default_factory=list)
    pages: list[ToolCall] = field(default_factory=list)
    """Calls of `read_result` and `recall`, answered from the store."""
    invalid: list[str] = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)
    """Tools in shadow mode whose call runs although its schema refuses it."""
    refusals: list[ladder.Refusal] = field(default_factory=list)
    """Calls that did not pass, in order."""
    children: int = 0
    output: str | None = None
    """The final answer, when this is one."""
    failure: Failure | None = None
    """Why the job can't go on, when it can't."""


def read(agent: Agent, claim: Claim, reply: ModelReply) -> Turn:
    """Sort a reply. Tool calls run only after a stop that says so: a call in a reply that was cut off must never run."""
    turn = Turn(
        AssistantMessage(group=claim.group, parts=reply.parts, provider=agent.model.provider, model=reply.model)
    )
    calls = reply.tool_calls
    if reply.stop is Stop.REFUSAL:
        turn.failure = Failure(
            kind=FailureKind.REFUSED, detail="the model refused to answer", request_id=reply.request_id
        )
    elif reply.stop is Stop.CONTEXT_FULL:
        turn.failure = Failure(
            kind=FailureKind.CONTEXT_OVERFLOW, detail="the model's window is full", request_id=reply.request_id
        )
    elif calls and reply.stop is Stop.TOOLS:
        before = ladder.streak(agent, claim.log)
        for ordinal, call in enumerate(calls):
            _sort_call(agent, claim, turn, ordinal, call, before)
        if turn.refusals and len(turn.refusals) == len(calls):
            turn.failure = ladder.end(before, turn.refusals)
    elif calls:
        for ordinal, call in enumerate(calls):
            _refuse(
                turn,
                ordinal,
                call,
                "cut_off",
                f"Not run: your reply stopped ({reply.stop}) before this call was complete. Make it again.",
            )
    elif reply.stop is Stop.LENGTH:
        _send_back(claim, turn, "cut_off", "Your answer was cut off at the output limit. Give it again, shorter.")
    elif reply.stop is Stop.END:
        _final(agent, claim, turn, reply.text)
    elif reply.stop is not Stop.PAUSE:
        turn.failure = Failure(
            kind=FailureKind.PROVIDER_ERROR,
            detail=f"unknown stop reason {reply.raw_stop[:40]!r}",
            request_id=reply.request_id,
        )
    return turn


def _sort_call(agent: Agent, claim: Claim, turn: Turn, ordinal: int, call: ToolCall, before: ladder.Streak) -> None:
    if (call.name == READ_RESULT.name and "results" in claim.flags) or (call.name == RECALL.name and claim.memory):
        turn.pages.append(call)
        return
    checked = agent.toolbox.check(call)
    if isinstance(checked, RefusedCall):
        refusal = ladder.Refusal(call.name, checked.kind, call.raw_arguments)
        turn.refusals.append(refusal)
        _refuse(turn, ordinal, call, checked.kind, checked.message + _further(agent, refusal, before))
        return
    tool = checked.tool
    if checked.shadowed:
        turn.shadowed.append(tool.name)
    over = _over_limit(agent, claim, turn, tool)
    if over:
        _refuse(turn, ordinal, call, "limit", over)
        return
    turn.children += tool.child is not None
    own_task = tool.child or tool.downstream or needs_approval(agent, tool, checked.arguments)  # each of them may wait
    inline = tool.inline and not own_task
    row = CallRow(ordinal=ordinal, call=call, started=inline)
    turn.calls.append(row)
    if inline:
        turn.inline.append((row, tool, checked.arguments))


def _further(agent: Agent, refusal: ladder.Refusal, before: ladder.Streak) -> str:
    """What is added for a model that was told before: that it repeats itself, and how it should look."""
    said = ""
    if before.identical(refusal):
        said += "\nYou made exactly this call before. It is refused again, and will be each time: change the arguments."
    tool = agent.toolbox.get(refusal.tool)
    if tool and before.turns + 1 >= ladder.EXAMPLE_AT and (shown := example(tool.validator)):
        said += f"\nAn example that passes: {shown}"
    return said


def needs_approval(agent: Agent, tool: Tool, arguments: JsonObject) -> bool:
    """Does a human decide on this call? By the tool's own word, or the agent's escalation."""
    return tool.needs_approval(arguments) or agent.asks_human("tool_approval", tool.name)


def _over_limit(agent: Agent, claim: Claim, turn: Turn, tool: Tool) -> str:
    limit = agent.limits.max_tool_calls
    made = claim.job.tool_calls + len(turn.calls)
    if isinstance(limit, int) and made >= limit:
        return f"Not run: this job may make {limit} tool calls and has made them. Finish with what you have."
    if len(turn.calls) >= MAX_CALLS_PER_TURN:
        return f"Not run: at most {MAX_CALLS_PER_TURN} calls in one turn. Make the others in the next turn."
    if isinstance(limit, dict) and tool.name in limit:
        now = sum(row.call.name == tool.name for row in turn.calls)
        if _made_before(agent, claim, tool) + now >= limit[tool.name]:
            return (
                f"Not run: {tool.name} may be called {limit[tool.name]} times and has been. Finish with what you have."
            )
    if tool.child is not None and claim.job.children + turn.children >= agent.limits.max_children:
        return f"Not run: this job may start {agent.limits.max_children} child jobs and has started them."
    if tool.child is not None and claim.job.depth >= agent.limits.max_depth:
        return f"Not run: jobs may be nested {agent.limits.max_depth} deep, and this one is."
    return ""


def _made_before(agent: Agent, claim: Claim, tool: Tool) -> int:
    """Calls of this tool in earlier turns of the job. One whose arguments were refused did not run: its correction may."""
    of_this_job = takewhile(lambda message: not isinstance(message, UserMessage), reversed(claim.log))
    calls = (call for said in of_this_job if isinstance(said, AssistantMessage) for call in said.tool_calls)
    return sum(call.name == tool.name and isinstance(agent.toolbox.check(call), CheckedCall) for call in calls)


def _refuse(turn: Turn, ordinal: int, call: ToolCall, kind: str, message: str) -> None:
    turn.invalid.append(f"{call.name[:64]}: {kind}")
    turn.answers.append(
        ToolMessage(
            group=turn.assistant.group, ordinal=ordinal, call_id=call.id, tool=call.name, content=message, is_error=True
        )
    )


def _send_back(claim: Claim, turn: Turn, kind: str, message: str) -> None:
    """Ask again, or give up when that was said too often in a row."""
    repairs = 0
    for earlier in reversed(claim.log):
        if isinstance(earlier, NoteMessage):
            repairs += 1
        elif not isinstance(earlier, AssistantMessage):
            break
    if repairs >= MAX_REPAIRS:
        detail = f"{kind}: the final answer was sent back {repairs} times and is still not acceptable"
        turn.failure = Failure(kind=FailureKind.OUTPUT_INVALID, detail=detail)
        return
    turn.invalid.append(f"output: {kind}")
    turn.answers.append(NoteMessage(group=turn.assistant.group, text=message))


def _final(agent: Agent, claim: Claim, turn: Turn, text: str) -> None:
    if not text.strip():
        _send_back(claim, turn, "empty", "Your answer was empty. Answer the user now, in words.")
        return
    if agent.output_validator is not None:
        problem = _output_problem(agent.output_validator, text)
        if problem:
            _send_back(
                claim,
                turn,
                "schema",
                f"Your final answer does not satisfy the required schema. {problem} Answer with JSON only.",
            )
            return
    turn.output = text


def _output_problem(validator: JSONSchemaValidator, text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"It is not JSON: {error}."
    problems = validator.problems(value)
    return explain(problems, validator.schema) if problems else ""
