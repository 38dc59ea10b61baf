"""Every registered provider through one suite, over real HTTP: what they answer, in one vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import Text, UserMessage
from midwatch.schemas.model import Stop, Usage
from midwatch.workers import providers
from midwatch.workers.providers import Provider
from tests.contract.provider_requests import KEY, SEARCH, after, ask, assistant, call, credentials, result
from tests.contract.provider_server import ProviderServer, reply
from tests.contract.provider_wire import WIRES, Wire


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
def wire(name: str) -> Wire:
    assert name in WIRES, f"provider {name!r} is registered and has no row in tests/contract/provider_wire.py"
    return WIRES[name]


def test_text(model: Provider, vendor: ProviderServer, wire: Wire, name: str) -> None:
    """Text comes back as text, with usage, the model that answered, the request's id and how long it took."""
    ids = {"request-id": "req_42"} if name == "anthropic" else {"x-request-id": "req_42"}
    vendor.will(reply(200, wire.text("Grüße, 世界"), ids))
    answer = model.complete(ask())
    assert (answer.text, answer.stop, answer.model) == ("Grüße, 世界", Stop.END, "model-2026")
    assert answer.usage == Usage(input_tokens=314, output_tokens=21)
    assert answer.request_id == "req_42"
    assert answer.latency_ms >= 0
    assert (model.name, vendor.seen[0].path) == (name, wire.path)
    assert vendor.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_tool_loop(model: Provider, vendor: ProviderServer, wire: Wire, name: str) -> None:
    """A call comes back with its arguments; its result goes out under the call's id; then the model answers."""
    vendor.will(reply(200, wire.calls(("call_7", "search", '{"query":"refunds","limit":3}'))))
    vendor.will(reply(200, wire.text("Three.")))
    request = ask()
    first = model.complete(request)
    assert first.stop is Stop.TOOLS
    assert [(c.id, c.name, c.raw_arguments) for c in first.tool_calls] == [
        ("call_7", "search", '{"query":"refunds","limit":3}')
    ]
    second = model.complete(after(request, first, name, '{"found":3}'))
    assert (second.stop, second.text) == (Stop.END, "Three.")
    assert wire.call_ids(vendor.seen[1].json) == ["call_7"]
    assert wire.results(vendor.seen[1].json) == [("call_7", '{"found":3}')]


def test_parallel_calls(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """Several calls of one turn keep their order, and so do their results, in whatever order they were recorded."""
    vendor.will(reply(200, wire.calls(*((f"c{n}", "search", f'{{"query":"q{n}"}}') for n in range(5)))))
    assert [c.id for c in model.complete(ask()).tool_calls] == ["c0", "c1", "c2", "c3", "c4"]
    calls = [call(call_id=f"c{n}") for n in range(5)]
    vendor.will(reply(200, wire.text("done")))
    answers = [result(2, n, f"r{n}", call_id=f"c{n}") for n in (3, 0, 4, 2, 1)]
    model.complete(ask(UserMessage(group=1, text="go"), assistant(2, *calls), *answers))
    assert wire.results(vendor.seen[1].json) == [(f"c{n}", f"r{n}") for n in range(5)]


def test_repeated_ids(model: Provider, vendor: ProviderServer, wire: Wire, name: str) -> None:
    """Ids that a model repeats are kept as they came, made unique on the wire, and each result stays with its call."""
    vendor.will(reply(200, wire.calls(("same", "search", '{"query":"a"}'), ("same", "search", '{"query":"b"}'))))
    request = ask()
    first = model.complete(request)
    assert [c.id for c in first.tool_calls] == ["same", "same"]
    vendor.will(reply(200, wire.calls(("same", "search", '{"query":"c"}'))), reply(200, wire.text("ok")))
    request = after(request, first, name, "A", "B")
    request = after(request, model.complete(request), name, "C")
    model.complete(request)
    body = vendor.seen[2].json
    ids = wire.call_ids(body)
    assert len(ids) == len(set(ids)) == 3
    assert wire.results(body) == list(zip(ids, ("A", "B", "C"), strict=True))
    assert wire.call_ids(vendor.seen[1].json) == ids[:2]


def test_missing_ids(model: Provider, vendor: ProviderServer, wire: Wire, name: str) -> None:
    """Calls without an id get one that is the same whenever the same conversation is read again."""
    calls = wire.calls(("", "search", '{"query":"a"}'), ("", "search", '{"query":"b"}'))
    vendor.will(reply(200, calls), reply(200, calls))
    request = ask()
    answer = model.complete(request)
    ids = [c.id for c in answer.tool_calls]
    assert ids == [c.id for c in model.complete(request).tool_calls] == ["call_0_0", "call_0_1"]
    vendor.will(reply(200, calls))
    assert [c.id for c in model.complete(after(request, answer, name, "x", "y")).tool_calls] == ["call_1_0", "call_1_1"]


def test_same_request_same_bytes(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """The same request builds the same bytes, and the next step's request begins with all of this one's messages."""
    vendor.always(reply(200, wire.text("hm")))
    history = (UserMessage(group=1, text="a"), assistant(2, Text(text="b"), call()), result(2, 0, "c"))
    model.complete(ask(*history, cache_key="s-1"))
    model.complete(ask(*history, cache_key="s-1"))
    assert vendor.seen[0].body == vendor.seen[1].body


def test_rate_limit_headers(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """Rate-limit headers come along, names in lower case; no other header does."""
    noisy = {**{header.upper(): value for header, value in wire.rate_headers.items()}, "set-cookie": "a=b"}
    vendor.will(reply(200, wire.text("hi"), noisy), reply(200, wire.text("hi")))
    assert model.complete(ask()).ratelimit == wire.rate_headers
    assert model.complete(ask()).ratelimit is None


def test_length_stop(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """An answer that was cut at the limit that was asked for says so."""
    vendor.will(reply(200, wire.cut_at_length("and then", output_tokens=1_024)))
    answer = model.complete(ask(max_output_tokens=1_024))
    assert (answer.stop, answer.text) == (Stop.LENGTH, "and then")


def test_full_window_without_an_error(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """A length stop far below the limit that was asked for means that the window is full."""
    vendor.will(reply(200, wire.cut_at_length("and", output_tokens=3)))
    assert model.complete(ask(max_output_tokens=8_000)).stop is Stop.CONTEXT_FULL
    vendor.will(reply(200, wire.cut_at_length("and", output_tokens=3)))
    assert model.complete(ask(max_output_tokens=64)).stop is Stop.LENGTH


def test_refusal(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """A refusal is a stop, with what the model said."""
    vendor.will(reply(200, wire.refusal()))
    answer = model.complete(ask())
    assert (answer.stop, answer.text) == (Stop.REFUSAL, "No.")


def test_unknown_stop(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """A stop that this release does not know is reported as such, with its own name kept."""
    vendor.will(reply(200, wire.odd_stop()))
    answer = model.complete(ask())
    assert answer.stop is Stop.UNKNOWN
    assert "tea_break" in answer.raw_stop


@pytest.mark.parametrize("bad", [None, -1, 10**12, "12", True, 1.5, [3]])
def test_usage_that_can_not_be_true(model: Provider, vendor: ProviderServer, wire: Wire, bad: object) -> None:
    """Usage that is missing, negative, absurd or no number counts as not reported, and as zero."""
    vendor.always(reply(200, wire.with_usage(wire.usage(bad, 5))))
    assert model.complete(ask()).usage == Usage(reported=False)
    vendor.always(reply(200, wire.with_usage(wire.usage(5, bad))))
    assert model.complete(ask()).usage == Usage(reported=False)
    vendor.always(reply(200, wire.with_usage(bad)))
    assert model.complete(ask()).usage == Usage(reported=False)


def test_half_a_character(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """Text that was cut inside a character can be stored and sent again."""
    vendor.will(reply(200, wire.text("fine \ud83d")))
    text = model.complete(ask()).text
    assert text.startswith("fine ")
    text.encode()


def test_forced_tool_and_output_schema(model: Provider, vendor: ProviderServer, wire: Wire) -> None:
    """A forced tool and an output schema reach the vendor in some form."""
    vendor.always(reply(200, wire.text("{}")))
    schema = {"type": "object", "properties": {"verdict": {"type": "string"}}, "required": ["verdict"]}
    model.complete(ask(force_tool=SEARCH.name, output_schema=schema))
    model.complete(ask())
    forced, plain = vendor.seen[0].json, vendor.seen[1].json
    assert SEARCH.name in str(forced["tool_choice"])
    assert "verdict" in str(forced)
    assert "tool_choice" not in plain
    assert "verdict" not in str(plain)


def test_a_call_without_a_result_is_never_sent(model: Provider, vendor: ProviderServer) -> None:
    """A history that no vendor accepts is our own fault, found before anything is sent."""
    with pytest.raises(ModelError) as caught:
        model.complete(ask(UserMessage(group=1, text="go"), assistant(2, call())))
    assert caught.value.failure.kind is FailureKind.INTERNAL
    assert "group 2: call 0 has no result" in caught.value.failure.detail
    assert vendor.seen == []
