"""One suite for every registered provider, over real HTTP: different vendors give the same `ModelReply`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.schemas.message import Text, UserMessage
from midwatch.schemas.model import Stop, Usage
from midwatch.workers import providers
from midwatch.workers.providers import Provider
from tests.contract.provider_replies import VENDOR_REPLIES, VendorReplies
from tests.contract.provider_requests import (
    KEY,
    assistant,
    call,
    credentials,
    make_request,
    next_request,
    result,
)
from tests.contract.provider_server import ProviderServer, reply


@pytest.fixture
def vendor() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(params=providers.BUILT_IN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, vendor: ProviderServer) -> Iterator[Provider]:
    yield providers.load(name, credentials(vendor.url))
    providers.close()


@pytest.fixture
def replies(name: str) -> VendorReplies:
    assert name in VENDOR_REPLIES, f"provider {name!r} needs a row in tests/contract/provider_replies.py"
    return VENDOR_REPLIES[name]


def test_text_answer_is_complete(model: Provider, vendor: ProviderServer, replies: VendorReplies, name: str) -> None:
    """An answer has its text, its usage, the model that answered, the request id and the latency."""
    ids = {"request-id": "req_42"} if name == "anthropic" else {"x-request-id": "req_42"}
    vendor.answer_next(reply(200, replies.text("Grüße, 世界"), ids))
    answer = model.complete(make_request())
    assert (answer.text, answer.stop, answer.model) == ("Grüße, 世界", Stop.END, "model-2026")
    assert answer.usage == Usage(input_tokens=314, output_tokens=21)
    assert answer.request_id == "req_42"
    assert answer.latency_ms >= 0
    assert (model.name, vendor.requests[0].path) == (name, replies.path)
    assert vendor.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_tool_loop(model: Provider, vendor: ProviderServer, replies: VendorReplies, name: str) -> None:
    """A call is returned with its arguments. Its result is sent with the call's id. Then the model answers."""
    vendor.answer_next(reply(200, replies.calls(("call_7", "search", '{"query":"refunds","limit":3}'))))
    vendor.answer_next(reply(200, replies.text("Three.")))
    request = make_request()
    first = model.complete(request)
    assert first.stop is Stop.TOOLS
    assert [(c.id, c.name, c.raw_arguments) for c in first.tool_calls] == [
        ("call_7", "search", '{"query":"refunds","limit":3}')
    ]
    second = model.complete(next_request(request, first, name, '{"found":3}'))
    assert (second.stop, second.text) == (Stop.END, "Three.")
    assert replies.call_ids(vendor.requests[1].json) == ["call_7"]
    assert replies.results(vendor.requests[1].json) == [("call_7", '{"found":3}')]


def test_parallel_calls_keep_their_order(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """Parallel calls keep their order. Their results are sent in the same order, even if recorded in another one."""
    vendor.answer_next(reply(200, replies.calls(*((f"c{n}", "search", f'{{"query":"q{n}"}}') for n in range(5)))))
    assert [c.id for c in model.complete(make_request()).tool_calls] == ["c0", "c1", "c2", "c3", "c4"]
    calls = [call(call_id=f"c{n}") for n in range(5)]
    vendor.answer_next(reply(200, replies.text("done")))
    answers = [result(2, n, f"r{n}", call_id=f"c{n}") for n in (3, 0, 4, 2, 1)]
    model.complete(make_request(UserMessage(group=1, text="go"), assistant(2, *calls), *answers))
    body = vendor.requests[1].json
    assert len(set(replies.call_ids(body))) == 5
    assert replies.results(body) == [(one, f"r{n}") for n, one in enumerate(replies.call_ids(body))]


def test_repeated_ids_are_sent_as_unique_ids(
    model: Provider, vendor: ProviderServer, replies: VendorReplies, name: str
) -> None:
    """Ids that a model repeats are stored unchanged and sent as unique ids. Each result stays with its call."""
    vendor.answer_next(
        reply(200, replies.calls(("same", "search", '{"query":"a"}'), ("same", "search", '{"query":"b"}')))
    )
    request = make_request()
    first = model.complete(request)
    assert [c.id for c in first.tool_calls] == ["same", "same"]
    vendor.answer_next(reply(200, replies.calls(("same", "search", '{"query":"c"}'))), reply(200, replies.text("ok")))
    request = next_request(request, first, name, "A", "B")
    request = next_request(request, model.complete(request), name, "C")
    model.complete(request)
    body = vendor.requests[2].json
    ids = replies.call_ids(body)
    assert len(ids) == len(set(ids)) == 3
    assert replies.results(body) == list(zip(ids, ("A", "B", "C"), strict=True))
    assert replies.call_ids(vendor.requests[1].json) == ids[:2]


def test_missing_ids_are_generated(model: Provider, vendor: ProviderServer, replies: VendorReplies, name: str) -> None:
    """A call without an id gets one. The same conversation always gives the same id."""
    calls = replies.calls(("", "search", '{"query":"a"}'), ("", "search", '{"query":"b"}'))
    vendor.answer_next(reply(200, calls), reply(200, calls))
    request = make_request()
    answer = model.complete(request)
    ids = [c.id for c in answer.tool_calls]
    assert ids == [c.id for c in model.complete(request).tool_calls] == ["call_0_0", "call_0_1"]
    vendor.answer_next(reply(200, calls))
    assert [c.id for c in model.complete(next_request(request, answer, name, "x", "y")).tool_calls] == [
        "call_1_0",
        "call_1_1",
    ]


def test_same_request_same_bytes(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """The same request is always written as the same bytes."""
    vendor.answer_all(reply(200, replies.text("hm")))
    history = (UserMessage(group=1, text="a"), assistant(2, Text(text="b"), call()), result(2, 0, "c"))
    model.complete(make_request(*history, cache_key="s-1"))
    model.complete(make_request(*history, cache_key="s-1"))
    assert vendor.requests[0].body == vendor.requests[1].body


def test_reply_has_the_rate_limit_headers(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """A reply has the rate-limit headers, with names in lower case, and no other header."""
    noisy = {**{header.upper(): value for header, value in replies.rate_headers.items()}, "set-cookie": "a=b"}
    vendor.answer_next(reply(200, replies.text("hi"), noisy), reply(200, replies.text("hi")))
    assert model.complete(make_request()).ratelimit == replies.rate_headers
    assert model.complete(make_request()).ratelimit is None


def test_requested_limit_is_a_length_stop(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """An answer that stopped at the requested limit has Stop.LENGTH."""
    vendor.answer_next(reply(200, replies.cut_at_length("and then", output_tokens=1_024)))
    answer = model.complete(make_request(max_output_tokens=1_024))
    assert (answer.stop, answer.text) == (Stop.LENGTH, "and then")


def test_full_window_without_an_error(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """A length stop far below the requested limit means that the window is full."""
    vendor.answer_next(reply(200, replies.cut_at_length("and", output_tokens=3)))
    assert model.complete(make_request(max_output_tokens=8_000)).stop is Stop.CONTEXT_FULL
    vendor.answer_next(reply(200, replies.cut_at_length("and", output_tokens=3)))
    assert model.complete(make_request(max_output_tokens=64)).stop is Stop.LENGTH


def test_refusal_is_a_stop(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """A refusal has Stop.REFUSAL and the model's text."""
    vendor.answer_next(reply(200, replies.refusal()))
    answer = model.complete(make_request())
    assert (answer.stop, answer.text) == (Stop.REFUSAL, "No.")


@pytest.mark.parametrize("bad", [None, -1, 10**12, "12", True, 1.5, [3]])
def test_impossible_usage_counts_as_not_reported(
    model: Provider, vendor: ProviderServer, replies: VendorReplies, bad: object
) -> None:
    """Usage that is missing, negative, too large or not a number counts as zero and not reported. A wrong count is named."""
    vendor.answer_all(reply(200, replies.with_usage(replies.usage(bad, 5))))
    wrong_input = Usage(reported=False, impossible=None if bad is None else "input_tokens")
    assert model.complete(make_request()).usage == wrong_input
    vendor.answer_all(reply(200, replies.with_usage(replies.usage(5, bad))))
    wrong_output = Usage(reported=False, impossible=None if bad is None else "output_tokens")
    assert model.complete(make_request()).usage == wrong_output
    vendor.answer_all(reply(200, replies.with_usage(bad)))
    assert model.complete(make_request()).usage == Usage(reported=False)


def test_lone_surrogate_is_replaced(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """Text that was cut inside a surrogate pair can be stored and sent again."""
    vendor.answer_next(reply(200, replies.text("fine \ud83d")))
    text = model.complete(make_request()).text
    assert text.startswith("fine ")
    text.encode()


def test_output_schema(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """An output schema is sent to the vendor. The choice of tools is the model's."""
    vendor.answer_all(reply(200, replies.text("{}")))
    schema = {"type": "object", "properties": {"verdict": {"type": "string"}}, "required": ["verdict"]}
    model.complete(make_request(output_schema=schema))
    model.complete(make_request())
    shaped, plain = vendor.requests[0].json, vendor.requests[1].json
    assert "verdict" in str(shaped)
    assert "verdict" not in str(plain)
    assert "tool_choice" not in {*shaped, *plain}


def test_a_call_without_a_result_gets_one(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """A call whose result was lost is sent with a result that says so, because every vendor refuses it without one."""
    vendor.answer_next(reply(200, replies.text("ok")))
    model.complete(make_request(UserMessage(group=1, text="go"), assistant(2, call())))
    body = vendor.requests[0].json
    ((call_id, content),) = replies.results(body)
    assert [call_id] == replies.call_ids(body)
    assert "No result of this call was recorded." in content


def test_surrogates_and_nul_are_replaced(model: Provider, vendor: ProviderServer, replies: VendorReplies) -> None:
    """A lone surrogate has no UTF-8 form, and NUL is refused by some servers. Both are sent as replacement characters."""
    vendor.answer_next(reply(200, replies.text("ok")))
    written = call(raw_arguments='{"query":"a\\ud800b\\u0000c"}')
    text = "x\ud800y\0z, and the text \\u0000"
    model.complete(make_request(UserMessage(group=1, text=text), assistant(2, written), result(2, 0, "r\0\udfff")))
    sent = str(vendor.requests[0].json)
    assert not {"\ud800", "\0"} & set(sent)
    assert "\\ud800" not in sent
    assert vendor.requests[0].body.decode().count("\ufffd") == 6
