"""The ladder: what the runtime does when a model repeats invalid calls or invalid final answers.

The rungs: return the error; add an example; offer only the needed tools, in their strict form; use a stronger model; end the
job. The rung is computed from the conversation, so every worker finds the same one, also after a crash. A real model made
the same empty call 99 times in a row, for 2.7 million tokens. Here the job ends at the third identical call, or at the fifth
refused for the same kind of reason.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.dialects.strict import strict_form, to_strict_tools
from midwatch.orchestration.drift import answers
from midwatch.orchestration.tools.toolbox import CheckedCall
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.tools import ToolSpec

MAX_OF_A_KIND = 5
"""Number of turns in a row with refused calls of one tool, or a refused answer, for the same kind of reason, that ends a job."""

MAX_IDENTICAL = 3
"""Number of turns in a row with an identical refused call or answer that ends a job."""

MAX_TURNS = 12
"""Number of turns in a row, with every call or answer refused, that ends a job."""

EXAMPLE_AT, NARROW_AT, STRONGER_AT = 2, 3, 4
"""Numbers of refused turns in a row. From the first number on an example is added, from the second only the needed tools are
offered, in strict form, and from the third a stronger model is used."""

ANSWER = "(answer)"
"""The tool name under which final answers are counted."""

RUNTIME_TOOLS = ("read_result", "recall")


@dataclass(frozen=True)
class Refusal:
    """One refused call, or one refused final answer as a call of `ANSWER`."""

    tool: str
    kind: str
    raw: str
    """The arguments, or the text of the answer."""
    turn: int = field(default=0, compare=False)
    """The turn. Wrong calls of one turn count as one mistake, because the model made them before it got an error."""


@dataclass(frozen=True)
class Streak:
    """What was refused since the last valid call or answer, the newest first, and in how many turns."""

    refusals: tuple[Refusal, ...] = ()
    turns: int = 0

    @property
    def tools(self) -> frozenset[str]:
        """The tools that the model tried to call."""
        return frozenset(refusal.tool for refusal in self.refusals)

    def of_a_kind(self, one: Refusal) -> int:
        """In how many turns this tool was refused for this kind of reason."""
        return len({other.turn for other in self.refusals if (other.tool, other.kind) == (one.tool, one.kind)})

    def identical(self, one: Refusal) -> int:
        """In how many turns exactly this call was refused."""
        return len({other.turn for other in self.refusals if other == one})

    def rung(self, *, drifting: bool = False) -> int:
        """The rung of the next request. A repeated call or a drifting model is one rung higher."""
        repeated = any(self.identical(one) > 1 for one in set(self.refusals))
        return self.turns + (repeated or drifting) if self.turns else 0


@dataclass(frozen=True)
class Offer:
    """The model, tools and output schema of the next request."""

    model: ModelName
    tools: tuple[ToolSpec, ...]
    output_schema: JsonObject | None
    strict: bool = False
    """True if a schema is sent in its strict form."""
    changes: str = ""
    """How the request differs from the agent's own, as text for the trace."""


def usual_offer(agent: Agent) -> Offer:
    """The agent's own request, for when no call was refused and no tool drifts."""
    return Offer(agent.model, agent.toolbox.specs, agent.output_schema)


def make_offer(
    agent: Agent,
    behind: Streak,
    drifting: Set[str] = frozenset(),
    *,
    not_strict: Set[tuple[str, str]] = frozenset(),
) -> Offer:
    """Make the next request, by its rung.

    Args:
        agent: whose request it is.
        behind: what was refused before.
        drifting: tools that get their strict form at once (see `breaker`).
        not_strict: agents (by version) and models for which the provider refused a strict form.

    """
    if not behind.turns and not drifting:
        return usual_offer(agent)
    rung = behind.rung(drifting=bool(behind.tools & drifting))
    narrow = rung >= NARROW_AT
    model, specs, output = agent.model, agent.toolbox.specs, agent.output_schema
    changes = []
    if rung >= STRONGER_AT and agent.fallback_models:
        model = agent.fallback_models[0]
        changes.append(str(model))
    if narrow and (needed := tuple(spec for spec in specs if spec.name in behind.tools)):
        specs = needed
        changes.append("only " + ", ".join(spec.name for spec in needed))
    wanted = (behind.tools if narrow else frozenset()) | drifting
    if (agent.version, str(model)) in not_strict:
        wanted = frozenset()
    tools = to_strict_tools(model.provider, specs, wanted)
    if output is not None and ANSWER in wanted:
        output = strict_form(model.provider, output) or output
    is_strict = tools != specs or output is not agent.output_schema
    return Offer(model, tools, output, is_strict, "; ".join([*changes, "strict"] if is_strict else changes))


def find_streak(agent: Agent, log: Sequence[Message]) -> Streak:
    """Find what was refused in a row at the end of the running job's messages."""
    last = log[-1] if log else None
    if not (isinstance(last, NoteMessage) or (isinstance(last, ToolMessage) and last.is_error)):
        return Streak()  # the usual case: no call has to be checked again
    refusals: list[Refusal] = []
    turns = 0
    replies: list[ToolMessage | NoteMessage] = []
    for message in reversed(log):
        if isinstance(message, UserMessage):
            break
        if not isinstance(message, AssistantMessage):
            replies.append(message)
            continue
        found = _find_refusals(agent, message, replies)
        if not found or not all(found):
            break  # a plain text, or a turn with a valid call or answer
        turns += 1
        refusals += [replace(one, turn=-turns) for one in reversed(found) if one]
        if turns >= MAX_TURNS:
            break
        replies = []
    return Streak(tuple(refusals), turns)


def _find_refusals(agent: Agent, turn: AssistantMessage, replies: Sequence[Message]) -> list[Refusal | None]:
    """For each call of a turn, or for its final answer: why it was refused, or None if it was valid."""
    if turn.tool_calls:
        results = {message.ordinal: message for message in replies if isinstance(message, ToolMessage)}
        return [_find_refusal(agent, call, results.get(ordinal)) for ordinal, call in enumerate(turn.tool_calls)]
    note = next((message for message in replies if isinstance(message, NoteMessage)), None)
    if note is None:
        return []
    if note.refused:
        return [Refusal(ANSWER, note.refused, turn.text)]
    # A note without the field is of an earlier release.
    return [refuse_answer(turn.text, answers.find_problem(agent, turn.text) or answers.CUT_OFF)]


def _find_refusal(agent: Agent, call: ToolCall, result: ToolMessage | None) -> Refusal | None:
    """Why a call was refused, or None if it was valid."""
    if result is not None and result.refused:
        return None if result.refused == "limit" else Refusal(call.name, result.refused, call.raw_arguments)
    checked = agent.toolbox.check(call)
    if isinstance(checked, CheckedCall):
        return None
    if call.name in RUNTIME_TOOLS and not (result and result.is_error):
        return None
    return Refusal(call.name, checked.kind, call.raw_arguments)


def refuse_answer(text: str, bad: answers.BadAnswer) -> Refusal:
    """A refused final answer."""
    return Refusal(ANSWER, bad.kind, text)


def find_failure(before: Streak, now: Sequence[Refusal]) -> Failure | None:
    """The top of the ladder: the failure that ends the job, if it must end. Everything in this turn (`now`) was refused."""
    after = Streak((*now, *before.refusals), before.turns + 1)  # turns before have negative numbers, this one has 0
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
        detail = f"repeated_failure: {one.tool[:64]}: {what}, refused each time ({one.kind}); none of them ran"
        return Failure(kind=FailureKind.FORMAT_ERROR, detail=detail)
    return None
