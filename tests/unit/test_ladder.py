"""The ladder: what follows calls that do not pass, read off the conversation alone."""

from __future__ import annotations

import json

import pytest

from midwatch import Agent, Escalation, tool
from midwatch.orchestration.drift.counts import band, call_field, drift_rows, invalid_field
from midwatch.orchestration.drift.examples import make_example
from midwatch.schemas.message import Text, ToolCall
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.testing import InlineFleet
from midwatch.validators import JSONSchemaValidator

MODEL = "openai:gpt-5-2025-08-07"
STRONG = "anthropic:claude-sonnet-4-6"


@tool
def execute_sql(query: str) -> str:
    """Run a query.

    Args:
        query: The SQL text.

    """
    return f"ran {query}"


@tool
def now() -> str:
    """The time."""
    return "noon"


class Caller:
    """Makes the calls it is given, one turn each, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, *turns: object) -> None:
        self.turns = list(turns)
        self.asked: list[ModelRequest] = []

    def complete(self, request: ModelRequest) -> ModelReply:
        """The next turn; the last one for ever."""
        self.asked.append(request)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        usage = Usage(input_tokens=100, output_tokens=10)
        if isinstance(turn, str):
            return ModelReply(parts=(Text(text=turn),), stop=Stop.END, usage=usage, model="m")
        calls = tuple(ToolCall(id=f"c{n}", name=name, raw_arguments=raw) for n, (name, raw) in enumerate(turn))
        return ModelReply(parts=calls, stop=Stop.TOOLS, usage=usage, model="m")

    def count(self, request: ModelRequest) -> None:
        """Nobody counts."""


def played(model: Caller, **policies: object) -> tuple[InlineFleet, str]:
    agent = Agent("clerk", MODEL, "Help.", [execute_sql, now], **policies)  # type: ignore[arg-type]
    fleet = InlineFleet(agent, model=model)
    return fleet, fleet.enqueue(agent, "Count the rows.")


EMPTY = [("execute_sql", "{}")]


def test_the_same_empty_call_99_times_is_made_three_times() -> None:
    """As a real model did it: the third identical call is the last, its end says so, and nothing ran."""
    model = Caller(*[EMPTY] * 99)
    fleet, job = played(model)
    result = fleet.run(job)
    assert (result.status, len(model.asked)) == ("dead_lettered", 3)
    assert result.failure is not None
    assert result.failure.detail == (
        "repeated_failure: execute_sql: the same call 3 times in a row, refused each time (schema); nothing of it ran"
    )


def test_five_calls_of_a_kind_are_the_last() -> None:
    """With other arguments each time, all of them wrong in the same way."""
    model = Caller(*[[("execute_sql", json.dumps({"sql": n}))] for n in range(9)])
    fleet, job = played(model)
    assert (fleet.run(job).status, len(model.asked)) == ("dead_lettered", 5)


def test_a_call_that_passes_ends_the_streak() -> None:
    """Valid sibling calls run, and a turn with one of them is no failure."""
    wrong = [("execute_sql", json.dumps({"sql": "x"})), ("now", "{}")]
    model = Caller(wrong, wrong, wrong, wrong, wrong, wrong, "Done.")
    fleet, job = played(model)
    assert fleet.run(job).output == "Done."
    assert sum(message.role == "tool" and message.content == "noon" for message in fleet.messages(job)) == 6


def test_the_rungs() -> None:
    """Told; told with an example; offered only the tool it needs; a stronger model."""
    model = Caller(
        *[[("execute_sql", json.dumps({"sql": n}))] for n in range(4)], [("execute_sql", '{"query":"a"}')], "Done."
    )
    fleet, job = played(model, fallback_models=[STRONG])
    assert fleet.run(job).output == "Done."
    told = [message.content for message in fleet.messages(job) if message.role == "tool"]
    assert "An example that passes" not in told[0]
    assert 'An example that passes: {"query": "text"}' in told[1]
    assert [len(request.tools) for request in model.asked] == [2, 2, 2, 1, 1, 2]
    assert [request.tools[0].strict for request in model.asked] == [False, False, False, True, True, False]
    said_by = [message.provider for message in fleet.messages(job) if message.role == "assistant"]
    assert said_by == ["openai", "openai", "openai", "openai", "anthropic", "openai"]
    asked = [record.asked for record in fleet.trace(job) if record.kind == "model"]
    assert asked == ["", "", "", "only execute_sql; strict", f"{STRONG}; only execute_sql; strict", ""]
    assert [request.model for request in model.asked] == [
        *["gpt-5-2025-08-07"] * 4,
        "claude-sonnet-4-6",
        "gpt-5-2025-08-07",
    ]


def test_a_repeated_call_climbs_faster_and_is_told_so() -> None:
    """The second time already, only the tool it needs is offered."""
    model = Caller(EMPTY, EMPTY, [("execute_sql", '{"query":"a"}')], "Done.")
    fleet, job = played(model)
    assert fleet.run(job).output == "Done."
    told = [message.content for message in fleet.messages(job) if message.role == "tool"]
    assert "You sent exactly this before" in told[1]
    assert [len(request.tools) for request in model.asked] == [2, 2, 1, 2]


def test_a_human_is_asked_where_the_agent_says_so() -> None:
    """Parked instead of dead."""
    fleet, job = played(Caller(EMPTY), escalation=[Escalation(when="repeated_failure")])
    assert fleet.run(job).status == "parked"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}, "on": {"type": "string", "format": "date"}},
         "required": ["n", "on"]},
        {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "ids": {"type": "array", "items": {"type": "string"},
         "minItems": 2}}, "required": ["kind", "ids"]},
        {"type": "object", "$defs": {"p": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
         "properties": {"p": {"$ref": "#/$defs/p"}}, "required": ["p"]},
        {"type": "object", "properties": {"v": {"anyOf": [{"type": "string", "minLength": 9}, {"type": "null"}]}},
         "required": ["v"]},
    ],
)  # fmt: skip
def test_an_example_passes_its_schema(schema: dict[str, object]) -> None:
    """Made of what is required, and never shown when it does not pass."""
    validator = JSONSchemaValidator(schema)
    found = make_example(validator)
    assert found is not None
    assert validator.problems(json.loads(found)) == ()


def test_no_example_is_better_than_a_wrong_one() -> None:
    """A pattern can't be guessed."""
    schema = {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["zip"]}
    assert make_example(JSONSchemaValidator(schema)) is None


def test_drift_rows_add_up() -> None:
    """Over hours and partitions; the worst first."""
    model = "anthropic:claude-sonnet-4-6"
    counters = [
        (call_field(model, "a", 60_000), 90), (invalid_field(model, "a", 60_000, "schema"), 6),
        (invalid_field(model, "a", 60_000, "bad_json"), 3), (call_field(model, "a", 60_000), 10),
        (call_field(model, "b", 1), 50),
    ]  # fmt: skip
    worst, best = drift_rows(counters)
    assert (worst.tool, worst.band, worst.calls, worst.invalid, worst.rate) == ("a", "50k-100k", 100, 9, 0.09)
    assert worst.kinds == {"schema": 6, "bad_json": 3}
    assert (best.tool, best.rate) == ("b", 0.0)
    assert [band(n) for n in (0, 10_000, 50_000, 100_000)] == ["under 10k", "10k-50k", "50k-100k", "over 100k"]
