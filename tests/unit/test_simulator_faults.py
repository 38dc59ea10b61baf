"""Choosing faults, spoiling replies, and the rate limits, without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import SPOILED_ID, Conversation, ConversationTurn, SimulatedCall, ToolOffer
from midwatch.workers.simulator.faults.faults import ALTERING, MISREPORTING, REFUSING, SPOILING, Fault, Faults, chance
from midwatch.workers.simulator.faults.spoiled_replies import spoil
from midwatch.workers.simulator.rate_limit import Bucket, RateLimit
from midwatch.workers.simulator.vendor_formats.vendor_format import RefusalKind, Reply

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
    "required": ["city"],
}


def test_every_fault_is_a_field() -> None:
    """Each fault has a probability in `Faults`, and each refusing fault has a RefusalKind."""
    assert set(Fault) <= set(Faults.model_fields)
    assert {RefusalKind(fault) for fault in REFUSING} < set(RefusalKind)
    assert SPOILING < ALTERING
    assert MISREPORTING < ALTERING
    assert REFUSING.isdisjoint(ALTERING)


def test_a_chaos_string_sets_probabilities_settings_and_scripts() -> None:
    """`name=value` sets a field, `@3` is the third request, and `@turn2` is the second turn, written twice for two attempts."""
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
    ("text", "message"),
    [
        ("rate_limit=0.1", "did you mean 'rate_limited'"),
        ("rate_limited=2", "less than or equal to 1"),
        ("rate_limited=often", "rate_limited: .*number"),
        ("rate_limited", "expected name=value, fault@3 or fault@turn2, got 'rate_limited'"),
        ("reste@3", r"at_request\.3: .*'reset'"),
        ("rate_limited=0.6,overloaded=0.6", "must not exceed 1, got 1.2"),
        ('{"drip_ms": 0}', "drip_ms: .*greater"),
        ("outage=overloaded", "set both outage"),
        ("outage_s=60", "set both outage"),
        ("outage=slow,outage_s=60", "outage: expected one of auth_error, .*, got slow"),
        ("{", "chaos: "),
    ],
)
def test_a_wrong_chaos_string_says_what_is_wrong(text: str, message: str) -> None:
    """A mistake is a ConfigError that names the place, and suggests the nearest name if there is one."""
    with pytest.raises(ConfigError, match=message):
        Faults.parse(text)


def test_chance_is_a_function_of_its_words() -> None:
    """The same words give the same number. The numbers of many words are uniformly distributed."""
    drawn = [chance(1, "conversation", turn) for turn in range(2_000)]
    assert drawn == [chance(1, "conversation", turn) for turn in range(2_000)]
    assert all(0 <= number < 1 for number in drawn)
    assert 0.47 < sum(drawn) / len(drawn) < 0.53


def test_faults_happen_with_their_probability() -> None:
    """Over many turns, the share of each fault is near its probability."""
    faults = Faults(rate_limited=0.1, hang=0.05, unknown_tool=0.2, seed=3)
    drawn = [faults.draw("conversation", turn, 1, 0) for turn in range(1, 4_001)]
    assert set(drawn) == {None, Fault.RATE_LIMITED, Fault.HANG, Fault.UNKNOWN_TOOL}
    assert abs(drawn.count(Fault.RATE_LIMITED) / 4_000 - 0.1) < 0.02
    assert abs(drawn.count(Fault.UNKNOWN_TOOL) / 4_000 - 0.2) < 0.02


def test_once_limits_the_faults_of_a_turn() -> None:
    """After `max_faults_per_turn` faults, a turn has no more random faults, unless `once` is off."""
    faults = Faults(reset=1.0, max_faults_per_turn=2)
    assert [faults.draw("c", 1, attempt, attempt - 1) for attempt in (1, 2, 3)] == [Fault.RESET, Fault.RESET, None]
    assert faults.model_copy(update={"once": False}).draw("c", 1, 9, 8) is Fault.RESET


def test_fault_of_a_request_wins_over_its_turn() -> None:
    """The fault of a request number wins over that of a turn. After the end of its list, a turn has no fault."""
    faults = Faults.parse("reset@5,hang@turn2,html@turn2")
    assert faults.find_scripted(request=5, turn=2, attempt=1) is Fault.RESET
    assert faults.find_scripted(request=1, turn=2, attempt=1) is Fault.HANG
    assert faults.find_scripted(request=1, turn=2, attempt=2) is Fault.HTML
    assert faults.find_scripted(request=1, turn=2, attempt=3) is None
    assert faults.find_scripted(request=1, turn=1, attempt=1) is None


def reply_with(*calls: SimulatedCall) -> Reply:
    """Make a reply with these calls."""
    return Reply("seed", "model", "", calls, Stop.TOOLS, Usage())


def conversation(format_name: str = "openai-chat", schema: dict[str, Any] = SCHEMA) -> Conversation:
    """Make a conversation with one user turn and one tool."""
    return Conversation(
        format_name, "model", "", (ConversationTurn("user", "hi"),), (ToolOffer("weather", "", schema),)
    )


WEATHER = SimulatedCall("call_1", "weather", '{"city":"Rome","unit":"C","days":2}')


@pytest.mark.parametrize("format_name", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("seed", range(20))
def test_damage_is_always_detectable(format_name: str, seed: int) -> None:
    """For every seed, a parser or the schema refuses malformed and invalid arguments."""
    for fault in (Fault.MALFORMED_ARGUMENTS, Fault.INVALID_ARGUMENTS):
        spoiled = spoil(fault, reply_with(WEATHER), conversation(format_name), seed)
        assert spoiled is not None
        (call,) = spoiled.calls
        assert call.id.endswith(SPOILED_ID)
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            assert fault is Fault.MALFORMED_ARGUMENTS
            assert format_name == "openai-chat"
        else:
            assert not Draft202012Validator(SCHEMA).is_valid(arguments)


def test_undetectable_damage_is_not_done() -> None:
    """A reply is not spoiled if the schema accepts everything or can't be used, or if the reply has no call."""
    for schema in ({}, {"type": "dict"}, {"$ref": "https://example.com/schema.json"}):
        assert spoil(Fault.INVALID_ARGUMENTS, reply_with(WEATHER), conversation(schema=schema), 1) is None
    assert spoil(Fault.UNKNOWN_TOOL, reply_with(), conversation(), 1) is None


def test_a_reply_that_was_cut_off_used_all_its_tokens() -> None:
    """A cut-off reply reports all of its output tokens, because few tokens would mean a full window."""
    asked = replace(conversation(), max_output_tokens=500)
    spoiled = spoil(Fault.CUT_OFF, reply_with(WEATHER), asked, 1)
    assert spoiled is not None
    assert spoiled.stop is Stop.LENGTH
    assert spoiled.usage is not None
    assert spoiled.usage.output_tokens == 500


def test_a_repeated_id_is_that_of_an_earlier_call() -> None:
    """If the history has calls, the new call gets the id of the latest one."""
    asked = ConversationTurn("assistant", "", (SimulatedCall("call_old", "weather", "{}"),))
    earlier = Conversation(
        "openai-chat",
        "model",
        "",
        (ConversationTurn("user", "hi"), asked, ConversationTurn("tool", "", call=asked.calls[0])),
    )
    spoiled = spoil(Fault.REPEATED_ID, reply_with(WEATHER), earlier, 1)
    assert spoiled is not None
    assert spoiled.calls[0] == SimulatedCall("call_old", "weather", WEATHER.arguments)


def test_bucket_returns_the_wait() -> None:
    """A full bucket gives its capacity at once. Then it returns the seconds until the next request is available."""
    bucket = Bucket.make_full(per_minute=60, capacity=2, now_s=0.0)
    assert [bucket.withdraw(0.0), bucket.withdraw(0.0)] == [0.0, 0.0]
    assert bucket.withdraw(0.25) == pytest.approx(0.75)
    assert bucket.withdraw(1.0) == 0.0
    assert bucket.state().remaining == 0
    assert bucket.state().reset_s == pytest.approx(2.0)
    assert bucket.withdraw(1_000.0) == 0.0
    assert bucket.state().remaining == 1


def test_withdrawal_above_the_capacity() -> None:
    """An amount above the capacity needs a full bucket and overdraws it. Above the limit per minute, the wait is infinite."""
    bucket = Bucket.make_full(per_minute=6_000, capacity=1_000, now_s=0.0)
    assert bucket.withdraw(0.0, 3_000) == 0.0
    assert bucket.state("tokens").remaining == 0
    assert bucket.withdraw(0.0, 500) == pytest.approx(25.0)
    assert bucket.withdraw(25.0, 500) == 0.0
    assert bucket.withdraw(25.0, 6_001) == float("inf")


def limit(**faults: Any) -> RateLimit:
    return RateLimit(Faults.model_validate(faults), 0.0)


def test_refused_request_is_charged_by_no_limit() -> None:
    """The limit with the longest wait is named, and the other limits are not charged."""
    both = limit(requests_per_minute=60, burst=2, input_tokens_per_minute=6_000, burst_s=1)
    assert both.admit(0.0, fresh=100) is None
    short = both.admit(0.0, fresh=100)
    assert short is not None
    assert (short.unit, short.limit, short.needed, short.wait_s) == ("input-tokens", 6_000, 100, pytest.approx(1.0))
    assert {of: state.remaining for of, state in both.states().items()} == {"requests": 1, "input-tokens": 0}
    assert both.admit(1.0, fresh=100) is None


def test_output_tokens_are_charged_when_they_are_written() -> None:
    """As at Anthropic, one token left admits a request. A long answer overdraws the limit, and the next request waits."""
    written = limit(output_tokens_per_minute=600, burst_s=1)
    assert written.admit(0.0, at_most=8_000) is None
    written.charge_output(110)
    short = written.admit(0.0)
    assert short is not None
    assert (short.unit, short.wait_s) == ("output-tokens", pytest.approx(10.1))
    assert written.admit(10.2) is None


def test_common_token_limit_counts_the_larger_amount() -> None:
    """As at OpenAI, input tokens or the output limit count, whichever is more. A request above the limit is always refused."""
    axis = limit(tokens_per_minute=1_000)
    assert axis.admit(0.0, read=100, at_most=600) is None
    short = axis.admit(0.0, read=500, at_most=100)
    assert short is not None
    assert (short.used, short.needed, short.wait_s) == (600, 500, pytest.approx(6.0))
    never = axis.admit(60.0, at_most=1_001)
    assert never is not None
    assert never.to_refusal("m").retry_after_s is None


def test_refused_requests_may_count() -> None:
    """With `refused_count`, repeated requests increase the debt, up to that of one minute."""
    fair, harsh = limit(requests_per_minute=60, burst=1), limit(requests_per_minute=60, burst=1, refused_count=True)
    for at_s in range(3):
        assert fair.admit(float(at_s)) is None
        harsh.admit(float(at_s))
        fair.admit(float(at_s))
        harsh.admit(float(at_s))
    assert harsh.admit(3.0) is not None
    for _ in range(200):
        harsh.admit(3.0)
    assert harsh.admit(63.9) is not None
    assert harsh.admit(200.0) is None


def test_without_limits_everything_is_admitted() -> None:
    """Without a limit, no tokens are counted and there is no state for headers."""
    none = limit()
    assert none.admit(0.0, fresh=10**9) is None
    assert none.states() == {}
    assert not none.counts_tokens


def test_an_outage_has_a_beginning_and_an_end() -> None:
    """An outage begins `outage_after_s` after the faults were set, and lasts `outage_s`."""
    faults = Faults.parse("outage=overloaded,outage_s=60,outage_after_s=10")
    assert [faults.outage_left_s(since_s) for since_s in (0, 9.9, 10, 40, 70, 1_000)] == [0, 0, 60, 30, 0, 0]
    assert Faults().outage_left_s(0) == 0


def test_absurd_usage_takes_every_form() -> None:
    """Different seeds give zero, negative numbers, a trillion, or fifty times the real usage, but never the real usage."""
    true = replace(reply_with(), usage=Usage(input_tokens=100, output_tokens=7))
    seen = set()
    for seed in range(40):
        spoiled = spoil(Fault.ABSURD_USAGE, true, conversation(), seed)
        assert spoiled is not None
        assert spoiled.usage is not None
        seen.add((spoiled.usage.input_tokens, spoiled.usage.output_tokens))
    assert seen == {(0, 0), (-100, -7), (10**12, 10**12), (5_000, 350)}
