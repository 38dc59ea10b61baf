"""Read a model's reply: its text, its calls, and which calls may run. It does no I/O, so unit tests cover every odd reply."""

from __future__ import annotations

from dataclasses import dataclass, field

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.context.planning.plan import cut_prompt
from midwatch.orchestration.context.recall import RECALL
from midwatch.orchestration.drift import answers, counts, ladder
from midwatch.orchestration.drift.examples import make_example
from midwatch.orchestration.drift.leftovers.thinking import move_thinking
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow
from midwatch.orchestration.steps.call_limits import find_exceeded_limit
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.result_pages import READ_RESULT
from midwatch.orchestration.tools.toolbox import RefusedCall
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import AssistantMessage, NoteMessage, ToolCall, ToolMessage
from midwatch.schemas.model import ModelReply, Stop


@dataclass
class ReadReply:
    """The contents of a reply, sorted by what happens to them."""

    assistant: AssistantMessage
    answers: list[ToolMessage | NoteMessage] = field(default_factory=list)
    """Answers that need no tool to run: errors for refused calls, and notes."""
    calls: list[CallRow] = field(default_factory=list)
    """Calls that will run."""
    inline: list[tuple[CallRow, Tool, JsonObject]] = field(default_factory=list)
    """The part of `calls` that runs in the turn's own task."""
    pages: list[ToolCall] = field(default_factory=list)
    """Calls of `read_result` and `recall`, answered from the store."""
    invalid: list[str] = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)
    """Tools in shadow mode whose call runs although its schema refuses it."""
    refusals: list[ladder.Refusal] = field(default_factory=list)
    """Calls that were refused, in order; or the final answer that was refused."""
    children: int = 0
    output: str | None = None
    """The final answer, if this is one."""
    failure: Failure | None = None
    """Why the job can't go on, if it can't."""

    def has_judged_answer(self, agent: Agent) -> bool:
        """Was there a final answer that a schema checked, or that was refused?"""
        return any(one.tool == ladder.ANSWER for one in self.refusals) or (
            self.output is not None and agent.output_validator is not None
        )

    def withdraw(self, row: CallRow, message: str, *, is_child: bool) -> None:
        """Do not run a call that would have run. Answer it instead."""
        self.calls.remove(row)
        self.inline = [call for call in self.inline if call[0] is not row]
        self.children -= is_child
        self.decline(row.ordinal, row.call, "limit", message)

    def decline(self, ordinal: int, call: ToolCall, kind: str, message: str) -> None:
        """Answer the call without running it."""
        self.invalid.append(f"{call.name[:64]}: {kind}")
        self.answers.append(
            ToolMessage(
                group=self.assistant.group,
                ordinal=ordinal,
                call_id=call.id,
                tool=call.name,
                content=message,
                is_error=True,
                refused=kind,
            )
        )


def read_reply(agent: Agent, claim: Claim, reply: ModelReply, asked: ModelName | None = None) -> ReadReply:
    """Sort the contents of a reply. Calls run only after `Stop.TOOLS`: a call in a reply that was cut off must not run.

    `asked` is the model that was asked, if it is not the agent's own. Only this model gets its opaque parts back.
    """
    return _Reader(agent, claim, reply, asked or agent.model).read()


def drift_fields(
    agent: Agent, claim: Claim, read: ReadReply, reply: ModelReply, *, model: str, tokens: int
) -> tuple[str, ...]:
    """Names of the drift counters to increment: for calls, for judged answers, and for a cut prompt.

    A tool that does not exist is counted without its name: a model may invent any number of names.
    """
    known = {*(spec.name for spec in agent.toolbox.specs), *ladder.RUNTIME_TOOLS, ladder.ANSWER}

    def count_as(tool: str) -> str:
        return tool if tool in known else "(unknown)"

    made = [call.name for call in reply.tool_calls]
    if read.has_judged_answer(agent):
        made.append(ladder.ANSWER)
    return (
        *(counts.call_field(model, count_as(tool), tokens) for tool in made),
        *(counts.invalid_field(model, count_as(one.tool), tokens, one.kind) for one in read.refusals),
        *(counts.invalid_field(model, tool, tokens, counts.SHADOW) for tool in read.shadowed),
        *((counts.cut_field(model, agent.name, tokens),) if cut_prompt(claim.log) else ()),
    )


def needs_approval(agent: Agent, tool: Tool, arguments: JsonObject) -> bool:
    """Must a human approve this call? The tool or the agent's `Escalation` may require it."""
    return tool.needs_approval(arguments) or agent.asks_human("tool_approval", tool.name)


class _Reader:
    def __init__(self, agent: Agent, claim: Claim, reply: ModelReply, asked: ModelName) -> None:
        self.agent = agent
        self.claim = claim
        self.reply = reply
        self.streak = ladder.find_streak(agent, claim.log)
        """The calls and answers that were refused in the turns just before."""
        parts = move_thinking(reply.parts)
        self.has_thinking = parts is not reply.parts
        assistant = AssistantMessage(
            group=claim.group,
            parts=parts,
            provider=asked.provider,
            model=reply.model,
            requested=asked.model,
            server=reply.server or None,
        )
        self.found = ReadReply(assistant)

    def read(self) -> ReadReply:
        reply, found = self.reply, self.found
        match reply.stop:
            case Stop.REFUSAL:
                self.fail(FailureKind.REFUSED, "the model refused to answer")
            case Stop.CONTEXT_FULL:
                self.fail(FailureKind.CONTEXT_OVERFLOW, "the model's window is full")
            case _ if reply.tool_calls:
                self.read_calls()
            case Stop.LENGTH:
                self.read_answer(answers.CUT_OFF)
            case Stop.END:
                text = found.assistant.text
                only_thinking = self.has_thinking and not text.strip()
                self.read_answer(answers.THINKING if only_thinking else answers.find_problem(self.agent, text))
            case Stop.PAUSE:
                pass
            case _:
                self.fail(FailureKind.PROVIDER_ERROR, f"unknown stop reason {reply.raw_stop[:40]!r}")
        return found

    def fail(self, kind: FailureKind, detail: str) -> None:
        self.found.failure = Failure(kind=kind, detail=detail, request_id=self.reply.request_id)

    def read_calls(self) -> None:
        calls, found = self.reply.tool_calls, self.found
        for ordinal, call in enumerate(calls):
            if self.reply.stop is Stop.TOOLS:
                self.read_call(ordinal, call)
            else:
                message = (
                    f"Not run: your reply stopped ({self.reply.stop}) before this call was complete. Make it again."
                )
                self.refuse(ordinal, call, "cut_off", message)
        if len(found.refusals) == len(calls):
            found.failure = ladder.find_failure(self.streak, found.refusals)

    def read_call(self, ordinal: int, call: ToolCall) -> None:
        agent, claim, found = self.agent, self.claim, self.found
        if (call.name == READ_RESULT.name and "results" in claim.flags) or (call.name == RECALL.name and claim.memory):
            found.pages.append(call)
            return
        checked = agent.toolbox.check(call)
        if isinstance(checked, RefusedCall):
            tool = agent.toolbox.get(call.name)
            refusal = ladder.Refusal(call.name, checked.kind, call.raw_arguments)
            advice = self.advise(refusal, tool.validator if tool else None)
            self.refuse(ordinal, call, checked.kind, checked.message + advice)
            return
        tool = checked.tool
        if checked.shadowed:
            found.shadowed.append(tool.name)
        if exceeded := find_exceeded_limit(agent, claim, tool, found.calls, found.children):
            self.found.decline(ordinal, call, "limit", exceeded)
            return
        found.children += tool.child is not None
        may_wait = tool.child or tool.downstream or needs_approval(agent, tool, checked.arguments)
        row = CallRow(ordinal=ordinal, call=call, started=tool.inline and not may_wait)
        found.calls.append(row)
        if row.started:
            found.inline.append((row, tool, checked.arguments))

    def refuse(self, ordinal: int, call: ToolCall, kind: str, message: str) -> None:
        """Refuse a call that is wrong. It counts for the ladder."""
        self.found.refusals.append(ladder.Refusal(call.name, kind, call.raw_arguments))
        self.found.decline(ordinal, call, kind, message)

    def read_answer(self, bad: answers.BadAnswer | None) -> None:
        """Take the answer as the job's output, or refuse it. After too many refusals in a row, the job ends."""
        found, text = self.found, self.found.assistant.text
        if bad is None:
            found.output = text
            return
        refusal = ladder.refuse_answer(text, bad)
        found.refusals.append(refusal)
        found.invalid.append(f"output: {bad.kind}")
        found.failure = ladder.find_failure(self.streak, found.refusals)
        if not found.failure:
            validator = self.agent.output_validator if bad.kind in ("schema", "bad_json") else None
            message = bad.message + self.advise(refusal, validator)
            found.answers.append(NoteMessage(group=found.assistant.group, text=message, refused=bad.kind))

    def advise(self, refusal: ladder.Refusal, validator: JSONSchemaValidator | None) -> str:
        """Advice after earlier refusals: the model repeats the same call, or an example of a valid one."""
        advice = ""
        if self.streak.identical(refusal):
            advice += "\nYou sent exactly this before. It is refused again, and will be each time: change it."
        if validator and self.streak.turns + 1 >= ladder.EXAMPLE_AT and (example := make_example(validator)):
            advice += f"\nAn example that passes: {example}"
        return advice
