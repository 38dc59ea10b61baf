"""`midwatch gate status --watch` on a real terminal, during an outage, and as lines for a program."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from midwatch import Client
from midwatch.workers.celery_app.dispatch import connect
from midwatch.workers.cli import main
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.settings import settings
from tests.patience import PATIENCE_S


@pytest.fixture
def client(prefix) -> Client:
    """An operator's client of this test's fleet."""
    settings.cache_clear()
    made = connect()
    yield made
    made.store.client.close()
    settings.cache_clear()


class Screen:
    """A process of `midwatch` on a terminal of 100 columns, and the text that it has drawn."""

    def __init__(self, *arguments: str) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.environ |= {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
            os.execv(sys.executable, [sys.executable, "-m", "midwatch.workers.cli", *arguments])
        self.drawn = ""

    def wait_for(self, pattern: str) -> None:
        """Read until a pattern is drawn. Then forget the text so far."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.drawn):
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self._terminal], [], [], max(0, left_s))
            assert ready, f"not drawn within {PATIENCE_S:g} s: {pattern}; but {self.drawn[-2_000:]!r}"
            self.drawn += os.read(self._terminal, 65_536).decode("utf-8", "replace")
        self.drawn = ""

    def interrupt(self) -> int:
        """Send Ctrl-C and return the exit code.

        The terminal is read to its end first, because a process that writes to a full terminal waits forever.
        """
        os.kill(self._pid, signal.SIGINT)
        with suppress(OSError):  # EIO: the other side is closed
            while os.read(self._terminal, 65_536):
                pass
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._terminal)
        return code


def test_watching_shows_changes_until_ctrl_c(client):
    """The table is drawn again and again. A pause appears in it within seconds, and also in the view of one downstream."""
    client.gate.set("jira", rpm=60)
    table, card = Screen("gate", "status", "--watch"), Screen("gate", "status", "jira", "--watch")
    table.wait_for(r"jira.*slowed")
    card.wait_for(r"state.*slowed")
    client.gate.pause("jira", 600)
    table.wait_for("paused until")
    card.wait_for("midwatch gate resume jira")
    assert (table.interrupt(), card.interrupt()) == (130, 130)


def test_watching_survives_an_outage(prefix, monkeypatch):
    """An operator can watch an incident: the last frame stays with a message, and updates continue after the outage."""
    with EmbeddedServer() as server:
        monkeypatch.setenv("MIDWATCH_REDIS_URL", server.url)
        settings.cache_clear()
        client = connect()
        client.gate.set("jira", rpm=60)
        screen = Screen("gate", "status", "--watch")
        screen.wait_for("jira")
        server.kill()
        screen.wait_for("Redis does not answer")
        server.restart()
        client.gate.block("jira", "after the outage")
        screen.wait_for("after the outage")
        assert screen.interrupt() == 130
        client.store.client.close()
    settings.cache_clear()


def test_watching_without_a_terminal_prints_json_lines_or_has_exit_code_2(client, capsys):
    """A program gets one document a second. A table into a file is refused with advice."""
    client.gate.set("jira", rpm=60)
    assert main(["gate", "status", "--watch"]) == 2
    assert "add --json" in capsys.readouterr().err
    argv = [sys.executable, "-m", "midwatch.workers.cli", "gate", "status", "--watch", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert [line["downstreams"][0]["name"] for line in lines] == ["jira", "jira"]
