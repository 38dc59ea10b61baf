"""Read a model's reply: what is said, what is called, what may run. Pure: no I/O, so every odd reply is a unit test."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context.recall import RECALL
from midwatch.orchestration.drift import answers, ladder
from midwatch.orchestration.drift.examples import make_example
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.result_pages import READ_RESULT
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import AssistantMessage, NoteMessage, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, Stop

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
    """Calls that did not pass, in order; or the answer."""
    children: int = 0
    output: str | None = None
    """The final answer, when this is one."""
    failure: Failure | None = None
    """Why the job can't go on, when it can't."""

    def answered(self, agent: Agent) -> bool:
        """Was this a final answer that was judged: by a schema, or by being none?"""
        return any(one.tool == ladder.ANSWER for one in self.refusals) or (
            self.output is not None and agent.output_validator is not None
        )


def read(agent: Agent, claim: Claim, reply: ModelReply, provider: str = "") -> Turn:
    """Sort a reply. Tool calls run only after a stop that says so: a call in a reply that was cut off must never run.

    `provider` is whose reply it is, when it is not the agent's own: what is a vendor's own in it goes back to no other.
    """
    said_by = provider or agent.model.provider
    turn = Turn(AssistantMessage(group=claim.group, parts=reply.parts, provider=said_by, model=reply.model))
    calls, before = reply.tool_calls, ladder.find_streak(agent, claim.log)
    if reply.stop is Stop.REFUSAL:
        turn.failure = Failure(
            kind=FailureKind.REFUSED, detail="the model refused to answer", request_id=reply.request_id
        )
    elif reply.stop is Stop.CONTEXT_FULL:
        turn.failure = Failure(
            kind=FailureKind.CONTEXT_OVERFLOW, detail="the model's window is full", request_id=reply.request_id
        )
    elif calls and reply.stop is Stop.TOOLS:
        for ordinal, call in enumerate(calls):
            _sort_call(agent, claim, turn, ordinal, call, before)
    elif calls:
        for ordinal, call in enumerate(calls):
            told = f"{ladder.CUT_OFF}{reply.stop}) before this call was complete. Make it again."
            _refuse(turn, ordinal, call, "cut_off", told)
    elif reply.stop is Stop.LENGTH:
        _answer(agent, turn, answers.CUT_OFF, reply.text, before)
    elif reply.stop is Stop.END:
        _answer(agent, turn, answers.find_problem(agent, reply.text), reply.text, before)
    elif reply.stop is not Stop.PAUSE:
        turn.failure = Failure(
            kind=FailureKind.PROVIDER_ERROR,
            detail=f"unknown stop reason {reply.raw_stop[:40]!r}",
            request_id=reply.request_id,
        )
    if calls and len(turn.refusals) == len(calls):
        turn.failure = ladder.find_failure(before, turn.refusals)
    return turn


def _sort_call(agent: Agent, claim: Claim, turn: Turn, ordinal: int, call: ToolCall, before: ladder.Streak) -> None:
    if (call.name == READ_RESULT.name and "results" in claim.flags) or (call.name == RECALL.name and claim.memory):
        turn.pages.append(call)
        return
    checked = agent.toolbox.check(call)
    if isinstance(checked, RefusedCall):
        again = before.identical(ladder.Refusal(call.name, checked.kind, call.raw_arguments))
        offered = agent.toolbox.get(call.name)
        said = checked.message + _further(offered.validator if offered else None, again, before)
        _refuse(turn, ordinal, call, checked.kind, said)
        return
    tool = checked.tool
    if checked.shadowed:
        turn.shadowed.append(tool.name)
    over = _over_limit(agent, claim, turn, tool)
    if over:
        _decline(turn, ordinal, call, "limit", over)
        return
    turn.children += tool.child is not None
    own_task = tool.child or tool.downstream or needs_approval(agent, tool, checked.arguments)  # each of them may wait
    inline = tool.inline and not own_task
    row = CallRow(ordinal=ordinal, call=call, started=inline)
    turn.calls.append(row)
    if inline:
        turn.inline.append((row, tool, checked.arguments))


def _further(validator: JSONSchemaValidator | None, again: int, before: ladder.Streak) -> str:
    """What is added for a model that was told before: that it repeats itself, and how it should look."""
    said = ""
    if again:
        said += "\nYou sent exactly this before. It is refused again, and will be each time: change it."
    if validator and before.turns + 1 >= ladder.EXAMPLE_AT and (shown := make_example(validator)):
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
    """The call itself is wrong."""
    turn.refusals.append(ladder.Refusal(call.name, kind, call.raw_arguments))
    _decline(turn, ordinal, call, kind, message)


def _decline(turn: Turn, ordinal: int, call: ToolCall, kind: str, message: str) -> None:
    """The call is answered without being run."""
    turn.invalid.append(f"{call.name[:64]}: {kind}")
    turn.answers.append(
        ToolMessage(
            group=turn.assistant.group, ordinal=ordinal, call_id=call.id, tool=call.name, content=message, is_error=True
        )
    )


def _answer(agent: Agent, turn: Turn, bad: answers.BadAnswer | None, text: str, before: ladder.Streak) -> None:
    """The job's output, or what the model is told of it; the end when that was said too often in a row."""
    if bad is None:
        turn.output = text
        return
    refusal = ladder.refuse_answer(text, bad)
    turn.refusals.append(refusal)
    turn.invalid.append(f"output: {bad.kind}")
    turn.failure = ladder.find_failure(before, turn.refusals)
    if not turn.failure:
        shown = agent.output_validator if bad.kind in ("schema", "bad_json") else None
        said = bad.message + _further(shown, before.identical(refusal), before)
        turn.answers.append(NoteMessage(group=turn.assistant.group, text=said))
