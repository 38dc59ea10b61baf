"""The answers of the brains to a conversation, without a server."""

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
    """Make a conversation of these turns."""
    return Conversation("openai-chat", "model", system, turns, **more)


def tool_exchange(
    name: str, result: str, call_id: str = "call_1", arguments: str = "{}"
) -> tuple[ConversationTurn, ConversationTurn]:
    """Make a turn with a tool call, and the turn with its result."""
    call = SimulatedCall(call_id, name, arguments)
    return ConversationTurn("assistant", "", (call,)), ConversationTurn("tool", result, call=call)


HELLO = ConversationTurn("user", "hello")


def test_conversation_reads_its_history() -> None:
    """Turn, position, results, calls and user messages are computed from the history."""
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


def test_script_gives_the_same_reply_to_a_retry() -> None:
    """The turn of the request decides the reply, so a retry and a request for an earlier turn get their own replies."""
    script = ScriptBrain([Use([("find", {"id": 1})]), "Done.", {"turn": 4, "say": "Again.", "stop": "length"}])
    first, second = conversation_of(HELLO), conversation_of(HELLO, *tool_exchange("find", "x"))
    assert script.answer(second) == script.answer(second) == Say("Done.")
    assert script.answer(first) == Use([("find", {"id": 1})])
    with pytest.raises(UnexpectedCall, match=r"no reply for turn 3 .* replies for: 1, 2, 4"):
        script.answer(
            conversation_of(HELLO, *tool_exchange("find", "x"), ConversationTurn("assistant", "Done."), HELLO)
        )


def test_a_script_may_differ_by_conversation(tmp_path: Path) -> None:
    """The first entry whose text is in the first user message gives the replies. Other conversations get the common ones."""
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
    """A wrong script is refused when it is read. The error names the place."""
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        ScriptBrain.read(path)


def recorded_chat(*texts: str, system: str = "policy", first: str = "hello") -> list[dict[str, Any]]:
    """Make a record in which user and assistant alternate."""
    roles = ["user", "assistant"] * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, (first, *texts), strict=False)]
    return [{"role": "system", "content": system}, *turns]


def test_choice_between_records_with_the_same_beginning() -> None:
    """The system prompt decides first, then the number of equal turns. In a tie, the first record answers."""
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


def test_record_replays_text_calls_ids_and_raw_arguments() -> None:
    """A recorded turn is replayed completely. A spoiled call in the history does not change the position in the record."""
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


def test_conversation_without_a_record() -> None:
    """If no record matches, the fallback answers. Without a fallback, the call is unexpected."""
    stranger = conversation_of(ConversationTurn("user", "Summarise this."))
    with pytest.raises(UnexpectedCall, match=f"no record begins like conversation {stranger.key}"):
        TranscriptBrain([recorded_chat("A?")]).answer(stranger)
    brain = TranscriptBrain([recorded_chat("A?")], fallback=RuleBrain(lambda _: Say("a summary")))
    assert brain.answer(stranger) == Say("a summary")


def test_invalid_transcript_names_the_place(tmp_path: Path) -> None:
    """The error names the file, the line and what was expected there."""
    path = tmp_path / "records.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"turns": []}\n')
    with pytest.raises(ConfigError, match=r"records\.jsonl, line 2: expected a JSON object with `messages`"):
        TranscriptBrain.read(path)
    with pytest.raises(ConfigError, match="can't be read"):
        TranscriptBrain.read(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match=r"record 1: .*no user message"):
        TranscriptBrain([[{"role": "assistant", "content": "hi"}]])


def test_default_rules_use_each_tool_once() -> None:
    """Each tool is called once with valid arguments, then the turn ends. A new user message starts again."""
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
    """A rule set is found by `module:attr`. The error for a wrong name says what is wrong and what exists."""
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


def test_rule_set_must_return_say_or_use() -> None:
    """Any other return value is an unexpected call, and the error names the rule set."""

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
    """An example value is valid for its schema."""
    assert Draft202012Validator(schema).is_valid(make_example(schema))


def test_stop_of_a_script_is_vendor_independent() -> None:
    """`stop` in a script is one of the values of `Stop`."""
    assert ScriptBrain([{"say": "...", "stop": "refusal"}]).answer(conversation_of(HELLO)) == Say(
        "...", stop=Stop.REFUSAL
    )
