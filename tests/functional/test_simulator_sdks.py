"""The model server and both vendors' SDKs: text, tool loops, parallel calls, token counts and bad requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from midwatch.schemas.model import Stop
from midwatch.workers.simulator import Conversation, ModelServer, Say, ScriptBrain, UnexpectedCall, Use

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}


@dataclass
class ClientReply:
    """One reply, independent of the SDK."""

    text: str
    calls: list[tuple[str, str, Any]]
    stop: str | None
    input_tokens: int
    raw: Any


class AnthropicClient:
    """Holds a conversation over the Messages API."""

    def __init__(self, server: ModelServer) -> None:
        self.sdk = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0, timeout=20)
        self.messages: list[Any] = []

    def say(self, text: str, /, **more: Any) -> ClientReply:
        self.messages.append({"role": "user", "content": text})
        return self.ask(**more)

    def results(self, *texts: str, error: bool = False) -> ClientReply:
        ids = [block.id for block in self.messages[-1]["content"] if block.type == "tool_use"]
        blocks = [
            {"type": "tool_result", "tool_use_id": id_, "content": text, "is_error": error}
            for id_, text in zip(ids, texts, strict=True)
        ]
        self.messages.append({"role": "user", "content": blocks})
        return self.ask()

    def tools(self) -> list[Any]:
        return [{"name": "weather", "description": "Forecast", "input_schema": WEATHER}]

    def ask(self, **more: Any) -> ClientReply:
        reply = self.sdk.messages.create(
            model="claude-sonnet-4-6", max_tokens=1000, messages=self.messages, tools=self.tools(), **more
        )
        self.messages.append({"role": "assistant", "content": reply.content})
        calls = [(block.id, block.name, block.input) for block in reply.content if block.type == "tool_use"]
        text = "".join(block.text for block in reply.content if block.type == "text")
        used = reply.usage
        total = used.input_tokens + (used.cache_read_input_tokens or 0) + (used.cache_creation_input_tokens or 0)
        return ClientReply(text, calls, reply.stop_reason, total, reply)


class ResponsesClient:
    """Holds a conversation over the Responses API."""

    def __init__(self, server: ModelServer) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0, timeout=20)
        self.items: list[Any] = []

    def say(self, text: str, /, **more: Any) -> ClientReply:
        self.items.append({"role": "user", "content": text})
        return self.ask(**more)

    def results(self, *texts: str, error: bool = False) -> ClientReply:
        answered = {item["call_id"] for item in self.items if item.get("type") == "function_call_output"}
        open_calls = [item for item in self.items if item.get("type") == "function_call"]
        ids = [item["call_id"] for item in open_calls if item["call_id"] not in answered]
        for id_, text in zip(ids, texts, strict=True):
            output = f"ERROR: {text}" if error else text
            self.items.append({"type": "function_call_output", "call_id": id_, "output": output})
        return self.ask()

    def tools(self) -> list[Any]:
        return [
            {"type": "function", "name": "weather", "description": "Forecast", "parameters": WEATHER, "strict": False}
        ]

    def ask(self, **more: Any) -> ClientReply:
        reply = self.sdk.responses.create(model="gpt-5-2025-08-07", input=self.items, tools=self.tools(), **more)
        self.items.extend(item.model_dump(exclude_none=True) for item in reply.output)
        calls = [(item.call_id, item.name, item.arguments) for item in reply.output if item.type == "function_call"]
        assert reply.usage is not None
        return ClientReply(reply.output_text, calls, reply.status, reply.usage.input_tokens, reply)


class ChatClient:
    """Holds a conversation over Chat Completions."""

    def __init__(self, server: ModelServer) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0, timeout=20)
        self.messages: list[Any] = []

    def say(self, text: str, /, **more: Any) -> ClientReply:
        self.messages.append({"role": "user", "content": text})
        return self.ask(**more)

    def results(self, *texts: str, error: bool = False) -> ClientReply:
        for call, text in zip(self.messages[-1]["tool_calls"], texts, strict=True):
            content = f"ERROR: {text}" if error else text
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        return self.ask()

    def tools(self) -> list[Any]:
        return [{"type": "function", "function": {"name": "weather", "description": "Forecast", "parameters": WEATHER}}]

    def ask(self, **more: Any) -> ClientReply:
        reply = self.sdk.chat.completions.create(model="gpt-4o", messages=self.messages, tools=self.tools(), **more)
        message = reply.choices[0].message
        self.messages.append(message.model_dump(exclude_none=True))
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
        assert reply.usage is not None
        return ClientReply(
            message.content or "", calls, reply.choices[0].finish_reason, reply.usage.prompt_tokens, reply
        )


Client = AnthropicClient | ResponsesClient | ChatClient
CLIENTS = [AnthropicClient, ResponsesClient, ChatClient]


@dataclass
class Stage:
    """A running server, its client, and the list to which a test adds its rule set."""

    server: ModelServer
    client: Client
    rules: list[Any]


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    rules: list[Any] = []
    with ModelServer(lambda conversation: rules[0](conversation)) as server:
        client = request.param(server)
        with client.sdk:
            yield Stage(server, client, rules)


def arguments(call: tuple[str, str, Any]) -> Any:
    """Return the arguments of a call as an object, for any SDK."""
    return json.loads(call[2]) if isinstance(call[2], str) else call[2]


def test_text(stage: Stage) -> None:
    """The SDK returns the text of the rule set, with an end stop and usage."""
    stage.rules.append(lambda conversation: Say(f"You said {conversation.last_user!r}. Grüße, 你好"))
    reply = stage.client.say("hello")
    assert reply.text == "You said 'hello'. Grüße, 你好"
    assert reply.calls == []
    assert reply.stop in ("end_turn", "completed", "stop")
    assert reply.input_tokens > 0


def test_tool_loop(stage: Stage) -> None:
    """A rule set makes a call, gets its result, and can use both in the next answer."""

    def rules(conversation: Conversation) -> Say | Use:
        results = conversation.results("weather")
        if not results:
            return Use([("weather", {"city": "Köln", "days": 2})], text="Let me look.")
        assert results[0].call is not None
        return Say(f"{results[0].call.input['city']}: {results[0].text}, error: {results[0].is_error}")

    stage.rules.append(rules)
    reply = stage.client.say("weather?")
    assert reply.text == "Let me look."
    assert [(call[1], arguments(call)) for call in reply.calls] == [("weather", {"city": "Köln", "days": 2})]
    assert reply.stop in ("tool_use", "completed", "tool_calls")
    assert stage.client.results("rain").text == "Köln: rain, error: False"


def test_parallel_calls_and_their_results_keep_their_order(stage: Stage) -> None:
    """Parallel calls have different ids, and the brain gets their results in the order of the calls."""

    def rules(conversation: Conversation) -> Say | Use:
        if conversation.turn == 1:
            return Use([("weather", {"city": city}) for city in ("Rome", "Oslo", "Lima")])
        return Say(" ".join(f"{turn.call.input['city']}={turn.text}" for turn in conversation.results() if turn.call))

    stage.rules.append(rules)
    reply = stage.client.say("three cities")
    assert len({call[0] for call in reply.calls}) == 3
    assert stage.client.results("hot", "cold", "fog").text == "Rome=hot Oslo=cold Lima=fog"
    assert stage.server.stats().by_status == {200: 2}


def test_brain_sees_which_results_are_errors(stage: Stage) -> None:
    """`is_error` is set by Anthropic's flag, and by the text `ERROR:` in OpenAI's formats."""
    stage.rules.append(lambda c: Say(str(c.last.is_error)) if c.results() else Use([("weather", {"city": "Rome"})]))
    stage.client.say("weather?")
    assert stage.client.results("no such city", error=True).text == "True"


def test_raw_arguments_are_sent_unchanged(stage: Stage) -> None:
    """In OpenAI's formats, arguments are sent byte for byte. In Anthropic's format, the object keeps its key order."""
    raw = '{ "days": 1,  "city":"Rome" }'
    stage.rules.append(lambda conversation: Use([("weather", raw)]))
    sent = stage.client.say("go").calls[0][2]
    assert sent == raw or list(sent.items()) == [("days", 1), ("city", "Rome")]


@pytest.mark.parametrize(
    ("stop", "names"),
    [
        (Stop.LENGTH, {"max_tokens", "incomplete", "length"}),
        (Stop.REFUSAL, {"refusal", "completed", "content_filter"}),
        (Stop.CONTEXT_FULL, {"model_context_window_exceeded", "incomplete", "length"}),
    ],
)
def test_stops_have_each_vendors_name(stage: Stage, stop: Stop, names: set[str]) -> None:
    """A brain gives a Stop, and each format writes its vendor's name for it."""
    stage.rules.append(lambda conversation: Say("...", stop=stop))
    assert stage.client.say("go").stop in names


def test_later_instructions_are_notes(stage: Stage) -> None:
    """System text at the beginning is the system prompt. Later system text is a note, and never a user message."""
    stage.rules.append(lambda conversation: Say(f"{conversation.system}|{[t.role for t in conversation.turns]}"))
    client = stage.client
    if isinstance(client, AnthropicClient):
        client.messages.append({"role": "user", "content": "hi"})
        client.messages.append({"role": "assistant", "content": "hello"})
        reply = client.say("<reminder>stay on the goal</reminder>", system="Be kind.")
    else:
        top = client.items if isinstance(client, ResponsesClient) else client.messages
        top.append({"role": "developer", "content": "Be kind."})
        top.append({"role": "user", "content": "hi"})
        top.append({"role": "assistant", "content": "hello"})
        top.append({"role": "developer", "content": "stay on the goal"})
        reply = client.ask()
    assert reply.text == "Be kind.|['user', 'assistant', 'note']"


def test_forced_tool_and_output_schema_reach_the_brain() -> None:
    """Each format has its own fields for a forced tool and an output schema. The brain always gets the same two fields."""
    seen: list[tuple[str | None, Any]] = []

    def rules(conversation: Conversation) -> Say:
        seen.append((conversation.force_tool, conversation.output_schema))
        return Say("{}")

    schema = {"type": "object"}
    named: Any = {"name": "answer", "schema": schema, "strict": True}
    with ModelServer(rules) as server:
        client = AnthropicClient(server)
        with client.sdk:
            client.say(
                "go",
                tool_choice={"type": "tool", "name": "weather"},
                output_config={"format": {"type": "json_schema", "schema": schema}},
            )
        responses = ResponsesClient(server)
        with responses.sdk:
            force: Any = {"type": "function", "name": "weather"}
            responses.say("go", tool_choice=force, text={"format": {"type": "json_schema", **named}})
        chat = ChatClient(server)
        with chat.sdk:
            force = {"type": "function", "function": {"name": "weather"}}
            chat.say("go", tool_choice=force, response_format={"type": "json_schema", "json_schema": named})
    assert seen == [("weather", schema)] * 3


def test_counters_equal_the_usage_reported_afterwards() -> None:
    """A token count of a request equals the input tokens that the answer reports, for both vendors."""
    with ModelServer(lambda conversation: Say("ok")) as server:
        client = AnthropicClient(server)
        with client.sdk as sdk:
            user: Any = {"role": "user", "content": "how much is this? " * 50}
            counted = sdk.messages.count_tokens(model="claude-sonnet-4-6", messages=[user], tools=client.tools())
            assert counted.input_tokens == client.say(user["content"]).input_tokens
        responses = ResponsesClient(server)
        with responses.sdk as openai_sdk:
            count = openai_sdk.responses.input_tokens.count(
                model="gpt-5-2025-08-07", input=[user], tools=responses.tools()
            )
            assert count.input_tokens == responses.say(user["content"]).input_tokens
        assert server.stats().counted == 2


def test_prompt_cache_is_reported_in_each_vendors_fields() -> None:
    """In Anthropic's format, a marked prefix is written once and then read. OpenAI caches without marks.

    The total does not change.
    """
    long_system = "policy " * 1000
    with ModelServer(lambda conversation: Say("ok")) as server:
        client = AnthropicClient(server)
        with client.sdk:
            marked = [{"type": "text", "text": long_system, "cache_control": {"type": "ephemeral"}}]
            first = client.say("one", system=marked).raw.usage
            client.messages.clear()
            second = client.say("two", system=marked).raw.usage
        assert first.cache_creation_input_tokens > 1024
        assert first.cache_read_input_tokens == 0
        assert second.cache_read_input_tokens == first.cache_creation_input_tokens
        assert second.input_tokens == first.input_tokens
        responses = ResponsesClient(server)
        with responses.sdk:
            responses.say("one", instructions=long_system)
            used = responses.say("two", instructions=long_system).raw.usage
        assert 1024 < used.input_tokens_details.cached_tokens < used.input_tokens


def test_a_call_without_its_result_is_refused(stage: Stage) -> None:
    """A window that splits a group is a 400, as it is at the vendors."""
    stage.rules.append(lambda conversation: Use([("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})]))
    stage.client.say("go")
    with pytest.raises(
        (anthropic.BadRequestError, openai.BadRequestError), match=r"tool_use|No tool output|tool_call_id"
    ):
        stage.client.say("and?")


def test_streaming_is_refused_clearly() -> None:
    """A streaming request is a 400 that says so."""
    with ModelServer() as server:
        with (
            AnthropicClient(server).sdk as sdk,
            pytest.raises(anthropic.BadRequestError, match="complete replies only"),
        ):
            sdk.messages.create(
                model="claude-sonnet-4-6", max_tokens=9, stream=True, messages=[{"role": "user", "content": "hi"}]
            )
        with ChatClient(server).sdk as sdk, pytest.raises(openai.BadRequestError, match="complete replies only"):
            sdk.chat.completions.create(model="gpt-4o", stream=True, messages=[{"role": "user", "content": "hi"}])


def test_an_unexpected_call_is_a_500_that_says_why() -> None:
    """A call without a scripted reply is a 500. The SDK does not retry it, and the server counts it."""
    with ModelServer(ScriptBrain(["only this"])) as server, AnthropicClient(server).sdk as sdk:
        insistent = sdk.with_options(max_retries=3)
        messages: list[Any] = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "only this"},
            {"role": "user", "content": "more"},
        ]
        with pytest.raises(anthropic.InternalServerError, match="no reply for turn 2") as caught:
            insistent.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=messages)
        assert caught.value.request_id == "req_00000001"
        assert server.stats().unexpected == server.stats().requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: Use([("weather", {"when": object()})]),
        lambda _: Use([("weather", {})], ids=["a", "b"]),
        lambda _: "just text",
    ],
)
def test_invalid_answer_of_a_brain_is_a_500(answer: Any) -> None:
    """If a brain's answer is invalid, the client gets a 500 that says so, and the server goes on."""
    with ModelServer(answer) as server:
        client = ChatClient(server)
        with client.sdk:
            for _ in range(2):
                with pytest.raises(
                    openai.InternalServerError, match=r"raised (TypeError|ValueError)|expected Say or Use"
                ):
                    client.ask()
        assert server.stats().unexpected == 2


def test_a_rule_set_that_raises_does_not_leak_the_prompt() -> None:
    """A bug in a user's rule set is a 500 that names the exception's class and line, but not its message."""

    def rules(conversation: Conversation) -> Say:
        raise KeyError(conversation.last_user)

    def refuses(conversation: Conversation) -> Say:
        raise UnexpectedCall("not this one")

    for brain, message in (
        (rules, r"rules raised KeyError at .*test_simulator_sdks\.py:\d+"),
        (refuses, "not this one"),
    ):
        with ModelServer(brain) as server:
            client = ChatClient(server)
            with client.sdk, pytest.raises(openai.InternalServerError, match=message) as caught:
                client.say("secret words")
            assert "secret" not in str(caught.value)
