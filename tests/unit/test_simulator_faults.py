"""Deciding about faults, making damage, and the rate limit: pure functions of what they are given."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestration.errors import ConfigError
from schemas.model import Stop, Usage
from workers.simulator.brain import SPOILED_ID, Call, Conversation, ToolOffer, Turn
from workers.simulator.faults import ALTERING, REFUSING, SPOILING, Fault, Faults, chance
from workers.simulator.ratelimit import RequestBucket
from workers.simulator.spoil import spoil
from workers.simulator.wires.wire import RefusalKind, Reply

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
    "required": ["city"],
}


def test_every_fault_is_a_field_and_every_refusal_has_words() -> None:
    """A fault that is added is at once a probability, and a refusing one is known to every wire."""
    assert set(Fault) <= set(Faults.model_fields)
    assert {RefusalKind(fault) for fault in REFUSING} < set(RefusalKind)
    assert SPOILING < ALTERING
    assert REFUSING.isdisjoint(ALTERING)


def test_a_chaos_string_sets_probabilities_settings_and_scripts() -> None:
    """Names are the fields; `@3` is the third request, `@turn2` the second turn, written twice for two attempts."""
    faults = Faults.parse("rate_limited=0.05, overloaded=0.02,seed=7,once=false,reset@3,hang@turn2,html@turn2")
    assert faults == Faults(
        rate_limited=0.05,
        overloaded=0.02,
        seed=7,
        once=False,
        at_request={3: Fault.RESET},
        at_turn={2: (Fault.HANG, Fault.HTML)},
    )
    assert Faults.parse(faults.model_dump_json()) == faults
    assert Faults.parse("") == Faults()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate_limit=0.1", "did you mean 'rate_limited'"),
        ("rate_limited=2", "less than or equal to 1"),
        ("rate_limited=often", "rate_limited: .*number"),
        ("rate_limited", "expected name=value, fault@3 or fault@turn2, got 'rate_limited'"),
        ("reste@3", r"at_request\.3: .*'reset'"),
        ("rate_limited=0.6,overloaded=0.6", "must not exceed 1 together, got 1.2"),
        ('{"drip_ms": 0}', "drip_ms: .*greater"),
        ("{", "chaos: "),
    ],
)
def test_a_wrong_chaos_string_says_what_is_wrong(text: str, told: str) -> None:
    """Every mistake is a ConfigError that names the place and, where there is one, the word that was meant."""
    with pytest.raises(ConfigError, match=told):
        Faults.parse(text)


def test_chance_is_a_function_of_its_words() -> None:
    """The same words give the same number; over many words it is evenly spread."""
    drawn = [chance(1, "conversation", turn) for turn in range(2_000)]
    assert drawn == [chance(1, "conversation", turn) for turn in range(2_000)]
    assert all(0 <= number < 1 for number in drawn)
    assert 0.47 < sum(drawn) / len(drawn) < 0.53


def test_faults_happen_as_often_as_asked() -> None:
    """Over many turns, the share of each fault is its probability."""
    faults = Faults(rate_limited=0.1, hang=0.05, unknown_tool=0.2, seed=3)
    drawn = [faults.drawn("conversation", turn, 1, 0) for turn in range(1, 4_001)]
    assert set(drawn) == {None, Fault.RATE_LIMITED, Fault.HANG, Fault.UNKNOWN_TOOL}
    assert abs(drawn.count(Fault.RATE_LIMITED) / 4_000 - 0.1) < 0.02
    assert abs(drawn.count(Fault.UNKNOWN_TOOL) / 4_000 - 0.2) < 0.02


def test_once_bounds_the_faults_of_a_turn() -> None:
    """After `max_faults_per_turn` faults chance leaves the turn alone, unless `once` is off."""
    faults = Faults(reset=1.0, max_faults_per_turn=2)
    assert [faults.drawn("c", 1, attempt, attempt - 1) for attempt in (1, 2, 3)] == [Fault.RESET, Fault.RESET, None]
    assert faults.model_copy(update={"once": False}).drawn("c", 1, 9, 8) is Fault.RESET


def test_scripted_faults_go_by_request_then_by_turn() -> None:
    """A request's own fault wins over that of its turn; beyond its list a turn has none."""
    faults = Faults.parse("reset@5,hang@turn2,html@turn2")
    assert faults.scripted(request=5, turn=2, attempt=1) is Fault.RESET
    assert faults.scripted(request=1, turn=2, attempt=1) is Fault.HANG
    assert faults.scripted(request=1, turn=2, attempt=2) is Fault.HTML
    assert faults.scripted(request=1, turn=2, attempt=3) is None
    assert faults.scripted(request=1, turn=1, attempt=1) is None


def reply_with(*calls: Call) -> Reply:
    """A reply that makes these calls."""
    return Reply("seed", "model", "", calls, Stop.TOOLS, Usage())


def conversation(wire: str = "openai-chat", schema: dict[str, Any] = SCHEMA) -> Conversation:
    """One user turn, one tool."""
    return Conversation(wire, "model", "", (Turn("user", "hi"),), (ToolOffer("weather", "", schema),))


WEATHER = Call("call_1", "weather", '{"city":"Rome","unit":"C","days":2}')


@pytest.mark.parametrize("wire", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("seed", range(20))
def test_damage_is_always_detectable(wire: str, seed: int) -> None:
    """Whatever the seed, malformed and invalid arguments are refused by a parser or by the schema."""
    for fault in (Fault.MALFORMED_ARGUMENTS, Fault.INVALID_ARGUMENTS):
        spoiled = spoil(fault, reply_with(WEATHER), conversation(wire), seed)
        assert spoiled is not None
        (call,) = spoiled.calls
        assert call.id.endswith(SPOILED_ID)
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            assert fault is Fault.MALFORMED_ARGUMENTS
            assert wire == "openai-chat"
        else:
            assert not Draft202012Validator(SCHEMA).is_valid(arguments)


def test_damage_that_nobody_could_detect_is_not_done() -> None:
    """A schema that accepts everything, or one that can't be used, has no invalid arguments; text has no call."""
    for schema in ({}, {"type": "dict"}, {"$ref": "https://example.com/schema.json"}):
        assert spoil(Fault.INVALID_ARGUMENTS, reply_with(WEATHER), conversation(schema=schema), 1) is None
    assert spoil(Fault.UNKNOWN_TOOL, reply_with(), conversation(), 1) is None


def test_a_reply_that_was_cut_off_used_all_its_tokens() -> None:
    """A length stop with few tokens would mean a full window; this one says that the output limit was reached."""
    asked = replace(conversation(), max_output_tokens=500)
    spoiled = spoil(Fault.CUT_OFF, reply_with(WEATHER), asked, 1)
    assert spoiled is not None
    assert spoiled.stop is Stop.LENGTH
    assert spoiled.usage is not None
    assert spoiled.usage.output_tokens == 500


def test_a_repeated_id_is_that_of_an_earlier_call() -> None:
    """With a history, the new call takes the id of a call that is already answered."""
    asked = Turn("assistant", "", (Call("call_old", "weather", "{}"),))
    earlier = Conversation(
        "openai-chat", "model", "", (Turn("user", "hi"), asked, Turn("tool", "", call=asked.calls[0]))
    )
    spoiled = spoil(Fault.REPEATED_ID, reply_with(WEATHER), earlier, 1)
    assert spoiled is not None
    assert spoiled.calls[0] == Call("call_old", "weather", WEATHER.arguments)


def test_the_bucket_says_when_there_is_room() -> None:
    """A full bucket gives its capacity at once; then the wait is the time until one request has dripped in."""
    bucket = RequestBucket.full(per_minute=60, capacity=2, now_s=0.0)
    assert [bucket.withdraw(0.0), bucket.withdraw(0.0)] == [0.0, 0.0]
    assert bucket.withdraw(0.25) == pytest.approx(0.75)
    assert bucket.withdraw(1.0) == 0.0
    assert bucket.state().remaining == 0
    assert bucket.state().reset_s == pytest.approx(2.0)
    assert bucket.withdraw(1_000.0) == 0.0
    assert bucket.state().remaining == 1
