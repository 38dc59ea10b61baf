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
    Call,
    Conversation,
    Say,
    ToolOffer,
    Turn,
    UnexpectedCall,
    Use,
)
from midwatch.workers.simulator.brains.example import example
from midwatch.workers.simulator.brains.rules import RuleBrain, each_tool_once
from midwatch.workers.simulator.brains.script import ScriptBrain
from midwatch.workers.simulator.brains.transcript import TranscriptBrain


def heard(*turns: Turn, system: str = "", **more: Any) -> Conversation:
    """A conversation of these turns."""
    return Conversation("openai-chat", "model", system, turns, **more)


def called(name: str, result: str, call_id: str = "call_1", arguments: str = "{}") -> tuple[Turn, Turn]:
    """A tool call and its result."""
    call = Call(call_id, name, arguments)
    return Turn("assistant", "", (call,)), Turn("tool", result, call=call)


HELLO = Turn("user", "hello")


def test_a_conversation_tells_what_happened() -> None:
    """Turn, position, results, calls and what the user said last: all from the history."""
    seen = heard(
        HELLO,
        *called("find", "no such order", arguments='{"id": "W1"}'),
        *called("find", "one", f"call_2_2{SPOILED_ID}"),
        Turn("assistant", "Which one?"),
        Turn("note", "stay on the goal"),
        Turn("user", "the second"),
        *called("cancel", "done", arguments="[not json"),
    )
    assert (seen.turn, seen.position) == (5, 4)
    assert [turn.text for turn in seen.results("find")] == ["no such order", "one"]
    assert seen.results("find")[0].call == Call("call_1", "find", '{"id": "W1"}')
    assert [call.input for call in seen.calls()] == [{"id": "W1"}, {}, {}]
    assert (seen.first_user, seen.last_user) == ("hello", "the second")
    assert [turn.tool for turn in seen.since_user] == ["", "cancel"]
    assert seen.key == heard(HELLO, Turn("assistant", "x")).key != heard(Turn("user", "bye")).key


def test_a_script_answers_by_turn_however_often_it_is_asked() -> None:
    """Replies are matched by the turn that the request is at: a retry gets the same one, an earlier turn its own."""
    script = ScriptBrain([Use([("find", {"id": 1})]), "Done.", {"turn": 4, "say": "Again.", "stop": "length"}])
    first, second = heard(HELLO), heard(HELLO, *called("find", "x"))
    assert script.answer(second) == script.answer(second) == Say("Done.")
    assert script.answer(first) == Use([("find", {"id": 1})])
    with pytest.raises(UnexpectedCall, match=r"no reply for turn 3 .* replies for: 1, 2, 4"):
        script.answer(heard(HELLO, *called("find", "x"), Turn("assistant", "Done."), HELLO))


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
    assert script.answer(heard(HELLO)) == Say("Hello.")
    assert script.answer(heard(Turn("user", "a refund, please"))) == Use([("refund", {"order": "W1"})], ids=("call_7",))
    listed = tmp_path / "script.json"
    listed.write_text(json.dumps([{"say": "one"}, {"use": [{"name": "find", "arguments": "{broken"}], "say": "two"}]))
    assert ScriptBrain.read(listed).answer(heard(HELLO, Turn("assistant", "one"), HELLO)) == Use(
        [("find", "{broken")], "two"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "script .*script.json: Expecting value"),
        ('[{"says": "hi"}]', r"reply\.0\.says: .*a reply has: say, use, stop, turn"),
        ('[{"say": "a", "turn": 2}, {"say": "b", "turn": 2}]', "two replies for turn 2"),
        ('[{"use": [{"name": "a", "id": "1"}, {"name": "b"}]}]', "either every call of a reply has an `id`"),
    ],
)
def test_a_wrong_script_says_where(tmp_path: Path, text: str, told: str) -> None:
    """A script is checked when it is read, not when the call comes."""
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        ScriptBrain.read(path)


def record(*said: str, system: str = "policy", first: str = "hello") -> list[dict[str, Any]]:
    """User and assistant in turns."""
    roles = ["user", "assistant"] * len(said)
    spoken = [{"role": role, "content": text} for role, text in zip(roles, (first, *said), strict=False)]
    return [{"role": "system", "content": system}, *spoken]


def test_records_that_begin_alike_are_told_apart() -> None:
    """Same first user message: the system prompt decides, then the turns; in a tie the first record answers."""
    brain = TranscriptBrain(
        [
            record("A?", "red", "red it is"),
            record("A?", "blue", "blue it is"),
            record("B?", "red", "red again", system="other policy"),
        ]
    )
    assert brain.answer(heard(HELLO, system="policy")) == Say("A?")
    assert brain.answer(heard(HELLO, system="other policy")) == Say("B?")
    blue = heard(HELLO, Turn("assistant", "A?"), Turn("note", "stay"), Turn("user", "blue"), system="policy")
    assert brain.answer(blue) == Say("blue it is")
    assert brain.answer(heard(HELLO, Turn("assistant", "B?"), Turn("user", "red"), system="unknown")) == Say(
        "red again"
    )
    with pytest.raises(UnexpectedCall, match="the record has 2 model turns, this asks for turn 3"):
        brain.answer(heard(HELLO, Turn("assistant", "A?"), HELLO, Turn("assistant", "red it is"), HELLO))


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
    assert brain.answer(heard(HELLO)) == use
    assert brain.answer(heard(HELLO, *called("find_v2", "no such tool", f"call_x_1{SPOILED_ID}"))) == use
    assert brain.answer(heard(HELLO, *called("find", "one", "call_x"))) == Say("One.")


def test_what_no_record_begins_like() -> None:
    """Is unexpected, or the fallback's to answer."""
    stranger = heard(Turn("user", "Summarise this."))
    with pytest.raises(UnexpectedCall, match=f"no record begins like conversation {stranger.key}"):
        TranscriptBrain([record("A?")]).answer(stranger)
    brain = TranscriptBrain([record("A?")], fallback=RuleBrain(lambda _: Say("a summary")))
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
    first = heard(HELLO, tools=tools)
    assert each_tool_once(first) == Use([("find", {"id": 0})])
    after = (*first.turns, *called("find", "x"))
    assert each_tool_once(heard(*after, tools=tools)) == Use([("close", {})])
    done = (*after, *called("close", "y"))
    assert each_tool_once(heard(*done, tools=tools)) == Say("Done: 2 tool(s) called.")
    assert each_tool_once(heard(*done, Turn("assistant", "Done"), HELLO, tools=tools)) == Use([("find", {"id": 0})])
    assert each_tool_once(heard(*done, tools=tools, force_tool="close")) == Use([("close", {})])
    assert each_tool_once(heard(HELLO, output_schema={"const": 7})) == Say("7")


def test_rules_are_found_by_name() -> None:
    """`module:attr`; what is wrong with a name is said, with what there is."""
    assert RuleBrain.named("midwatch.workers.simulator.brains.rules:each_tool_once").rules is each_tool_once
    for name, told in (
        ("each_tool_once", "expected `module:attr`"),
        ("no.such.module:rules", "can't import 'no.such.module'"),
        (
            "midwatch.workers.simulator.brains.rules:each_tool_twice",
            "no callable 'each_tool_twice'; it has: .*each_tool_once",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            RuleBrain.named(name)


def test_a_rule_set_must_say_or_use() -> None:
    """Anything else is an unexpected call that names the rule set."""

    def mute(conversation: Conversation) -> Answer:
        return None  # type: ignore[return-value]

    with pytest.raises(UnexpectedCall, match="rule set mute: expected Say or Use, got NoneType"):
        RuleBrain(mute).answer(heard(HELLO))


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
    assert Draft202012Validator(schema).is_valid(example(schema))


def test_stops_of_a_script_are_the_houses_words() -> None:
    """`stop` in a file is one of the provider-neutral stops."""
    assert ScriptBrain([{"say": "...", "stop": "refusal"}]).answer(heard(HELLO)) == Say("...", stop=Stop.REFUSAL)
