"""Each fault as the real SDKs meet it, and chance that does not depend on the order of arrival."""

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


def asks_for_a_refund(conversation: Conversation) -> Use:
    """Always the same two calls."""
    first: dict[str, object] = {"order": "W1", "why": "late"}
    return Use([("refund", first), ("refund", {"order": "W2", "why": "broken"})])


@cache
def anthropic_sdk() -> anthropic.Anthropic:
    """One for all tests: making one loads certificates, which takes longer than a call."""
    return anthropic.Anthropic(api_key="any", max_retries=0)


@cache
def openai_sdk() -> openai.OpenAI:
    """One for all tests."""
    return openai.OpenAI(api_key="any", max_retries=0)


@pytest.fixture(scope="module", autouse=True)
def _close_sdks() -> Iterator[None]:
    yield
    anthropic_sdk().close()
    openai_sdk().close()


def ask_anthropic(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """One Messages call; no retries, so that every fault shows."""
    tools: Any = [{"name": "refund", "input_schema": REFUND}]
    sdk = anthropic_sdk().with_options(base_url=server.url, timeout=timeout_s)
    message: Any = {"role": "user", "content": text}
    return sdk.messages.create(model="claude-sonnet-4-6", max_tokens=99, messages=[message], tools=tools)


def ask_responses(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """One Responses call."""
    tools: Any = [{"type": "function", "name": "refund", "parameters": REFUND, "strict": False}]
    sdk = openai_sdk().with_options(base_url=server.openai_url, timeout=timeout_s)
    return sdk.responses.create(model="gpt-5-2025-08-07", input=text, tools=tools)


def ask_chat(server: ModelServer, text: str = "hi", timeout_s: float = 20) -> Any:
    """One Chat Completions call."""
    tools: Any = [{"type": "function", "function": {"name": "refund", "parameters": REFUND}}]
    sdk = openai_sdk().with_options(base_url=server.openai_url, timeout=timeout_s)
    message: Any = {"role": "user", "content": text}
    return sdk.chat.completions.create(model="gpt-4o", messages=[message], tools=tools)


Ask = Callable[..., Any]
ASKS: list[Ask] = [ask_anthropic, ask_responses, ask_chat]
every_wire = pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)


def always(fault: str, **settings: Any) -> Faults:
    """The fault at every request."""
    return Faults.model_validate({fault: 1.0, **settings})


def calls_of(reply: Any) -> list[tuple[str, str, Any]]:
    """(id, name, arguments) of a reply of any wire."""
    if isinstance(reply, anthropic.types.Message):
        return [(block.id, block.name, block.input) for block in reply.content if block.type == "tool_use"]
    if hasattr(reply, "choices"):
        return [(call.id, call.function.name, call.function.arguments) for call in reply.choices[0].message.tool_calls]
    return [(item.call_id, item.name, item.arguments) for item in reply.output if item.type == "function_call"]


@every_wire
@pytest.mark.parametrize(
    ("fault", "of_anthropic", "of_openai", "told"),
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
    ask: Ask, fault: str, of_anthropic: str, of_openai: str, told: str
) -> None:
    """Status, body and headers are the vendor's, so each SDK raises the class that it has for them."""
    with (
        ModelServer(lambda _: Say("never"), faults=always(fault)) as server,
        pytest.raises((anthropic.APIStatusError, openai.APIStatusError), match=f"(?i){told}") as caught,
    ):
        ask(server)
    assert type(caught.value).__name__ == (of_anthropic if ask is ask_anthropic else of_openai)
    assert caught.value.request_id == "req_00000001"
    entry = server.journal()[0]
    assert (entry.fault, entry.status, entry.usage) == (fault, caught.value.status_code, None)


@every_wire
def test_rate_limited_says_when_to_come_back(ask: Ask) -> None:
    """A 429 on demand carries Retry-After."""
    with ModelServer(faults=always("rate_limited", retry_after_s=7)) as server:
        with pytest.raises((anthropic.RateLimitError, openai.RateLimitError)) as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "7"


@every_wire
def test_overloaded_may_say_when_to_come_back(ask: Ask) -> None:
    """A 529 (503 at OpenAI) names no wait, unless it is told to."""
    errors = (anthropic.InternalServerError, openai.InternalServerError)
    with ModelServer(faults=always("overloaded")) as server:
        with pytest.raises(errors) as caught:
            ask(server)
        assert "retry-after" not in caught.value.response.headers
        server.use(always("overloaded", overloaded_retry_after_s=4))
        with pytest.raises(errors) as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "4"


def test_overflow_and_quota_carry_the_codes_that_clients_branch_on() -> None:
    """OpenAI's `code`, Anthropic's numbers: what a classifier needs is there."""
    with ModelServer(faults=Faults(context_window_tokens=20)) as server:
        with pytest.raises(openai.BadRequestError) as responses:
            ask_responses(server, "long " * 100)
        assert (responses.value.code, responses.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 20 maximum"):
            ask_anthropic(server, "long " * 100)
        with pytest.raises(openai.BadRequestError, match=r"maximum context length is 20 tokens"):
            ask_chat(server, "long " * 100)
        server.use(always("quota_exhausted"))
        with pytest.raises(openai.RateLimitError) as quota:
            ask_chat(server)
        assert quota.value.code == "insufficient_quota"


@every_wire
def test_a_hang_ends_with_the_clients_timeout(ask: Ask) -> None:
    """Nothing comes until the client gives up; the server notices, and holds nothing for it."""
    with ModelServer(faults=always("hang")) as server:
        with pytest.raises((anthropic.APITimeoutError, openai.APITimeoutError)):
            ask(server, timeout_s=0.2)
        stats = server.wait_until(lambda stats: stats.requests > 0 and stats.in_flight == 0, PATIENCE_S)
        assert (stats.by_status, stats.by_fault) == ({0: 1}, {"hang": 1})


@every_wire
def test_a_dripping_body_outlasts_the_read_timeout(ask: Ask) -> None:
    """A byte every few ms keeps the read timeout from firing: the call takes longer than the timeout allows."""
    with ModelServer(lambda _: Say("x" * 1_000), faults=always("drip", drip_ms=2)) as server:
        began_s = time.monotonic()
        reply = ask(server, timeout_s=1.5)
        assert time.monotonic() - began_s > 1.5
        assert reply.model
        assert server.journal()[0].latency_ms > 1_500


@every_wire
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_broken_connection_is_a_connection_error(ask: Ask, fault: str) -> None:
    """A reset before the answer and a body cut in half are errors of the connection; the next request is served."""
    with ModelServer(lambda _: Say("fine"), faults=Faults.parse(f"{fault}@1")) as server:
        with pytest.raises((anthropic.APIConnectionError, openai.APIConnectionError)):
            ask(server)
        ask(server)
        assert [entry.fault for entry in server.journal()] == [fault, None]


@every_wire
def test_a_web_page_instead_of_an_answer(ask: Ask) -> None:
    """200 with HTML: both SDKs hand back a string and raise nothing."""
    with ModelServer(faults=always("html")) as server:
        assert isinstance(ask(server), str)


@every_wire
def test_a_slow_answer_is_only_slow(ask: Ask) -> None:
    """The answer is right, and comes `slow_ms` later."""
    with ModelServer(lambda _: Say("at last"), faults=always("slow", slow_ms=150)) as server:
        began_s = time.monotonic()
        ask(server)
        assert time.monotonic() - began_s >= 0.15


@every_wire
def test_holes_in_a_200(ask: Ask) -> None:
    """Null content, no usage and a null stop pass the SDKs in silence."""
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
    """The OpenAI wires carry JSON that breaks off; Anthropic's carries what violates the schema, `{}` for one."""
    with ModelServer(asks_for_a_refund, faults=always("malformed_arguments")) as server:
        _, (_, name, arguments) = calls_of(ask(server))
    assert name == "refund"
    if ask is ask_anthropic:
        assert not Draft202012Validator(REFUND).is_valid(arguments)
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(arguments)


@every_wire
def test_invalid_arguments_are_json_that_the_schema_refuses(ask: Ask) -> None:
    """Different seeds make different mistakes; each is well-formed, each violates the schema, each is repeatable."""
    mistakes = set()
    with ModelServer(asks_for_a_refund) as server:
        for seed in range(12):
            made = []
            for _ in range(2):
                server.use(always("invalid_arguments", seed=seed, once=False))
                arguments = calls_of(ask(server))[1][2]
                made.append(json.dumps(arguments if ask is ask_anthropic else json.loads(arguments)))
            assert made[0] == made[1]
            assert not Draft202012Validator(REFUND).is_valid(json.loads(made[0]))
            mistakes.add(made[0])
    assert len(mistakes) > 3


@every_wire
def test_unknown_tool_and_odd_ids(ask: Ask) -> None:
    """A tool nobody offered; one id for different calls; ids that are empty."""
    faults = Faults.parse("unknown_tool@1,repeated_id@2,empty_id@3,cut_off@4")
    with ModelServer(asks_for_a_refund, faults=faults) as server:
        unknown, repeated, empty, cut = (ask(server) for _ in range(4))
    assert [name for _, name, _ in calls_of(unknown)] == ["refund", "refund_v2"]
    assert len({id_ for id_, _, _ in calls_of(repeated)}) == 1
    assert {id_ for id_, _, _ in calls_of(empty)} == {""}
    told = getattr(cut, "stop_reason", None) or getattr(cut, "status", None) or cut.choices[0].finish_reason
    assert told in ("max_tokens", "incomplete", "length")


def test_a_silent_model_update() -> None:
    """`answers_as` changes the model that replies name, and nothing else."""
    with ModelServer(lambda _: Say("hello"), faults=Faults(answers_as="gpt-5-2025-11-13")) as server:
        assert ask_responses(server).model == "gpt-5-2025-11-13"
        assert ask_responses(server).output_text == "hello"


@every_wire
def test_the_rate_limit_tells_the_truth(ask: Ask) -> None:
    """Beyond the limit comes 429 whose Retry-After is when there is room again, and headers in the vendor's form."""
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
def test_token_limits_tell_the_truth(ask: Ask) -> None:
    """Each vendor's own limit: used up by the first call, told in its headers, and in a 429 that names it."""
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
    """As at Anthropic: the same long prompt again costs only what is new of it."""
    system: Any = [{"type": "text", "text": "rule " * 2_000, "cache_control": {"type": "ephemeral"}}]
    with ModelServer(lambda _: Say("ok"), faults=Faults(input_tokens_per_minute=3_000)) as server:
        sdk = anthropic_sdk().with_options(base_url=server.url)
        for text in ("one", "two", "three"):
            message: Any = {"role": "user", "content": text}
            sdk.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=[message], system=system)
        read = [entry.usage.input_tokens for entry in server.journal() if entry.usage]
    assert sum(read) > 7_000


def test_output_limit_is_charged_with_what_was_written() -> None:
    """A long answer uses the limit up, whatever `max_tokens` says; the next call is told to wait for it."""
    with ModelServer(lambda _: Say("x" * 800), faults=Faults(output_tokens_per_minute=60)) as server:
        ask_anthropic(server)
        with pytest.raises(anthropic.RateLimitError, match="60 output tokens per minute") as caught:
            ask_anthropic(server)
    assert 130 < int(caught.value.response.headers["retry-after"]) <= 141


@every_wire
def test_an_outage_ends_by_itself(ask: Ask) -> None:
    """Every call fails while it lasts, whatever limits and chance say; later, without a word, calls are answered."""
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
    """Retry-After is what is left of it, and may be obeyed."""
    with ModelServer(faults=Faults(outage=Fault.RATE_LIMITED, outage_s=20)) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            ask_chat(server)
        assert caught.value.response.headers["retry-after"] == "20"


@pytest.mark.parametrize("outage", [Fault.HANG, Fault.RESET])
def test_an_outage_may_be_silent(outage: Fault) -> None:
    """Nothing comes, or the connection breaks, for every call."""
    with ModelServer(faults=Faults(outage=outage, outage_s=60)) as server:
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                ask_chat(server, timeout_s=0.2)
        stats = server.wait_until(lambda stats: stats.in_flight == 0, PATIENCE_S)
        assert stats.by_fault == {outage: 2}


@every_wire
@pytest.mark.parametrize("fault", ["no_usage", "absurd_usage"])
def test_the_journal_knows_what_an_answer_cost(ask: Ask, fault: str) -> None:
    """Whatever the answer says of it: a budget can be checked at the server."""
    with ModelServer(lambda _: Say("ok"), faults=always(fault)) as server:
        spoiled = ask(server)
        server.use(Faults())
        ask(server)
        lied, true = (entry.usage for entry in server.journal())
    assert lied == true
    assert true is not None
    assert true.input_tokens > 0
    if fault == "absurd_usage":
        usage = spoiled.usage
        told = usage.prompt_tokens if ask is ask_chat else usage.input_tokens
        assert told != true.input_tokens


def outcomes(entries: list[Entry]) -> dict[tuple[str, int, int], str | None]:
    """What happened to each attempt at each turn of each conversation."""
    return {(entry.conversation, entry.turn, entry.attempt): entry.fault for entry in entries}


def test_the_same_seed_faults_the_same_calls_in_any_order() -> None:
    """Forty conversations asked three times each, shuffled and eight at a time: chance does not see the order."""
    faults = Faults(rate_limited=0.2, provider_error=0.2, no_usage=0.1, seed=11)
    seen = []
    for shuffle in (1, 2):
        asked = [f"ticket {number}" for number in range(40)] * 3
        random.Random(shuffle).shuffle(asked)
        with ModelServer(lambda _: Say("ok"), faults=faults) as server, ThreadPoolExecutor(8) as pool:

            def ask(text: str, server: ModelServer = server) -> None:
                with contextlib.suppress(openai.APIStatusError):
                    ask_responses(server, text)

            list(pool.map(ask, asked))
            seen.append(outcomes(server.journal()))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 120
    assert {fault for fault in seen[0].values() if fault} == {"rate_limited", "provider_error", "no_usage"}


def test_a_turn_is_faulted_at_most_so_often() -> None:
    """With `once`, a turn comes through after `max_faults_per_turn` faults even when chance would go on for ever."""
    with ModelServer(lambda _: Say("ok"), faults=always("provider_error", max_faults_per_turn=2)) as server:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                ask_chat(server)
        ask_chat(server)
        assert [entry.fault for entry in server.journal()] == ["provider_error", "provider_error", None]


def test_faults_can_be_scripted_by_turn() -> None:
    """`fault@turn1` twice faults the first two attempts at the first turn of every conversation, and no other."""
    with ModelServer(lambda _: Say("ok"), faults=Faults.parse("overloaded@turn1,html@turn1")) as server:
        for text in ("one", "two"):
            with pytest.raises(openai.InternalServerError):
                ask_chat(server, text)
            assert isinstance(ask_chat(server, text), str)
            assert ask_chat(server, text).choices[0].message.content == "ok"


def test_a_script_keeps_its_place_through_faults_and_spoiled_calls() -> None:
    """Answers go by position: a refused request repeats its turn, and so does one whose call was spoiled on purpose."""
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


def test_spoiled_calls_are_off_by_position_unless_asked_for() -> None:
    """Recorded and scripted conversations are not disturbed by faults that would add a turn to them."""
    script = ScriptBrain([Use([("refund", {"order": "W1", "why": "late"})])])
    with ModelServer(script, faults=always("unknown_tool")) as server:
        assert calls_of(ask_chat(server))[0][1] == "refund"
        assert server.journal()[0].fault is None


def test_every_fault_can_be_drawn() -> None:
    """Each name is a field of Faults, can be drawn, and leaves a server that goes on serving."""
    with ModelServer(RuleBrain(asks_for_a_refund)) as server:
        for fault in Fault:
            server.use(always(fault, hang_s=0.05, slow_ms=1, drip_ms=1))
            with contextlib.suppress(openai.APIError):
                ask_chat(server, f"conversation for {fault}")
        server.use(Faults())
        ask_chat(server)
        stats = server.wait_until(lambda stats: stats.in_flight == 0, PATIENCE_S)
        assert set(stats.by_fault) == set(Fault)
