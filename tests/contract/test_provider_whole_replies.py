"""A reply that came to its end was paid for. Every provider reads as much of it as possible, and does not call the
model again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from midwatch.orchestration.tools.toolbox import RefusedCall, Toolbox, tool
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import Opaque
from midwatch.schemas.model import ModelReply, Stop
from midwatch.workers import providers
from tests.contract.provider_requests import SEARCH, make_request
from tests.contract.provider_server import raw, reply
from tests.contract.provider_setup import Setup, connect_to_fake_vendor

ENDS = ["stop", "STOP", "eos", "EOS", "eos_token", "end_turn", "complete", "COMPLETE", "done", "stop_sequence", "<|eot_id|>",
        "</s>", "FinishReason.STOP", "finish_reason_stop", "tea_break", "", None, ..., 7, True]  # fmt: skip
LENGTHS = [
    "length",
    "LENGTH",
    "max_tokens",
    "MAX_TOKENS",
    "max_output_tokens",
    "max-tokens",
    "max_new_tokens",
    "MAX_LENGTH_REACHED",
    "token limit",
    "output_truncated",
    "limit_of_tokens",
]
REFUSALS = [
    "content_filter",
    "SAFETY",
    "RECITATION",
    "refusal",
    "sensitive",
    "guardrail_intervened",
    "blocked_by_policy",
]
FULL = ["model_context_window_exceeded", "model_length", "context_length_exceeded", "max_context"]
FAILED = [
    "error",
    "network_error",
    "MALFORMED_FUNCTION_CALL",
    "abort",
    "insufficient_system_resource",
    "upstream_failure",
]

TOOLBOX = Toolbox(
    [tool(name="search", description="Find.", validator=JSONSchemaValidator(SEARCH.input_schema))(lambda **_: 1)]
)


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


def complete(setup: Setup, body: Any, headers: dict[str, str] | None = None) -> ModelReply:
    setup.vendor.answer_next(reply(200, body, headers))
    return setup.model.complete(make_request(max_output_tokens=900))


def test_whole_answer_ends_with_any_word(setup: Setup) -> None:
    """An answer with another server's stop word, an unknown one or none is an answer."""
    for word in (*ENDS, "tool_use", "function_call"):
        answer = complete(setup, setup.replies.stopped(setup.replies.text("Well"), word))
        assert (word, answer.stop, answer.text) == (word, Stop.END, "Well")
        if isinstance(word, str):
            assert answer.raw_stop == word


def test_whole_calls_run_after_any_word(setup: Setup) -> None:
    """Complete tool calls are calls, also if the word is another server's, an unknown one or missing."""
    for word in (*ENDS, "tool_calls", "tool_use", "TOOL_CALLS", "function_call", "tool-calls", "server_tool_use"):
        answer = complete(setup, setup.replies.stopped(setup.replies.calls(("c", "search", '{"query":"a"}')), word))
        assert (word, answer.stop) == (word, Stop.TOOLS)


def test_length_stop_in_any_spelling_runs_no_call(setup: Setup) -> None:
    """A call in a reply that stopped at the output limit may be half a call, so it never runs."""
    for word in LENGTHS:
        body = setup.replies.calls(("c", "search", '{"query":"a"}'))
        assert (word, complete(setup, setup.replies.stopped(body, word)).stop) == (word, Stop.LENGTH)


def test_unnamed_length_stop_is_seen_by_the_usage(setup: Setup) -> None:
    """A reply without a stop word that used up the output limit was stopped by it."""
    body = {**setup.replies.calls(("c", "search", "{}")), "usage": setup.replies.usage(314, 900)}
    for word in ("tea_break", "", None, ...):
        assert complete(setup, setup.replies.stopped(body, word)).stop is Stop.LENGTH


@pytest.mark.parametrize(("words", "stop"), [(REFUSALS, Stop.REFUSAL), (FULL, Stop.CONTEXT_FULL)])
def test_refusal_and_full_window_in_any_spelling(setup: Setup, words: list[str], stop: Stop) -> None:
    """The words of other vendors for a refusal and for a full window mean the same in every format."""
    for word in words:
        assert (word, complete(setup, setup.replies.stopped(setup.replies.text("No."), word)).stop) == (word, stop)


def test_failed_generation_is_transient(setup: Setup) -> None:
    """A word for a failure of the server is no answer, also if there is some text."""
    for word in FAILED:
        failure = setup.failure(reply(200, setup.replies.stopped(setup.replies.text("We"), word)))
        assert failure.kind is (FailureKind.OVERLOADED if "resource" in word else FailureKind.PROVIDER_ERROR)
        assert word.lower() in failure.detail


def test_empty_reply_with_an_odd_word_is_unknown(setup: Setup) -> None:
    """Without text and calls, only the word says why the model stopped. A word that says nothing is Stop.UNKNOWN."""
    for word in ("tea_break", "", None, ..., "tool_calls"):
        assert complete(setup, setup.replies.stopped(setup.replies.text(""), word)).stop is Stop.UNKNOWN


def test_text_of_an_unusual_type_is_read(setup: Setup) -> None:
    """A string where a list belongs, an object where a string belongs: the text is read, and JSON stays JSON."""
    for body, text in setup.replies.odd_texts():
        assert complete(setup, body).text == text


def test_broken_call_is_refused_alone(setup: Setup) -> None:
    """A call without a name, or with arguments of a wrong type, is a call that the toolbox refuses in words."""
    for body, name, arguments in setup.replies.odd_calls():
        (call,) = complete(setup, body).tool_calls
        assert (call.name, call.raw_arguments) == (name, arguments)
        refused = TOOLBOX.check(call)
        assert isinstance(refused, RefusedCall), body
        assert refused.message


def test_odd_numbers_do_not_spoil_a_reply(setup: Setup) -> None:
    """A number of 5,000 digits, NaN, Infinity and 1e400 in a field that is not used change nothing."""
    text = json.dumps(setup.replies.text("Well"))
    for number in ("1" * 5_000, "-" + "9" * 400, "NaN", "-Infinity", "1e400", "1" * 5_000 + ".5"):
        answer = complete(setup, text[:-1] + f', "extra": {{"logprob": {number}}}}}')
        assert (answer.text, answer.stop) == ("Well", Stop.END)
        answer = complete(setup, text.replace("314", number))
        assert (answer.text, answer.usage.reported) == ("Well", False)


def test_odd_number_in_arguments_refuses_that_call(setup: Setup) -> None:
    """The toolbox gets the arguments as they came, refuses the one call, and says why."""
    text = json.dumps(
        setup.replies.calls(("c", "search", '{"query":"a","limit":77}'), ("d", "search", '{"query":"b"}'))
    )
    for number in ("1" * 5_000, "NaN", "Infinity", "1e400"):
        odd, fine = complete(setup, text.replace("77", number)).tool_calls
        assert number in odd.raw_arguments
        refused = TOOLBOX.check(odd)
        assert isinstance(refused, RefusedCall)
        assert "number" in refused.message or "NaN" in refused.message or "Infinity" in refused.message
        assert not isinstance(TOOLBOX.check(fine), RefusedCall)


def test_odd_number_in_a_stored_part_becomes_null(setup: Setup) -> None:
    """What is kept for the vendor can be stored and sent again."""
    body = setup.replies.text("Well")
    if setup.name == "anthropic":
        body["content"].insert(0, {"type": "thinking", "thinking": "hm", "score": 77})
    elif setup.name == "openai":
        body["output"].insert(0, {"type": "reasoning", "id": "r", "summary": [], "score": 77})
    else:
        body["choices"][0]["message"]["reasoning_details"] = [{"type": "text", "score": 77}]
    kept = [p for p in complete(setup, json.dumps(body).replace("77", "1e400")).parts if isinstance(p, Opaque)]
    assert "'score': None" in str([part.raw for part in kept])


def test_repeated_name_in_arguments_refuses_that_call(setup: Setup) -> None:
    """Arguments that give a name twice are ambiguous, in text and as an object. The last value must not win."""
    text = json.dumps(setup.replies.calls(("c", "search", '{"query":"a"}')), separators=(",", ":"))
    for old, new in (
        ('{"query":"a"}', '{"query":"a","query":"b"}'),
        ('{\\"query\\":\\"a\\"}', '{\\"query\\":1,\\"query\\":2}'),
    ):
        text = text.replace(old, new)
    (call,) = complete(setup, text).tool_calls
    refused = TOOLBOX.check(call)
    assert isinstance(refused, RefusedCall)
    assert "more than once" in refused.message


def test_repeated_name_elsewhere_keeps_the_last_value(setup: Setup) -> None:
    """A name that the envelope repeats changes nothing else."""
    text = json.dumps(setup.replies.text("Well"))
    assert complete(setup, '{"id": "x", "id": "y", ' + text[1:]).text == "Well"


@pytest.mark.parametrize(
    ("encoded", "content_type"),
    [
        ("utf-8", "application/json"), ("utf-8-sig", "application/json"), ("utf-16", "application/json"),
        ("latin-1", "application/json; charset=ISO-8859-1"), ("latin-1", "application/json"),
        ("cp1252", "text/plain"), ("latin-1", "application/json; charset=nonsense"),
        ("utf-8", "application/json; charset=latin-1"),
    ],
)  # fmt: skip
def test_any_encoding_is_read(setup: Setup, encoded: str, content_type: str) -> None:
    """UTF-8 wins, then the charset that the header names, then Windows-1252. A byte order mark is no mistake."""
    body = json.dumps(setup.replies.text("Grüße aus Köln"), ensure_ascii=False).encode(encoded)
    assert complete(setup, body, {"content-type": content_type}).text == "Grüße aus Köln"


def test_single_wrong_byte_costs_one_character(setup: Setup) -> None:
    """A wrong byte in UTF-8 becomes U+FFFD. The other characters stay."""
    body = json.dumps(setup.replies.text("Grüße X"), ensure_ascii=False).encode().replace(b"X", b"\xff")
    assert complete(setup, body).text == "Grüße \ufffd"


def test_careless_json_is_read(setup: Setup) -> None:
    """Line breaks in strings, blanks around the object, and text after it do not spoil the answer."""
    text = json.dumps(setup.replies.text("one\ntwo"))
    for body in (text.replace("\\n", "\n"), f"\n\n  {text}\n", text + "\n[DONE]", text + "\x00" * 9, text + text):
        assert complete(setup, body).text == "one\ntwo"


def test_deep_arguments_are_kept(setup: Setup) -> None:
    """Arguments of any depth are kept as text. The toolbox refuses the call that nests too deep."""
    deep = '{"a":' * 80 + "1" + "}" * 80
    (call,) = complete(setup, setup.replies.calls(("c", "search", deep))).tool_calls
    assert call.raw_arguments == deep
    refused = TOOLBOX.check(call)
    assert isinstance(refused, RefusedCall)
    assert "deeper" in refused.message


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_reply_that_ends_early_is_cut_off(setup: Setup, share: float) -> None:
    """JSON that is cut off is a connection failure, at every place. Asking again helps."""
    text = json.dumps(setup.replies.text('She said "well\\done" \u00fc \ud83d\ude00 -1.5e3 true'))
    failure = setup.failure(reply(200, text[: max(1, int(share * len(text)))]))
    assert (failure.kind, "cut off" in failure.detail) == (FailureKind.CONNECTION, True)


def test_every_early_end_is_cut_off(setup: Setup) -> None:
    """A reply that is cut off at any place, also inside an escape, a number or a word, does not count as malformed."""
    from midwatch.workers.providers.read_json import BadReply
    from midwatch.workers.providers.replies.json_body import read_value

    text = json.dumps({**setup.replies.text('"a\\b" \u00fc \ud83d\ude00'), "n": [-1.5e-3, True, False, None, 12]})
    for end in range(2, len(text)):
        with pytest.raises(BadReply) as caught:
            read_value(text[:end].encode())
        assert caught.value.kind is FailureKind.CONNECTION, text[:end][-20:]


def test_body_shorter_than_its_length_is_cut_off(setup: Setup) -> None:
    """A body that is shorter than Content-Length says, or a chunked one without its last chunk, is a connection failure."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    for answer in (
        head + b'content-length: 999\r\n\r\n{"id": 1}',
        head + b'transfer-encoding: chunked\r\n\r\n9\r\n{"id": 1}\r\n',
    ):
        assert setup.failure(raw(answer)).kind is FailureKind.CONNECTION


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(":", "=", 1),
        lambda text: text[:-1] + ",}",
        lambda text: text.replace("[", "(", 1),
        lambda text: text[:-1] + ', "n": 0x10}',
        lambda text: text[:-1] + ', "n": undefined}',
        lambda text: '{"a":' * 200_000 + "1" + "}" * 200_000,
    ],
)
def test_what_can_not_be_understood_is_final(setup: Setup, spoil: Any) -> None:
    """A complete body that is not JSON costs the same each time. It is a format error, which is not asked for again."""
    failure = setup.failure(reply(200, spoil(json.dumps(setup.replies.text("Well")))))
    assert failure.kind is FailureKind.FORMAT_ERROR
    assert failure.status == 200
    assert "unusable reply" in failure.detail


def test_hostile_json_is_a_failure(setup: Setup) -> None:
    """Nesting that breaks parsers gives a failure, not a crash."""
    for body in ("[" * 200_000, '{"a":' * 200_000):
        assert setup.failure(reply(200, body)).kind in (FailureKind.FORMAT_ERROR, FailureKind.CONNECTION)
