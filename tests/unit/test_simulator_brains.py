"""The brains: what they answer to a conversation, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import (
    SPOILED_ID,
    Answer,
    Conversation,
    ConversationTurn,
    Say,
    SimulatedCall,
    ToolOffer,
    UnexpectedCall,
    Use,
)
from midwatch.workers.simulator.brains.example_values import make_example
from midwatch.workers.simulator.brains.rules import RuleBrain, each_tool_once
from midwatch.workers.simulator.brains.script import ScriptBrain
from midwatch.workers.simulator.brains.transcript import TranscriptBrain


def conversation_of(*turns: ConversationTurn, system: str = "", **more: Any) -> Conversation:
    """A conversation of these turns."""
    return Conversation("openai-chat", "model", system, turns, **more)


def tool_exchange(
    name: str, result: str, call_id: str = "call_1", arguments: str = "{}"
) -> tuple[ConversationTurn, ConversationTurn]:
    """A tool call and its result."""
    call = SimulatedCall(call_id, name, arguments)
    return ConversationTurn("assistant", "", (call,)), ConversationTurn("tool", result, call=call)


HELLO = ConversationTurn("user", "hello")


def test_a_conversation_tells_what_happened() -> None:
    """Turn, position, results, calls and what the user said last: all from the history."""
    seen = conversation_of(
        HELLO,
        *tool_exchange("find", "no such order", arguments='{"id": "W1"}'),
        *tool_exchange("find", "one", f"call_2_2{SPOILED_ID}"),
        ConversationTurn("assistant", "Which one?"),
        ConversationTurn("note", "stay on the goal"),
        ConversationTurn("user", "the second"),
        *tool_exchange("cancel", "done", arguments="[not json"),
    )
    assert (seen.turn, seen.position) == (5, 4)
    assert [turn.text for turn in seen.results("find")] == ["no such order", "one"]
    assert seen.results("find")[0].call == SimulatedCall("call_1", "find", '{"id": "W1"}')
    assert [call.input for call in seen.calls()] == [{"id": "W1"}, {}, {}]
    assert (seen.first_user, seen.last_user) == ("hello", "the second")
    assert [turn.tool for turn in seen.since_user] == ["", "cancel"]
    assert (
        seen.key
        == conversation_of(HELLO, ConversationTurn("assistant", "x")).key
        != conversation_of(ConversationTurn("user", "bye")).key
    )


def test_a_script_answers_by_turn_however_often_it_is_asked() -> None:
    """Replies are matched by the turn that the request is at: a retry gets the same one, an earlier turn its own."""
    script = ScriptBrain([Use([("find", {"id": 1})]), "Done.", {"turn": 4, "say": "Again.", "stop": "length"}])
    first, second = conversation_of(HELLO), conversation_of(HELLO, *tool_exchange("find", "x"))
    assert script.answer(second) == script.answer(second) == Say("Done.")
    assert script.answer(first) == Use([("find", {"id": 1})])
    with pytest.raises(UnexpectedCall, match=r"no reply for turn 3 .* replies for: 1, 2, 4"):
        script.answer(
            conversation_of(HELLO, *tool_exchange("find", "x"), ConversationTurn("assistant", "Done."), HELLO)
        )


def test_a_script_may_differ_by_conversation(tmp_path: Path) -> None:
    """In a file, replies of the first conversation whose text occurs in the opening message; others get the rest."""
    toml = tmp_path / "script.toml"
    toml.write_text(
        '[[reply]]\nsay = "Hello."\n'
        '[[conversation]]\nsays = "refund"\n'
        "[[conversation.reply]]\n"
        'use = [{ name = "refund", arguments = { order = "W1" }, id = "call_7" }]\n'
    )
    script = ScriptBrain.read(toml)
    assert script.answer(conversation_of(HELLO)) == Say("Hello.")
    assert script.answer(conversation_of(ConversationTurn("user", "a refund, please"))) == Use(
        [("refund", {"order": "W1"})], ids=("call_7",)
    )
    listed = tmp_path / "script.json"
    listed.write_text(json.dumps([{"say": "one"}, {"use": [{"name": "find", "arguments": "{broken"}], "say": "two"}]))
    assert ScriptBrain.read(listed).answer(conversation_of(HELLO, ConversationTurn("assistant", "one"), HELLO)) == Use(
        [("find", "{broken")], "two"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "script .*script.json: Expecting value"),
        ('[{"says": "hi"}]', r"reply\.0\.says: .*a reply has: say, use, stop, turn"),
        ('[{"say": "a", "turn": 2}, {"say": "b", "turn": 2}]', "two replies for turn 2"),
        ('[{"use": [{"name": "a", "id": "1"}, {"name": "b"}]}]', "give either every call of a reply an `id`"),
    ],
)
def test_a_wrong_script_says_where(tmp_path: Path, text: str, message: str) -> None:
    """A script is checked when it is read, not when the call comes."""
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        ScriptBrain.read(path)


def recorded_chat(*said: str, system: str = "policy", first: str = "hello") -> list[dict[str, Any]]:
    """User and assistant in turns."""
    roles = ["user", "assistant"] * len(said)
    spoken = [{"role": role, "content": text} for role, text in zip(roles, (first, *said), strict=False)]
    return [{"role": "system", "content": system}, *spoken]


def test_records_that_begin_alike_are_told_apart() -> None:
    """Same first user message: the system prompt decides, then the turns; in a tie the first record answers."""
    brain = TranscriptBrain(
        [
            recorded_chat("A?", "red", "red it is"),
            recorded_chat("A?", "blue", "blue it is"),
            recorded_chat("B?", "red", "red again", system="other policy"),
        ]
    )
    assert brain.answer(conversation_of(HELLO, system="policy")) == Say("A?")
    assert brain.answer(conversation_of(HELLO, system="other policy")) == Say("B?")
    blue = conversation_of(
        HELLO,
        ConversationTurn("assistant", "A?"),
        ConversationTurn("note", "stay"),
        ConversationTurn("user", "blue"),
        system="policy",
    )
    assert brain.answer(blue) == Say("blue it is")
    assert brain.answer(
        conversation_of(HELLO, ConversationTurn("assistant", "B?"), ConversationTurn("user", "red"), system="unknown")
    ) == Say("red again")
    with pytest.raises(UnexpectedCall, match="the record has 2 model turns, this asks for turn 3"):
        brain.answer(
            conversation_of(
                HELLO, ConversationTurn("assistant", "A?"), HELLO, ConversationTurn("assistant", "red it is"), HELLO
            )
        )


def test_a_record_gives_back_text_calls_ids_and_raw_arguments() -> None:
    """One turn may have all of them; a spoiled call in the history does not move the place in the record."""
    raw = '{ "id":1 }'
    call = {"id": "call_x", "type": "function", "function": {"name": "find", "arguments": raw}}
    messages = [
        {"role": "assistant", "content": "Welcome!"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_x", "content": "one"},
        {"role": "assistant", "content": "One."},
    ]
    brain = TranscriptBrain([messages])
    use = Use([("find", raw)], "Let me see.", ["call_x"])
    assert brain.answer(conversation_of(HELLO)) == use
    assert (
        brain.answer(conversation_of(HELLO, *tool_exchange("find_v2", "no such tool", f"call_x_1{SPOILED_ID}"))) == use
    )
    assert brain.answer(conversation_of(HELLO, *tool_exchange("find", "one", "call_x"))) == Say("One.")


def test_what_no_record_begins_like() -> None:
    """Is unexpected, or the fallback's to answer."""
    stranger = conversation_of(ConversationTurn("user", "Summarise this."))
    with pytest.raises(UnexpectedCall, match=f"no record begins like conversation {stranger.key}"):
        TranscriptBrain([recorded_chat("A?")]).answer(stranger)
    brain = TranscriptBrain([recorded_chat("A?")], fallback=RuleBrain(lambda _: Say("a summary")))
    assert brain.answer(stranger) == Say("a summary")


def test_a_transcript_file_that_is_none_says_where(tmp_path: Path) -> None:
    """The file, the line, and what was expected there."""
    path = tmp_path / "records.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"turns": []}\n')
    with pytest.raises(ConfigError, match=r"records\.jsonl, line 2: expected a JSON object with `messages`"):
        TranscriptBrain.read(path)
    with pytest.raises(ConfigError, match="can't be read"):
        TranscriptBrain.read(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match=r"record 1: .*no message of a user"):
        TranscriptBrain([[{"role": "assistant", "content": "hi"}]])


def test_the_default_rules_use_each_tool_once_per_job() -> None:
    """Tools in their order with valid arguments, then an end; a new user message begins again."""
    tools = (
        ToolOffer("find", "", {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}),
        ToolOffer("close"),
    )
    first = conversation_of(HELLO, tools=tools)
    assert each_tool_once(first) == Use([("find", {"id": 0})])
    after = (*first.turns, *tool_exchange("find", "x"))
    assert each_tool_once(conversation_of(*after, tools=tools)) == Use([("close", {})])
    done = (*after, *tool_exchange("close", "y"))
    assert each_tool_once(conversation_of(*done, tools=tools)) == Say("Done: 2 tool(s) called.")
    assert each_tool_once(conversation_of(*done, ConversationTurn("assistant", "Done"), HELLO, tools=tools)) == Use(
        [("find", {"id": 0})]
    )
    assert each_tool_once(conversation_of(*done, tools=tools, force_tool="close")) == Use([("close", {})])
    assert each_tool_once(conversation_of(HELLO, output_schema={"const": 7})) == Say("7")


def test_rules_are_found_by_name() -> None:
    """`module:attr`; what is wrong with a name is said, with what there is."""
    assert RuleBrain.from_name("midwatch.workers.simulator.brains.rules:each_tool_once").rules is each_tool_once
    for name, message in (
        ("each_tool_once", "expected `module:attr`"),
        ("no.such.module:rules", "can't import 'no.such.module'"),
        (
            "midwatch.workers.simulator.brains.rules:each_tool_twice",
            "no callable 'each_tool_twice'; it has: .*each_tool_once",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            RuleBrain.from_name(name)


def test_a_rule_set_must_say_or_use() -> None:
    """Anything else is an unexpected call that names the rule set."""

    def mute(conversation: Conversation) -> Answer:
        return None  # type: ignore[return-value]

    with pytest.raises(UnexpectedCall, match="rule set mute: expected Say or Use, got NoneType"):
        RuleBrain(mute).answer(conversation_of(HELLO))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 12, "maxLength": 12},
        {"type": "string", "format": "date"},
        {"type": "integer", "exclusiveMinimum": 4, "multipleOf": 5},
        {"type": "number", "maximum": -2.5},
        {"type": ["null", "array"], "items": {"enum": ["a"]}, "minItems": 2},
        {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}], "$defs": {"node": {"type": "boolean"}}},
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
                }
            },
        },
        {"allOf": [{"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}}]},
    ],
)
def test_examples_satisfy_their_schema(schema: dict[str, Any]) -> None:
    """What a model that thinks nothing says is valid all the same."""
    assert Draft202012Validator(schema).is_valid(make_example(schema))


def test_stops_of_a_script_are_the_houses_words() -> None:
    """`stop` in a file is one of the provider-neutral stops."""
    assert ScriptBrain([{"say": "...", "stop": "refusal"}]).answer(conversation_of(HELLO)) == Say(
        "...", stop=Stop.REFUSAL
    )
