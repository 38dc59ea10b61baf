"""What follows a call or an answer that did not pass: told, with an example, narrowed and strict, a stronger model, the end.

Read off the conversation itself, so it holds whichever worker has the step and survives every crash. A real model made the
same empty call 99 times in a row, for 2.7 million tokens; here the third identical one is the last, and so is the fifth of
a kind.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.dialects.strict import strict_form
from midwatch.orchestration.drift import answers
from midwatch.orchestration.tools.toolbox import CheckedCall
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.tools import ToolSpec

MAX_OF_A_KIND = 5
"""Refused calls in a row of one tool, or answers sent back, for one kind of reason."""

MAX_IDENTICAL = 3
"""The same in a row to the letter."""

MAX_TURNS = 12
"""Turns in a row of which nothing passed, whatever the reasons."""

EXAMPLE_AT, NARROW_AT, STRONGER_AT = 2, 3, 4
"""From which refused turn in a row the model is shown an example, offered only the tools it needs in their strict form,
replaced by a stronger one."""

ANSWER = "(answer)"
"""What a final answer is called where calls are counted by their tool."""

CUT_OFF = "Not run: your reply stopped ("
"""How the answer to a call begins that was cut off: the call itself may look whole."""

RUNTIMES_OWN = ("read_result", "recall")


@dataclass(frozen=True)
class Refusal:
    """One refused call; or an answer that was sent back, as a call of `ANSWER`."""

    tool: str
    kind: str
    raw: str
    """The arguments, or the answer."""


@dataclass(frozen=True)
class Streak:
    """What was refused since something passed, newest first, and in how many turns."""

    refusals: tuple[Refusal, ...] = ()
    turns: int = 0

    @property
    def tools(self) -> frozenset[str]:
        """What the model has been trying to call."""
        return frozenset(refusal.tool for refusal in self.refusals)

    def of_a_kind(self, one: Refusal) -> int:
        """How often in a row that tool was refused for that kind of reason."""
        return sum((refusal.tool, refusal.kind) == (one.tool, one.kind) for refusal in self.refusals)

    def identical(self, one: Refusal) -> int:
        """How often in a row that very call was refused."""
        return sum(refusal == one for refusal in self.refusals)

    def rung(self, *, drifting: bool = False) -> int:
        """How far up the ladder the next request stands; a repeated call and a drifting model climb one rung faster."""
        repeated = len(self.refusals) > len(set(self.refusals))
        return self.turns + (repeated or drifting) if self.turns else 0


@dataclass(frozen=True)
class Offer:
    """Who is asked next, and what with."""

    model: ModelName
    tools: tuple[ToolSpec, ...]
    output_schema: JsonObject | None
    strict: bool = False
    """Something is sent in its strict form."""
    changes: str = ""
    """What is otherwise than in the agent's own requests, for the trace."""


def usual_offer(agent: Agent) -> Offer:
    """The agent's own request: nothing was refused, nothing drifts."""
    return Offer(agent.model, agent.toolbox.specs, agent.output_schema)


def make_offer(
    agent: Agent,
    behind: Streak,
    drifting: Set[str] = frozenset(),
    *,
    not_strict: Set[tuple[str, str]] = frozenset(),
) -> Offer:
    """The next request, by the rung it stands on.

    `drifting` tools are strict from the start: see `drift`. `not_strict` are agents (by version) and models whose provider
    refused that.
    """
    if not behind.turns and not drifting:
        return usual_offer(agent)
    rung = behind.rung(drifting=bool(behind.tools & drifting))
    narrow = rung >= NARROW_AT
    model, specs, output = agent.model, agent.toolbox.specs, agent.output_schema
    said = []
    if rung >= STRONGER_AT and agent.fallback_models:
        model = agent.fallback_models[0]
        said.append(str(model))
    if narrow and (needed := tuple(spec for spec in specs if spec.name in behind.tools)):
        specs = needed
        said.append("only " + ", ".join(spec.name for spec in needed))
    wanted = (behind.tools if narrow else frozenset()) | drifting
    if (agent.version, str(model)) in not_strict:
        wanted = frozenset()
    tools = tuple(_strict(model, spec) if spec.name in wanted else spec for spec in specs)
    if output is not None and ANSWER in wanted:
        output = strict_form(model.provider, output) or output
    is_strict = tools != specs or output is not agent.output_schema
    return Offer(model, tools, output, is_strict, "; ".join([*said, "strict"] if is_strict else said))


def _strict(model: ModelName, spec: ToolSpec) -> ToolSpec:
    form = strict_form(model.provider, spec.input_schema)
    return spec if form is None else spec.model_copy(update={"input_schema": form, "strict": True})


def find_streak(agent: Agent, log: Sequence[Message]) -> Streak:
    """What was refused at the end of the running job's part of the conversation."""
    last = log[-1] if log else None
    if not (isinstance(last, NoteMessage) or (isinstance(last, ToolMessage) and last.is_error)):
        return Streak()  # the usual case, and nothing is checked twice for it
    refusals: list[Refusal] = []
    turns = 0
    heard: list[ToolMessage | NoteMessage] = []
    for message in reversed(log):
        if isinstance(message, UserMessage):
            break
        if not isinstance(message, AssistantMessage):
            heard.append(message)
            continue
        found = _refused(agent, message, heard)
        if not found or not all(found):
            break  # something was said, or passed
        turns += 1
        refusals += [one for one in reversed(found) if one]
        if turns >= MAX_TURNS:
            break
        heard = []
    return Streak(tuple(refusals), turns)


def _refused(agent: Agent, said: AssistantMessage, heard: Sequence[Message]) -> list[Refusal | None]:
    """For each call of a turn, or its answer: why it did not pass; None when it did."""
    if said.tool_calls:
        told = {message.ordinal: message for message in heard if isinstance(message, ToolMessage)}
        return [_refusal(agent, call, told.get(ordinal)) for ordinal, call in enumerate(said.tool_calls)]
    notes = [message.text for message in heard if isinstance(message, NoteMessage)]
    if not notes:
        return []
    cut_off = notes[0].startswith(answers.CUT_OFF.message)
    return [refuse_answer(said.text, (not cut_off and answers.find_problem(agent, said.text)) or answers.CUT_OFF)]


def _refusal(agent: Agent, call: ToolCall, told: ToolMessage | None) -> Refusal | None:
    """Why a call did not pass; None when it did."""
    if told is not None and told.content.startswith(CUT_OFF):
        return Refusal(call.name, "cut_off", call.raw_arguments)
    checked = agent.toolbox.check(call)
    if isinstance(checked, CheckedCall):
        return None
    if call.name in RUNTIMES_OWN and not (told and told.is_error):
        return None
    return Refusal(call.name, checked.kind, call.raw_arguments)


def refuse_answer(text: str, bad: answers.BadAnswer) -> Refusal:
    """An answer that does not pass."""
    return Refusal(ANSWER, bad.kind, text)


def find_failure(before: Streak, now: Sequence[Refusal]) -> Failure | None:
    """The top of the ladder: why the job ends here, when all of this turn (`now`) was refused, too."""
    after = Streak((*now, *before.refusals), before.turns + 1)
    for one in now:
        if after.identical(one) >= MAX_IDENTICAL:
            times, same = after.identical(one), "the same "
        elif after.of_a_kind(one) >= MAX_OF_A_KIND:
            times, same = after.of_a_kind(one), ""
        elif after.turns >= MAX_TURNS:
            times, same = after.turns, ""
        else:
            continue
        if one.tool == ANSWER:
            what = f"the same final answer {times} times in a row" if same else f"{times} final answers in a row"
            return Failure(kind=FailureKind.OUTPUT_INVALID, detail=f"{one.kind}: {what}, none of them acceptable")
        what = f"the same call {times} times in a row" if same else f"{times} calls in a row"
        detail = f"repeated_failure: {one.tool[:64]}: {what}, refused each time ({one.kind}); nothing of it ran"
        return Failure(kind=FailureKind.FORMAT_ERROR, detail=detail)
    return None
