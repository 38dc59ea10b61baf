"""What leaves a provider holds neither key nor transcript: not the failure, its pickle, its chain, nor the logs."""

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
from tests.contract.provider_requests import KEY, PROMPT, ask, assistant, call, credentials, result
from tests.contract.provider_server import Reply, raw, reply, silent
from tests.contract.provider_side import Side, beside_vendor

SYSTEM = "House rule number one: the launch code is four four seven nine alpha."
TOLD = "customer Ada Lovelace, card ending 4242, lives at 12 Fleet Street"

REQUEST = ask(
    UserMessage(group=1, text=PROMPT), assistant(2, call(raw_arguments=json.dumps({"q": TOLD}))), result(2, 0, TOLD),
    system=SYSTEM, timeout_s=0.2,
)  # fmt: skip

ECHO = f"Incorrect API key provided: {KEY}. You sent: '{SYSTEM}' and {PROMPT!r} and {json.dumps({'q': TOLD})}"

ENDINGS: dict[str, Reply] = {
    "an error that echoes everything": reply(401, {"error": {"message": ECHO, "type": "x", "code": "y"}}),
    "a validation error": reply(422, {"detail": ECHO}),
    "an HTML page that echoes": reply(502, f"<html>{ECHO}</html>"),
    "a good status with an echo": reply(200, {"error": {"message": ECHO}}),
    "another shape that echoes": reply(200, [ECHO]),
    "no answer": silent,
    "a cut connection": raw(b""),
}

FORBIDDEN = ("SECRET", "tangerine-47", "four four seven", "Ada Lovelace", "Fleet Street")


@pytest.fixture(params=providers.BUILT_IN)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with beside_vendor(request.param) as side:
        yield side


@pytest.mark.parametrize("ending", ENDINGS)
def test_errors_are_clean(side: Side, ending: str) -> None:
    """Whatever the vendor echoes: the error pickles, comes back equal, and holds no secret, prompt or SDK object."""
    error = side.error(ENDINGS[ending], REQUEST)
    data = pickle.dumps(error)
    back = pickle.loads(data)
    assert (type(back), back.failure, str(back)) == (ModelError, error.failure, str(error))
    shown = data.decode("latin-1") + str(error) + repr(error) + "".join(traceback.format_exception(error))
    for word in FORBIDDEN:
        assert word not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


def test_logs_at_debug(side: Side) -> None:
    """A worker that logs everything at DEBUG still logs no prompt and no key."""
    logs = io.StringIO()
    handler = logging.StreamHandler(logs)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        side.vendor.will(reply(200, side.wire.text("the answer to the vault question is lemon")))
        side.model.complete(REQUEST.model_copy(update={"timeout_s": 5.0}))
        side.failure(ENDINGS["an error that echoes everything"], REQUEST)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    for word in (*FORBIDDEN, "lemon"):
        assert word not in logs.getvalue()


def test_a_key_that_is_no_header(side: Side) -> None:
    """A key with a line break inside can't be sent, and is not shown for it."""
    bad = f"{KEY}\nX-More: yes"
    given = credentials(side.vendor.url)
    keys = {f"{vendor}_api_key": bad for vendor in ("anthropic", "openai", "gemini")}
    model = providers.load(side.name, providers.Credentials(**{**vars(given), **keys}))
    with pytest.raises(ModelError) as caught:
        model.complete(ask())
    assert caught.value.failure.kind is FailureKind.INTERNAL
    assert not caught.value.sent
    assert "SECRET" not in str(caught.value)
    assert side.vendor.seen == []


def test_our_own_error_names_its_place(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is `internal`, and its message, which may quote anything, is replaced by where it happened."""

    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError(PROMPT)

    monkeypatch.setattr("midwatch.workers.providers.provider_model.ModelReply", broken)
    failure = side.failure(reply(200, side.wire.text("x")), REQUEST.model_copy(update={"timeout_s": 5.0}))
    assert failure.kind is FailureKind.INTERNAL
    assert failure.detail.startswith(f"{side.name}: KeyError at test_provider_secrets.py:")
