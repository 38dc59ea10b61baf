"""Check a final answer: it must not be empty, cut off, thinking, or a tool call, and it must satisfy `output_schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.drift.leftovers.calls_in_text import holds_call
from midwatch.orchestration.drift.leftovers.thinking import is_only_thinking
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain

AnswerKind = Literal["cut_off", "empty", "bad_json", "schema", "call_in_text", "thinking"]


@dataclass(frozen=True)
class BadAnswer:
    """Why an answer is refused: the kind of problem, and the message to the model."""

    kind: AnswerKind
    message: str


CUT_OFF = BadAnswer("cut_off", "Your answer was cut off at the output limit. Give it again, shorter.")
EMPTY = BadAnswer("empty", "Your answer was empty. Answer the user now, in words.")


THINKING = BadAnswer("thinking", "Your reply held only thinking and no answer. Answer the user now, in words.")
CALL_IN_TEXT = BadAnswer(
    "call_in_text",
    "Your answer holds a tool call that is written as text, so nothing was run. To use a tool, make a real tool call. "
    "Otherwise answer the user in words, without the call.",
)


def find_problem(agent: Agent, text: str) -> BadAnswer | None:
    """Find what is wrong with a complete answer. With an `output_schema`, the answer is decoded as strictly as arguments."""
    if not text.strip():
        return EMPTY
    bad = _check_schema(agent, text)
    if agent.output_validator is not None and bad is None:
        return None
    if is_only_thinking(text):
        return THINKING
    return CALL_IN_TEXT if holds_call(text, agent.toolbox) else bad


def _check_schema(agent: Agent, text: str) -> BadAnswer | None:
    if agent.output_validator is None:
        return None
    try:
        value = parse_arguments(text, has_required=True)
    except InvalidArguments as error:
        return _bad_answer("bad_json", error.message.replace("The arguments are", "It is", 1))
    found = agent.output_validator.problems(value)
    return _bad_answer("schema", explain(found, agent.output_validator.schema)) if found else None


def _bad_answer(kind: AnswerKind, what: str) -> BadAnswer:
    return BadAnswer(kind, f"Your final answer does not satisfy the required schema. {what} Answer with JSON only.")
