"""Failures, their pickles and exception chains, and the logs contain neither keys nor the conversation."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import UserMessage
from midwatch.workers import providers
from tests.contract.provider_requests import KEY, PROMPT, assistant, call, credentials, make_request, result
from tests.contract.provider_server import Reply, raw, reply, silent
from tests.contract.provider_setup import Setup, connect_to_fake_vendor

SYSTEM = "House rule number one: the launch code is four four seven nine alpha."
CUSTOMER = "customer Ada Lovelace, card ending 4242, lives at 12 Fleet Street"

REQUEST = make_request(
    UserMessage(group=1, text=PROMPT), assistant(2, call(raw_arguments=json.dumps({"q": CUSTOMER}))), result(2, 0, CUSTOMER),
    system=SYSTEM, timeout_s=0.2,
)  # fmt: skip

ECHO = f"Incorrect API key provided: {KEY}. You sent: '{SYSTEM}' and {PROMPT!r} and {json.dumps({'q': CUSTOMER})}"

ENDINGS: dict[str, Reply] = {
    "an error that quotes everything": reply(401, {"error": {"message": ECHO, "type": "x", "code": "y"}}),
    "a validation error": reply(422, {"detail": ECHO}),
    "an HTML page that quotes": reply(502, f"<html>{ECHO}</html>"),
    "a status 200 that quotes": reply(200, {"error": {"message": ECHO}}),
    "another shape that quotes": reply(200, [ECHO]),
    "no answer": silent,
    "a cut connection": raw(b""),
}

FORBIDDEN = ("SECRET", "tangerine-47", "four four seven", "Ada Lovelace", "Fleet Street")


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


@pytest.mark.parametrize("ending", ENDINGS)
def test_errors_contain_no_secrets(setup: Setup, ending: str) -> None:
    """An error survives pickling and contains no secret, prompt or SDK object, even if the vendor quotes them."""
    error = setup.error(ENDINGS[ending], REQUEST)
    data = pickle.dumps(error)
    back = pickle.loads(data)
    assert (type(back), back.failure, str(back)) == (ModelError, error.failure, str(error))
    shown = data.decode("latin-1") + str(error) + repr(error) + "".join(traceback.format_exception(error))
    for word in FORBIDDEN:
        assert word not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


def test_debug_logs_contain_no_secrets(setup: Setup) -> None:
    """A worker that logs at DEBUG logs no prompt and no key."""
    logs = io.StringIO()
    handler = logging.StreamHandler(logs)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        setup.vendor.answer_next(reply(200, setup.replies.text("the answer to the vault question is lemon")))
        setup.model.complete(REQUEST.model_copy(update={"timeout_s": 5.0}))
        setup.failure(ENDINGS["an error that quotes everything"], REQUEST)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    for word in (*FORBIDDEN, "lemon"):
        assert word not in logs.getvalue()


def test_key_with_a_line_break_is_not_shown(setup: Setup) -> None:
    """A key with a line break inside can't be sent. The failure does not show it."""
    bad = f"{KEY}\nX-More: yes"
    given = credentials(setup.vendor.url)
    keys = {f"{vendor}_api_key": bad for vendor in ("anthropic", "openai", "gemini")}
    model = providers.load(setup.name, providers.Credentials(**{**vars(given), **keys}))
    with pytest.raises(ModelError) as caught:
        model.complete(make_request())
    assert caught.value.failure.kind is FailureKind.INTERNAL
    assert not caught.value.sent
    assert "SECRET" not in str(caught.value)
    assert setup.vendor.requests == []


def test_internal_error_names_its_place(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own defect is an internal failure. It shows the place in the code, because the message may quote content."""

    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError(PROMPT)

    monkeypatch.setattr("midwatch.workers.providers.provider_model.ModelReply", broken)
    failure = setup.failure(reply(200, setup.replies.text("x")), REQUEST.model_copy(update={"timeout_s": 5.0}))
    assert failure.kind is FailureKind.INTERNAL
    assert failure.detail.startswith(f"{setup.name}: KeyError at test_provider_secrets.py:")
