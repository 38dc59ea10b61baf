"""What follows a call that did not pass: told, told with an example, narrowed, a stronger model, the end.

Read off the conversation itself, so it holds whichever worker has the step and survives every crash. A real model made the
same empty call 99 times in a row, for 2.7 million tokens; here the third identical one is the last, and so is the fifth of
a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.agent import Agent
from orchestration.modelnames import ModelName
from orchestration.tools import CheckedCall
from schemas.failure import Failure, FailureKind
from schemas.message import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

MAX_OF_A_KIND = 5
"""Refused calls in a row of one tool, for one kind of reason."""

MAX_IDENTICAL = 3
"""Refused calls in a row with the same arguments to the letter."""

EXAMPLE_AT, NARROW_AT, STRONGER_AT = 2, 3, 4
"""From which refused turn in a row the model is shown an example, offered only the tools it needs, replaced by a stronger one."""


@dataclass(frozen=True)
class Refusal:
    """One refused call."""

    tool: str
    kind: str
    raw_arguments: str


@dataclass(frozen=True)
class Streak:
    """Refused calls since the last one that passed, newest first, and how many turns they were made in."""

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


def streak(agent: Agent, log: Sequence[Message]) -> Streak:
    """The refused calls at the end of the running job's part of the conversation."""
    if not log or not isinstance(log[-1], ToolMessage) or not log[-1].is_error:
        return Streak()  # the usual case, and nothing is checked twice for it
    refusals: list[Refusal] = []
    turns = 0
    for message in reversed(log):
        if isinstance(message, UserMessage):
            break
        if not isinstance(message, AssistantMessage):
            continue
        found = [refused(agent, call) for call in message.tool_calls]
        if not found or not all(found):
            break  # something was said, or passed
        turns += 1
        refusals += [one for one in reversed(found) if one]
        if len(refusals) >= 4 * MAX_OF_A_KIND:
            break
    return Streak(tuple(refusals), turns)


def refused(agent: Agent, call: ToolCall) -> Refusal | None:
    """Why a call does not pass; None when it does. The runtime's own tools always do."""
    checked = agent.toolbox.check(call)
    if isinstance(checked, CheckedCall) or call.name in RUNTIMES_OWN:
        return None
    return Refusal(call.name, checked.kind, call.raw_arguments)


RUNTIMES_OWN = ("read_result", "recall")


def end(before: Streak, now: Sequence[Refusal]) -> Failure | None:
    """The top of the ladder: why the job ends here, when every call of this turn (`now`) was refused, too."""
    after = Streak((*now, *before.refusals), before.turns + 1)
    for one in now:
        if after.identical(one) >= MAX_IDENTICAL:
            what = f"the same call {after.identical(one)} times in a row"
        elif after.of_a_kind(one) >= MAX_OF_A_KIND:
            what = f"{after.of_a_kind(one)} calls in a row"
        else:
            continue
        detail = f"repeated_failure: {one.tool[:64]}: {what}, refused each time ({one.kind}); nothing of it ran"
        return Failure(kind=FailureKind.FORMAT_ERROR, detail=detail)
    return None


def model_for(agent: Agent, rung: int) -> ModelName:
    """Who is asked: the agent's model, or the first of its fallbacks when it could not make its calls."""
    return agent.fallback_models[0] if rung >= STRONGER_AT and agent.fallback_models else agent.model
