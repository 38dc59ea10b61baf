"""The ladder for refused calls. Each rung follows from the conversation alone."""

from __future__ import annotations

import json

import pytest

from midwatch import Agent, Escalation, RetryConfig, tool
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
    """A model that makes the given calls, one a turn, and stores its requests."""

    name = "scripted"

    def __init__(self, *turns: object) -> None:
        self.turns = list(turns)
        self.requests: list[ModelRequest] = []

    def complete(self, request: ModelRequest) -> ModelReply:
        """The next turn. The last one repeats."""
        self.requests.append(request)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        usage = Usage(input_tokens=100, output_tokens=10)
        if isinstance(turn, str):
            return ModelReply(parts=(Text(text=turn),), stop=Stop.END, usage=usage, model="m")
        calls = tuple(ToolCall(id=f"c{n}", name=name, raw_arguments=raw) for n, (name, raw) in enumerate(turn))
        return ModelReply(parts=calls, stop=Stop.TOOLS, usage=usage, model="m")

    def count(self, request: ModelRequest) -> None:
        """This model has no token counter."""


def played(model: Caller, **policies: object) -> tuple[InlineFleet, str]:
    agent = Agent("clerk", MODEL, "Help.", [execute_sql, now], **policies)  # type: ignore[arg-type]
    fleet = InlineFleet(agent, model=model)
    return fleet, fleet.enqueue(agent, "Count the rows.")


EMPTY = [("execute_sql", "{}")]


def test_the_third_identical_call_ends_the_job() -> None:
    """A real model made the same empty call 99 times. Here the third is the last, and nothing ran."""
    model = Caller(*[EMPTY] * 99)
    fleet, job = played(model)
    result = fleet.run(job)
    assert (result.status, len(model.requests)) == ("dead_lettered", 3)
    assert result.failure is not None
    assert result.failure.detail == (
        "repeated_failure: execute_sql: the same call 3 times in a row, refused each time (schema); none of them ran"
    )


@pytest.mark.parametrize("count", [3, 5, 13])
@pytest.mark.parametrize("template", ["{}", '{"sql": %d}'])
def test_parallel_calls_with_one_mistake_are_corrected(template: str, count: int) -> None:
    """The model had no error before it made them. The job ended without one, although its next turn was right."""
    calls = [("execute_sql", template % n if "%" in template else template) for n in range(count)]
    fleet, job = played(Caller(calls, "Done."))
    assert fleet.run(job).output == "Done."


def test_parallel_calls_count_once_for_each_turn() -> None:
    """Their number does not end a job earlier, nor later."""
    model = Caller(*[[("execute_sql", json.dumps({"sql": [turn, n]})) for n in range(4)] for turn in range(9)])
    fleet, job = played(model)
    assert (fleet.run(job).status, len(model.requests)) == ("dead_lettered", 5)
    model = Caller(*[EMPTY * 4] * 9)
    fleet, job = played(model)
    assert (fleet.run(job).status, len(model.requests)) == ("dead_lettered", 3)


def test_the_fifth_refused_call_of_one_kind_ends_the_job() -> None:
    """The arguments differ each time, but are wrong in the same way."""
    model = Caller(*[[("execute_sql", json.dumps({"sql": n}))] for n in range(9)])
    fleet, job = played(model)
    assert (fleet.run(job).status, len(model.requests)) == ("dead_lettered", 5)


def test_retry_on_does_not_repeat_what_the_ladder_has_given_up() -> None:
    """With `format_error` in `retry_on`, the third identical call still ends the job: a retry would ask the same again."""
    model = Caller(EMPTY)
    fleet, job = played(model, retry_config=RetryConfig(retry_on=["format_error"]))
    assert (fleet.run(job).status, len(model.requests)) == ("dead_lettered", 3)


def test_a_rule_for_one_tool_leaves_the_repeated_failures_of_others() -> None:
    """`Escalation("repeated_failure", tools=[...])` asks a human only if one of these tools was called in vain."""
    for tools, status in ((["execute_sql"], "parked"), (["now"], "dead_lettered")):
        fleet, job = played(Caller(EMPTY), escalation=[Escalation(when="repeated_failure", tools=tools)])
        assert fleet.run(job).status == status


def test_a_valid_call_ends_the_streak() -> None:
    """Valid calls of the same turn run, and then the turn does not count as refused."""
    wrong = [("execute_sql", json.dumps({"sql": "x"})), ("now", "{}")]
    model = Caller(wrong, wrong, wrong, wrong, wrong, wrong, "Done.")
    fleet, job = played(model)
    assert fleet.run(job).output == "Done."
    assert sum(message.role == "tool" and message.content == "noon" for message in fleet.messages(job)) == 6


def test_the_rungs() -> None:
    """The error; an example; only the needed tool; a stronger model."""
    model = Caller(
        *[[("execute_sql", json.dumps({"sql": n}))] for n in range(4)], [("execute_sql", '{"query":"a"}')], "Done."
    )
    fleet, job = played(model, fallback_models=[STRONG])
    assert fleet.run(job).output == "Done."
    told = [message.content for message in fleet.messages(job) if message.role == "tool"]
    assert "An example that passes" not in told[0]
    assert 'An example that passes: {"query": "text"}' in told[1]
    assert [len(request.tools) for request in model.requests] == [2, 2, 2, 1, 1, 2]
    assert [request.tools[0].strict for request in model.requests] == [False, False, False, True, True, False]
    said_by = [message.provider for message in fleet.messages(job) if message.role == "assistant"]
    assert said_by == ["openai", "openai", "openai", "openai", "anthropic", "openai"]
    asked = [record.asked for record in fleet.trace(job) if record.kind == "model"]
    assert asked == ["", "", "", "only execute_sql; strict", f"{STRONG}; only execute_sql; strict", ""]
    assert [request.model for request in model.requests] == [
        *["gpt-5-2025-08-07"] * 4,
        "claude-sonnet-4-6",
        "gpt-5-2025-08-07",
    ]


def test_an_identical_call_climbs_one_rung_faster() -> None:
    """After two identical calls only the needed tool is offered. The message says that the call was the same."""
    model = Caller(EMPTY, EMPTY, [("execute_sql", '{"query":"a"}')], "Done.")
    fleet, job = played(model)
    assert fleet.run(job).output == "Done."
    told = [message.content for message in fleet.messages(job) if message.role == "tool"]
    assert "You sent exactly this before" in told[1]
    assert [len(request.tools) for request in model.requests] == [2, 2, 1, 2]


def test_with_an_escalation_the_job_is_parked_instead() -> None:
    """A human decides, and there is no dead letter yet."""
    fleet, job = played(Caller(EMPTY), escalation=[Escalation(when="repeated_failure")])
    assert fleet.run(job).status == "parked"


def test_a_rejection_of_repeated_failures_ends_the_job() -> None:
    """The dead letter has the human's words. Its replay calls the model again, and asks again."""
    fleet, job = played(Caller(EMPTY), escalation=[Escalation(when="repeated_failure")])
    fleet.run(job)
    fleet.operations.decide(job, approve=False, reason="it is stuck")
    result = fleet.run(job)
    assert (result.status, result.failure and result.failure.kind) == ("dead_lettered", "format_error")
    assert result.failure
    assert result.failure.detail.endswith("a human decided that it does not go on: it is stuck")
    assert fleet.operations.replay(job)
    assert fleet.run(job).status == "parked"


def test_repeated_failures_on_which_no_one_decides_end_the_job() -> None:
    """`on_expiry="reject"` is a rejection, without a human."""
    rule = Escalation(when="repeated_failure", expires_s=60.0)
    fleet, job = played(Caller(EMPTY), escalation=[rule])
    assert fleet.run(job).status == "parked"
    fleet.clock.advance(60_000)
    result = fleet.run(job)
    assert result.status == "dead_lettered"
    assert result.failure
    assert result.failure.detail.endswith("no decision was made within 60 s")


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
    """The example has only the required properties, and is not shown if it is invalid."""
    validator = JSONSchemaValidator(schema)
    found = make_example(validator)
    assert found is not None
    assert validator.problems(json.loads(found)) == ()


def test_there_is_no_example_for_a_pattern() -> None:
    """A text that matches a pattern can't be guessed, and no example is better than a wrong one."""
    schema = {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["zip"]}
    assert make_example(JSONSchemaValidator(schema)) is None


def test_drift_rows_add_up() -> None:
    """Counters of all hours and partitions are added up. The worst row comes first."""
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
