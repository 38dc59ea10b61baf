"""Check a final answer: it must not be empty or cut off, and it must satisfy `output_schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain

AnswerKind = Literal["cut_off", "empty", "bad_json", "schema"]


@dataclass(frozen=True)
class BadAnswer:
    """Why an answer is refused: the kind of problem, and the message to the model."""

    kind: AnswerKind
    message: str


CUT_OFF = BadAnswer("cut_off", "Your answer was cut off at the output limit. Give it again, shorter.")
EMPTY = BadAnswer("empty", "Your answer was empty. Answer the user now, in words.")


def find_problem(agent: Agent, text: str) -> BadAnswer | None:
    """Find what is wrong with a complete answer. With an `output_schema`, the answer is decoded as strictly as arguments."""
    if not text.strip():
        return EMPTY
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
