"""The ladder for refused final answers. It has the same rungs as for calls."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from midwatch import Agent, Escalation, RetryConfig, tool
from midwatch.orchestration.drift.counts import drift_rows
from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import NoteMessage, Text
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.testing import InlineFleet

MODEL, STRONG = "openai:gpt-5-2025-08-07", "anthropic:claude-sonnet-4-6"


class Verdict(BaseModel):
    order: str
    days: int = 0


@tool
def now() -> str:
    """The time."""
    return "noon"


class Sayer:
    """A model that gives the given answers and stores its requests. It can refuse strict schemas."""

    name = "scripted"

    def __init__(self, *answers: str, takes_strict: bool = True) -> None:
        self.answers = list(answers)
        self.takes_strict = takes_strict
        self.requests: list[ModelRequest] = []

    def complete(self, request: ModelRequest) -> ModelReply:
        """The next answer. The last one repeats. A `…` at the end means that it is cut off."""
        self.requests.append(request)
        if not self.takes_strict and (request.output_schema or {}).get("additionalProperties") is False:
            raise ModelError(Failure(kind=FailureKind.FORMAT_ERROR, detail="400 grammar too large"))
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        stop = Stop.LENGTH if said.endswith("…") else Stop.END
        return ModelReply(
            parts=(Text(text=said),), stop=stop, usage=Usage(input_tokens=100, output_tokens=9), model="m"
        )

    def count(self, request: ModelRequest) -> None:
        """This model has no token counter."""


def played(model: Sayer, **policies: object) -> tuple[InlineFleet, str]:
    agent = Agent("judge", MODEL, "Judge.", [now], output_schema=Verdict, **policies)  # type: ignore[arg-type]
    fleet = InlineFleet(agent, model=model)
    return fleet, fleet.enqueue(agent, "Which order?")


def notes(fleet: InlineFleet, job: str) -> list[str]:
    return [message.text for message in fleet.messages(job) if isinstance(message, NoteMessage)]


GOOD = '{"order": "W1", "days": 2}'


def test_the_rungs():
    """The error; an example; the schema in its strict form; a stronger model."""
    model = Sayer("soon", "W1", '{"order": 1}', "[]", GOOD)
    fleet, job = played(model, fallback_models=[STRONG])
    assert fleet.run(job).output == GOOD
    said = notes(fleet, job)
    assert "It is not valid JSON" in said[0]
    assert "An example that passes" not in said[0]
    assert 'An example that passes: {"order": "text"}' in said[1]
    assert "/order: expected string" in said[2]
    closed = [request.output_schema.get("additionalProperties") is False for request in model.requests]
    assert closed == [False, False, False, True, True]
    assert model.requests[3].output_schema["required"] == ["order", "days"]
    assert [request.model for request in model.requests] == ["gpt-5-2025-08-07"] * 4 + ["claude-sonnet-4-6"]
    assert [record.asked for record in fleet.trace(job)] == ["", "", "", "strict", f"{STRONG}; strict"]


@pytest.mark.parametrize(
    ("answers", "turns", "detail"),
    [
        (["soon"], 3, "bad_json: the same final answer 3 times in a row, none of them acceptable"),
        ([f"in {n} days" for n in range(9)], 5, "bad_json: 5 final answers in a row, none of them acceptable"),
        ([""], 3, "empty: the same final answer 3 times in a row, none of them acceptable"),
        ([f'{{"order": {n}…' for n in range(9)], 5, "cut_off: 5 final answers in a row, none of them acceptable"),
        ([json.dumps({"order": n}) for n in range(9)], 5, "schema: 5 final answers in a row, none of them acceptable"),
    ],
)  # fmt: skip
def test_repeated_bad_answers_end_the_job(answers, turns, detail):
    """The third identical answer, or the fifth of one kind, ends the job as `output_invalid`. The turns count as drift."""
    model = Sayer(*answers)
    fleet, job = played(model)
    result = fleet.run(job)
    assert (result.status, result.failure.kind, len(model.requests)) == ("dead_lettered", "output_invalid", turns)
    assert result.failure.detail == detail
    (row,) = drift_rows((name, count) for (_, name), count in fleet.store.drift_counters(2).items())
    assert (row.tool, row.calls, row.invalid) == ("(answer)", turns, turns)


def test_retry_on_does_not_repeat_what_the_ladder_has_given_up():
    """With `output_invalid` in `retry_on`, the third identical answer still ends the job."""
    model = Sayer("soon")
    fleet, job = played(model, retry_config=RetryConfig(retry_on=["output_invalid"]))
    assert (fleet.run(job).status, len(model.requests)) == ("dead_lettered", 3)


def test_a_strict_form_that_is_refused_is_left_out():
    """If the provider answers 400, the same step calls the model without the strict form. This worker never sends it again."""
    model = Sayer("soon", "W1", '{"order": 1}', "[]", GOOD, takes_strict=False)
    fleet, job = played(model)
    assert fleet.run(job).output == GOOD
    assert [record.outcome for record in fleet.trace(job)] == ["continue"] * 4 + ["complete"]
    closed = [request.output_schema.get("additionalProperties") is False for request in model.requests]
    assert closed == [False, False, False, True, False, False]


def test_a_duplicate_property_is_refused():
    """As in a call, a property that is given twice is refused, since either value could be meant."""
    model = Sayer('{"order": "W1", "order": "W2", "days": 1}', GOOD)
    fleet, job = played(model)
    assert fleet.run(job).output == GOOD
    assert 'The property "order" is given more than once' in notes(fleet, job)[0]


def test_with_an_escalation_the_job_is_parked_instead():
    """A human decides, and there is no dead letter yet."""
    fleet, job = played(Sayer("soon"), escalation=[Escalation(when="repeated_failure")])
    assert fleet.run(job).status == "parked"
