"""The passwords of URLs in a text are hidden, in every form that libraries write. All else stays."""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from midwatch import Agent, tool
from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.orchestration.store.scripts import unavailable
from midwatch.workers import telemetry
from midwatch.workers.settings import Settings

PW = "s3cr3tW0rd"

FORMS = [
    f"redis://:{PW}@h:6379/0",
    f"rediss://user:{PW}@h/0?ssl_cert_reqs=none",
    f"amqp://guest:{PW}@rabbit:5672//",
    f"cannot connect to 'redis://:{PW}/a@b?c@h/0': refused",
    f"redis://us%40er:{PW}%2F%23@h/0",
    f"https://api.example/v1?page=2&password={PW}&x=1",
    f"https://h/cb?access_token={PW}",
    f"unix:///s.sock?password={PW}",
    f"redirect=redis%3A%2F%2F%3A{PW}%40h%3A6379",
    f"GET /login?next=%2Fa%3Fpassword%3D{PW}%26x%3D1",
    f"<ConnectionPool(<Connection(host=h,port=6379,password={PW},db=0)>)>",
    f"{{'host': 'h', 'password': '{PW}', 'db': 0}}",
    f'{{"user": "u", "password": "{PW}"}}',
    f"connect(host='h', password='{PW}')",
    f"Authorization: Basic {PW}==",
    f"postgresql+psycopg://u:{PW}@db:5432/x and redis://:{PW}@h/1",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_password_is_hidden(text: str) -> None:
    """What a person needs to find the server stays: host, port, database."""
    shown = hide_passwords(text)
    assert PW not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "redis://h:6379/0",
        "http://127.0.0.1:8000/v1?page=2&sort=key",
        "the server refuses the user or the password",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "OPENAI_API_KEY is not set",
        "user@example.com wrote to a@b: see http://h/x",
        "max_tokens=4096, tokens: 12",
    ],
)
def test_a_text_without_a_password_stays_as_it_is(text: str) -> None:
    """A text that only mentions passwords and keys stays, too."""
    assert hide_passwords(text) == text


def test_a_log_line_and_its_traceback_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of structlog and of any library."""
    out = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    before = structlog.get_config()
    try:
        telemetry.configure(Settings())
        root.handlers[0].setStream(out)  # type: ignore[attr-defined]
        try:
            raise ConnectionError(FORMS[0])
        except ConnectionError:
            structlog.get_logger("midwatch.test").exception("steward.broke", url=FORMS[1])
            logging.getLogger("kombu").exception("cannot connect to %s", FORMS[2])
    finally:
        structlog.configure(**before)
    assert out.getvalue().count("***") >= 4
    assert PW not in out.getvalue()


def test_an_unavailable_store_and_a_failed_tool_hold_no_password() -> None:
    """The text of their errors reaches producers, letters, pages and the model."""
    from midwatch.orchestration.testing.scripted_model import call
    from midwatch.testing import ScriptedModel, run_inline

    assert PW not in str(unavailable(ConnectionError(FORMS[0])))

    @tool(idempotent=True)
    def read_table(name: str) -> str:
        """Read a table."""
        raise RuntimeError(f"can't open {FORMS[15]}")

    model = ScriptedModel([call("read_table", name="x"), "It failed."])
    result = run_inline(Agent("clerk", "anthropic:claude-sonnet-4-6", "You look.", [read_table]), "Go.", model=model)
    heard = repr(model) + repr(result) + repr(vars(model))
    assert PW not in heard
    assert ":***@db" in heard
