"""The effect of each fault on the real SDKs. Random faults do not depend on the order of requests."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import anthropic
import openai
import pytest
from jsonschema import Draft202012Validator

from midwatch.workers.simulator import Conversation, Entry, Fault, Faults, ModelServer, RuleBrain, Say, ScriptBrain, Use
from tests.patience import PATIENCE_S, wait_for

REFUND = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "why": {"enum": ["late", "broken"]}},
    "required": ["order", "why"],
    "additionalProperties": False,
}


def request_refund(conversation: Conversation) -> Use:
    """Always make the same two calls."""
    first: dict[str, object] = {"order": "W1", "why": "late"}
    return Use([("refund", first), ("refund", {"order": "W2", "why": "broken"})])


@cache
def anthropic_sdk() -> anthropic.Anthropic:
    """Make one client for all tests, because making one loads certificates, which takes longer than a call."""
    return anthropic.Anthropic(api_key="any", max_retries=0)


@cache
def openai_sdk() -> openai.OpenAI:
    """Make one client for all tests."""
    return openai.OpenAI(api_key="any", max_retries=0)


@pytest.fixture(scope="module", autouse=True)
def _close_sdks() -> Iterator[None]:
    yield
    anthropic_sdk().close()
    openai_sdk().close()


def ask_anthropic(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """Make one Messages call without retries, so that every fault is visible."""
    tools: Any = [{"name": "refund", "input_schema": REFUND}]
    sdk = anthropic_sdk().with_options(base_url=server.url, timeout=timeout_s)
    message: Any = {"role": "user", "content": text}
    return sdk.messages.create(model="claude-sonnet-4-6", max_tokens=99, messages=[message], tools=tools)


def ask_responses(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """Make one Responses call."""
    tools: Any = [{"type": "function", "name": "refund", "parameters": REFUND, "strict": False}]
    sdk = openai_sdk().with_options(base_url=server.openai_url, timeout=timeout_s)
    return sdk.responses.create(model="gpt-5-2025-08-07", input=text, tools=tools)


def ask_chat(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """Make one Chat Completions call."""
    tools: Any = [{"type": "function", "function": {"name": "refund", "parameters": REFUND}}]
    sdk = openai_sdk().with_options(base_url=server.openai_url, timeout=timeout_s)
    message: Any = {"role": "user", "content": text}
    return sdk.chat.completions.create(model="gpt-4o", messages=[message], tools=tools)


Ask = Callable[..., Any]
ASKS: list[Ask] = [ask_anthropic, ask_responses, ask_chat]
every_wire = pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)


def at_every_request(fault: str, **settings: Any) -> Faults:
    """Return faults that let this fault happen at every request."""
    return Faults.model_validate({fault: 1.0, **settings})


def calls_of(reply: Any) -> list[tuple[str, str, Any]]:
    """Return (id, name, arguments) of the calls in a reply of any format."""
    if isinstance(reply, anthropic.types.Message):
        return [(block.id, block.name, block.input) for block in reply.content if block.type == "tool_use"]
    if hasattr(reply, "choices"):
        return [(call.id, call.function.name, call.function.arguments) for call in reply.choices[0].message.tool_calls]
    return [(item.call_id, item.name, item.arguments) for item in reply.output if item.type == "function_call"]


@every_wire
@pytest.mark.parametrize(
    ("fault", "of_anthropic", "of_openai", "message"),
    [
        ("rate_limited", "RateLimitError", "RateLimitError", "rate limit"),
        ("overloaded", "OverloadedError", "InternalServerError", "verloaded"),
        ("provider_error", "InternalServerError", "InternalServerError", "error"),
        ("context_overflow", "BadRequestError", "BadRequestError", r"prompt is too long|context window|context length"),
        ("quota_exhausted", "EnforcedSpendLimitReachedError", "RateLimitError", r"spend limit|quota"),
        ("spend_cap", "BadRequestError", "BadRequestError", r"specified API usage limits|hard limit"),
        ("auth_error", "AuthenticationError", "AuthenticationError", r"api.key"),
        ("payload_too_large", "ContentTooLargeError", "APIStatusError", "large|maximum size"),
    ],
)
def test_refusals_arrive_as_the_sdks_own_errors(
    ask: Ask, fault: str, of_anthropic: str, of_openai: str, message: str
) -> None:
    """Status, body and headers are those of the vendor, so each SDK raises its own class for them."""
    with (
        ModelServer(lambda _: Say("never"), faults=at_every_request(fault)) as server,
        pytest.raises((anthropic.APIStatusError, openai.APIStatusError), match=f"(?i){message}") as caught,
    ):
        ask(server)
    assert type(caught.value).__name__ == (of_anthropic if ask is ask_anthropic else of_openai)
    assert caught.value.request_id == "req_00000001"
    entry = server.journal()[0]
    assert (entry.fault, entry.status, entry.usage) == (fault, caught.value.status_code, None)


@every_wire
def test_rate_limited_has_retry_after(ask: Ask) -> None:
    """A simulated 429 has a Retry-After header."""
    with ModelServer(faults=at_every_request("rate_limited", retry_after_s=7)) as server:
        with pytest.raises((anthropic.RateLimitError, openai.RateLimitError)) as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "7"


@every_wire
def test_overloaded_has_retry_after_if_configured(ask: Ask) -> None:
    """A 529 (503 for OpenAI) has a Retry-After header only if `overloaded_retry_after_s` is set."""
    errors = (anthropic.InternalServerError, openai.InternalServerError)
    with ModelServer(faults=at_every_request("overloaded")) as server:
        with pytest.raises(errors) as caught:
            ask(server)
        assert "retry-after" not in caught.value.response.headers
        server.use(at_every_request("overloaded", overloaded_retry_after_s=4))
        with pytest.raises(errors) as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "4"


def test_overflow_and_quota_have_the_vendors_codes() -> None:
    """Overflow and quota errors have OpenAI's `code` and Anthropic's numbers, which clients use to classify them."""
    with ModelServer(faults=Faults(context_window_tokens=20)) as server:
        with pytest.raises(openai.BadRequestError) as responses:
            ask_responses(server, "long " * 100)
        assert (responses.value.code, responses.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 20 maximum"):
            ask_anthropic(server, "long " * 100)
        with pytest.raises(openai.BadRequestError, match=r"maximum context length is 20 tokens"):
            ask_chat(server, "long " * 100)
        server.use(at_every_request("quota_exhausted"))
        with pytest.raises(openai.RateLimitError) as quota:
            ask_chat(server)
        assert quota.value.code == "insufficient_quota"


@every_wire
def test_a_hang_ends_with_the_clients_timeout(ask: Ask) -> None:
    """The server sends nothing until the client gives up. Then it ends the call."""
    with ModelServer(faults=at_every_request("hang")) as server:
        with pytest.raises((anthropic.APITimeoutError, openai.APITimeoutError)):
            ask(server, timeout_s=0.2)
        stats = server.wait_until(lambda stats: stats.requests > 0 and stats.in_flight == 0, PATIENCE_S)
        assert (stats.by_status, stats.by_fault) == ({0: 1}, {"hang": 1})


@every_wire
def test_a_dripping_body_outlasts_the_read_timeout(ask: Ask) -> None:
    """A byte every few ms prevents a read timeout, so the call takes longer than the timeout."""
    with ModelServer(lambda _: Say("x" * 1_000), faults=at_every_request("drip", drip_ms=2)) as server:
        began_s = time.monotonic()
        reply = ask(server, timeout_s=1.5)
        assert time.monotonic() - began_s > 1.5
        assert reply.model
        assert server.journal()[0].latency_ms > 1_500


@every_wire
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_broken_connection_is_a_connection_error(ask: Ask, fault: str) -> None:
    """A reset and a body that is cut in half are connection errors. The next request is answered."""
    with ModelServer(lambda _: Say("fine"), faults=Faults.parse(f"{fault}@1")) as server:
        with pytest.raises((anthropic.APIConnectionError, openai.APIConnectionError)):
            ask(server)
        ask(server)
        assert [entry.fault for entry in server.journal()] == [fault, None]


@every_wire
def test_a_web_page_instead_of_an_answer(ask: Ask) -> None:
    """For a 200 with HTML, both SDKs return a string and raise nothing."""
    with ModelServer(faults=at_every_request("html")) as server:
        assert isinstance(ask(server), str)


@every_wire
def test_a_slow_answer_is_only_slow(ask: Ask) -> None:
    """The answer is correct, and arrives `slow_ms` later."""
    with ModelServer(lambda _: Say("at last"), faults=at_every_request("slow", slow_ms=150)) as server:
        began_s = time.monotonic()
        ask(server)
        assert time.monotonic() - began_s >= 0.15


@every_wire
def test_missing_fields_in_a_200(ask: Ask) -> None:
    """The SDKs raise nothing for null content, missing usage and a null stop reason."""
    faults = Faults.parse("content_null@1,no_usage@2,stop_null@3")
    with ModelServer(lambda _: Say("something"), faults=faults) as server:
        hollow, free, endless = ask(server), ask(server), ask(server)
    if ask is ask_anthropic:
        assert hollow.content is None
        assert endless.stop_reason is None
        assert getattr(free, "usage", None) is None
    elif ask is ask_responses:
        assert hollow.output is None
        assert endless.status is None
        assert free.usage is None
    else:
        assert hollow.choices[0].message.content is None
        assert endless.choices[0].finish_reason is None
        assert free.usage is None


@every_wire
def test_malformed_arguments(ask: Ask) -> None:
    """OpenAI's formats send JSON that is cut off. Anthropic's format sends a value that violates the schema, such as {}."""
    with ModelServer(request_refund, faults=at_every_request("malformed_arguments")) as server:
        _, (_, name, arguments) = calls_of(ask(server))
    assert name == "refund"
    if ask is ask_anthropic:
        assert not Draft202012Validator(REFUND).is_valid(arguments)
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(arguments)


@every_wire
def test_invalid_arguments_are_json_that_the_schema_refuses(ask: Ask) -> None:
    """Each mistake is valid JSON and violates the schema. The same seed makes the same mistake; other seeds make others."""
    mistakes = set()
    with ModelServer(request_refund) as server:
        for seed in range(12):
            made = []
            for _ in range(2):
                server.use(at_every_request("invalid_arguments", seed=seed, once=False))
                arguments = calls_of(ask(server))[1][2]
                made.append(json.dumps(arguments if ask is ask_anthropic else json.loads(arguments)))
            assert made[0] == made[1]
            assert not Draft202012Validator(REFUND).is_valid(json.loads(made[0]))
            mistakes.add(made[0])
    assert len(mistakes) > 3


@every_wire
def test_unknown_tool_and_odd_ids(ask: Ask) -> None:
    """Faults give a call to a tool that was not offered, one id for several calls, empty ids, and a cut-off turn."""
    faults = Faults.parse("unknown_tool@1,repeated_id@2,empty_id@3,cut_off@4")
    with ModelServer(request_refund, faults=faults) as server:
        unknown, repeated, empty, cut = (ask(server) for _ in range(4))
    assert [name for _, name, _ in calls_of(unknown)] == ["refund", "refund_v2"]
    assert len({id_ for id_, _, _ in calls_of(repeated)}) == 1
    assert {id_ for id_, _, _ in calls_of(empty)} == {""}
    stop = getattr(cut, "stop_reason", None) or getattr(cut, "status", None) or cut.choices[0].finish_reason
    assert stop in ("max_tokens", "incomplete", "length")


def test_a_silent_model_update() -> None:
    """`answers_as` changes the model name in replies, and nothing else."""
    with ModelServer(lambda _: Say("hello"), faults=Faults(answers_as="gpt-5-2025-11-13")) as server:
        assert ask_responses(server).model == "gpt-5-2025-11-13"
        assert ask_responses(server).output_text == "hello"


@every_wire
def test_rate_limit_sends_the_real_wait(ask: Ask) -> None:
    """Above the limit, a 429 has the real wait as Retry-After, and the limit's state in the vendor's headers."""
    with ModelServer(lambda _: Say("ok"), faults=Faults(requests_per_minute=2)) as server:
        ask(server)
        ask(server)
        with pytest.raises((anthropic.RateLimitError, openai.RateLimitError)) as caught:
            ask(server)
        headers = caught.value.response.headers
        assert 20 <= int(headers["retry-after"]) <= 30
        if ask is ask_anthropic:
            assert headers["anthropic-ratelimit-requests-remaining"] == "0"
            assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        else:
            assert headers["x-ratelimit-limit-requests"] == "2"
            assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert server.journal()[-1].fault is None


@every_wire
def test_token_limits_send_the_real_wait(ask: Ask) -> None:
    """The first call uses up each vendor's token limit. The headers report it, and the next call gets a 429."""
    mine = {"input_tokens_per_minute": 200} if ask is ask_anthropic else {"tokens_per_minute": 200}
    with ModelServer(lambda _: Say("ok"), faults=Faults.model_validate(mine)) as server:
        ask(server, "x" * 320)
        with pytest.raises((anthropic.RateLimitError, openai.RateLimitError), match=r"tokens per min") as caught:
            ask(server, "y" * 320)
    headers = caught.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    if ask is ask_anthropic:
        assert headers["anthropic-ratelimit-input-tokens-limit"] == "200"
        assert int(headers["anthropic-ratelimit-input-tokens-remaining"]) < 100
    else:
        assert headers["x-ratelimit-limit-tokens"] == "200"
        assert int(headers["x-ratelimit-remaining-tokens"]) < 100


def test_input_from_the_prompt_cache_is_not_limited() -> None:
    """As at Anthropic, a repeated long prompt only counts its new tokens."""
    system: Any = [{"type": "text", "text": "rule " * 2_000, "cache_control": {"type": "ephemeral"}}]
    with ModelServer(lambda _: Say("ok"), faults=Faults(input_tokens_per_minute=3_000)) as server:
        sdk = anthropic_sdk().with_options(base_url=server.url)
        for text in ("one", "two", "three"):
            message: Any = {"role": "user", "content": text}
            sdk.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=[message], system=system)
        read = [entry.usage.input_tokens for entry in server.journal() if entry.usage]
    assert sum(read) > 7_000


def test_output_limit_is_charged_with_what_was_written() -> None:
    """A long answer uses up the limit, for any `max_tokens`. The next call gets a 429 with the wait."""
    with ModelServer(lambda _: Say("x" * 800), faults=Faults(output_tokens_per_minute=60)) as server:
        ask_anthropic(server)
        with pytest.raises(anthropic.RateLimitError, match="60 output tokens per minute") as caught:
            ask_anthropic(server)
    assert 130 < int(caught.value.response.headers["retry-after"]) <= 141


@every_wire
def test_an_outage_ends_by_itself(ask: Ask) -> None:
    """Every call fails during the outage, in spite of the other settings. After it, calls are answered again."""
    faults = Faults(outage=Fault.OVERLOADED, outage_s=3_600, requests_per_minute=1)

    def is_answered() -> bool:
        with contextlib.suppress(anthropic.InternalServerError, openai.InternalServerError):
            return bool(ask(server))
        return False

    with ModelServer(lambda _: Say("ok"), faults=faults) as server:
        assert not any(is_answered() for _ in range(3))
        server.use(faults.model_copy(update={"outage_s": 0.02}))
        wait_for(is_answered, "the outage to end")
        *refused, answered = [entry.fault for entry in server.journal()]
        assert set(refused) == {"overloaded"}
        assert answered is None


def test_an_outage_of_429s_names_its_end() -> None:
    """Retry-After is the remaining time of the outage, and a call after that time is answered."""
    with ModelServer(faults=Faults(outage=Fault.RATE_LIMITED, outage_s=20)) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            ask_chat(server)
        assert caught.value.response.headers["retry-after"] == "20"


@pytest.mark.parametrize("outage", [Fault.HANG, Fault.RESET])
def test_an_outage_may_be_silent(outage: Fault) -> None:
    """During such an outage, every call gets no answer or a broken connection."""
    with ModelServer(faults=Faults(outage=outage, outage_s=60)) as server:
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                ask_chat(server, timeout_s=0.2)
        stats = server.wait_until(lambda stats: stats.in_flight == 0, PATIENCE_S)
        assert stats.by_fault == {outage: 2}


@every_wire
@pytest.mark.parametrize("fault", ["no_usage", "absurd_usage"])
def test_journal_has_the_real_usage(ask: Ask, fault: str) -> None:
    """The journal has the real usage even if the answer hides it. So a test can check a budget at the server."""
    with ModelServer(lambda _: Say("ok"), faults=at_every_request(fault)) as server:
        spoiled = ask(server)
        server.use(Faults())
        ask(server)
        lied, true = (entry.usage for entry in server.journal())
    assert lied == true
    assert true is not None
    assert true.input_tokens > 0
    if fault == "absurd_usage":
        usage = spoiled.usage
        reported = usage.prompt_tokens if ask is ask_chat else usage.input_tokens
        assert reported != true.input_tokens


def outcomes(entries: list[Entry]) -> dict[tuple[str, int, int], str | None]:
    """Return the fault of each attempt at each turn of each conversation."""
    return {(entry.conversation, entry.turn, entry.attempt): entry.fault for entry in entries}


def test_same_seed_gives_the_same_faults_in_any_order() -> None:
    """Forty conversations are requested three times each, eight at a time. Another order gives the same faults."""
    faults = Faults(rate_limited=0.2, provider_error=0.2, no_usage=0.1, seed=11)
    seen = []
    for shuffle in (1, 2):
        texts = [f"ticket {number}" for number in range(40)] * 3
        random.Random(shuffle).shuffle(texts)
        with ModelServer(lambda _: Say("ok"), faults=faults) as server, ThreadPoolExecutor(8) as pool:

            def ask(text: str, server: ModelServer = server) -> None:
                with contextlib.suppress(openai.APIStatusError):
                    ask_responses(server, text)

            list(pool.map(ask, texts))
            seen.append(outcomes(server.journal()))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 120
    assert {fault for fault in seen[0].values() if fault} == {"rate_limited", "provider_error", "no_usage"}


def test_faults_of_a_turn_are_limited() -> None:
    """With `once`, a turn is answered after `max_faults_per_turn` faults, even if the probability is 1."""
    with ModelServer(lambda _: Say("ok"), faults=at_every_request("provider_error", max_faults_per_turn=2)) as server:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                ask_chat(server)
        ask_chat(server)
        assert [entry.fault for entry in server.journal()] == ["provider_error", "provider_error", None]


def test_faults_can_be_scripted_by_turn() -> None:
    """`fault@turn1`, written twice, affects only the first two attempts at the first turn of every conversation."""
    with ModelServer(lambda _: Say("ok"), faults=Faults.parse("overloaded@turn1,html@turn1")) as server:
        for text in ("one", "two"):
            with pytest.raises(openai.InternalServerError):
                ask_chat(server, text)
            assert isinstance(ask_chat(server, text), str)
            assert ask_chat(server, text).choices[0].message.content == "ok"


def test_script_repeats_a_turn_after_a_fault() -> None:
    """After a refused request or a spoiled call, a script answers the same turn again."""
    script = ScriptBrain([Use([("refund", {"order": "W1", "why": "late"})]), "Refunded."])
    tools: Any = [{"type": "function", "function": {"name": "refund", "parameters": REFUND}}]
    messages: list[Any] = [{"role": "user", "content": "refund W1"}]
    faults = Faults.parse("unknown_tool@1,provider_error@2,spoil_positional=true")
    with ModelServer(script, faults=faults) as server:
        sdk = openai_sdk().with_options(base_url=server.openai_url, max_retries=2)
        for _ in range(3):
            reply = sdk.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
            message = reply.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls or []:
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "ERROR: no such tool"})
        assert [call["function"]["name"] for each in messages for call in each.get("tool_calls", [])] == [
            "refund_v2",
            "refund",
        ]
        assert messages[-1]["content"] == "Refunded."
        assert server.stats().unexpected == 0


def test_positional_brains_have_no_spoiled_calls_by_default() -> None:
    """Faults that add a turn do not affect scripts and transcripts, unless `spoil_positional` is set."""
    script = ScriptBrain([Use([("refund", {"order": "W1", "why": "late"})])])
    with ModelServer(script, faults=at_every_request("unknown_tool")) as server:
        assert calls_of(ask_chat(server))[0][1] == "refund"
        assert server.journal()[0].fault is None


def test_every_fault_can_be_drawn() -> None:
    """Each fault can be drawn, and the server goes on serving after it."""
    with ModelServer(RuleBrain(request_refund)) as server:
        for fault in Fault:
            server.use(at_every_request(fault, hang_s=0.05, slow_ms=1, drip_ms=1))
            with contextlib.suppress(openai.APIError):
                ask_chat(server, f"conversation for {fault}")
        server.use(Faults())
        ask_chat(server)
        stats = server.wait_until(lambda stats: stats.in_flight == 0, PATIENCE_S)
        assert set(stats.by_fault) == set(Fault)
