"""The model server as a process, its control endpoints, its journal, and many concurrent answers."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.simulator import Conversation, Entry, Faults, ModelServer, Say
from midwatch.workers.simulator.brains.example_values import make_example
from midwatch.workers.simulator.server_process import Options, choose_brain, serve
from tests.patience import PATIENCE_S, wait_for

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def ask(server: ModelServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Send one request over a new connection, and return the status and the parsed body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        payload = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, payload, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def chat(text: str) -> dict[str, Any]:
    """Return the smallest chat request."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


@contextmanager
def process(*arguments: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Start `python -m midwatch.workers.simulator`, and yield it with the line that it prints when it is ready."""
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", "midwatch.workers.simulator", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    ) as started:
        try:
            assert started.stdout is not None
            yield started, json.loads(started.stdout.readline())
        finally:
            started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_prints_its_address_and_ends_on_signals(tmp_path: Path, number: signal.Signals) -> None:
    """The process prints one line of JSON, uses a rule set of the working directory, and ends with exit code 0."""
    rules = "from midwatch.workers.simulator import Say\n\ndef rules(talk):\n    return Say(talk.last_user[::-1])\n"
    (tmp_path / "my_rules.py").write_text(rules)
    with process("--rules", "my_rules:rules", "--journal", "journal.jsonl", cwd=tmp_path) as (started, ready):
        port = int(ready["url"].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat("hello")))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert answer["choices"][0]["message"]["content"] == "olleh"
        started.send_signal(number)
        assert started.wait(PATIENCE_S) == 0
    entry = Entry.model_validate_json((tmp_path / "journal.jsonl").read_text())
    assert (entry.n, entry.wire, entry.turn, entry.status) == (1, "openai-chat", 1, 200)


def test_a_process_may_end_with_its_stdin() -> None:
    """With `--exit-with-stdin`, the model server ends when its parent closes stdin."""
    with process("--exit-with-stdin") as (started, _):
        assert started.stdin is not None
        started.stdin.close()
        assert started.wait(PATIENCE_S) == 0


def test_wrong_options_are_reported_on_stderr() -> None:
    """Wrong options give exit code 2 and a message without a traceback."""
    command = [sys.executable, "-m", "midwatch.workers.simulator", "--chaos", "rate_limit=1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("chaos: rate_limit: ")
    with pytest.raises(ConfigError, match="got script and rules"):
        choose_brain(Options(script=Path("a"), rules="b:c"))
    with pytest.raises(ConfigError, match="latency-ms: expected a number like 300 or a range like 200-800, got 'fast'"):
        serve(Options(latency_ms="fast"))


def test_control_endpoints_show_and_change_a_running_server() -> None:
    """A client can read health, stats, journal and faults, and can replace the faults of a running server."""
    with ModelServer(lambda _: Say("hello")) as server:
        assert ask(server, "GET", "/__midwatch__/health") == (200, {"ok": True, "brain": "<lambda>"})
        assert ask(server, "POST", "/v1/chat/completions", chat("secret words"))[0] == 200
        status, faults = ask(server, "POST", "/__midwatch__/faults", {"chaos": "overloaded=1"})
        assert (status, faults["overloaded"]) == (200, 1.0)
        assert ask(server, "GET", "/__midwatch__/faults")[1] == faults
        assert ask(server, "POST", "/v1/chat/completions", chat("secret words"))[0] == 503
        assert ask(server, "POST", "/__midwatch__/faults", {"overloaded": 0.0})[0] == 200
        status, journal = ask(server, "GET", "/__midwatch__/journal")
        entries = [Entry.model_validate(entry) for entry in journal["entries"]]
        assert entries == server.journal()
        assert [(entry.n, entry.attempt, entry.status, entry.fault) for entry in entries] == [
            (1, 1, 200, None),
            (2, 2, 503, "overloaded"),
        ]
        assert "secret" not in json.dumps(journal)
        assert len(ask(server, "GET", "/__midwatch__/journal?after=1")[1]["entries"]) == 1
        assert ask(server, "GET", "/__midwatch__/stats")[1]["by_fault"] == {"overloaded": 1}


def test_outage_can_be_started_while_running() -> None:
    """The outage begins with the request that sets it. Limits in the same request apply after the outage."""
    order = {"outage": "overloaded", "outage_s": 0.3, "requests_per_minute": 1}
    with ModelServer(lambda _: Say("hello")) as server:
        assert ask(server, "POST", "/__midwatch__/faults", {"outage": "overloaded"})[0] == 400
        begun_s = time.monotonic()
        status, faults = ask(server, "POST", "/__midwatch__/faults", order)
        assert (status, faults["outage"], faults["outage_s"]) == (200, "overloaded", 0.3)
        wait_for(lambda: ask(server, "POST", "/v1/chat/completions", chat("hi"))[0] == 200, "the outage to end")
        assert time.monotonic() - begun_s >= 0.3
        assert ask(server, "POST", "/v1/chat/completions", chat("hi"))[0] == 429


def test_wrong_control_requests_are_explained() -> None:
    """Unknown routes, wrong faults and unsafe content types are refused. The message says what is correct."""
    with ModelServer() as server:
        assert "there are: GET health" in ask(server, "GET", "/__midwatch__/jurnal")[1]["error"]
        status, body = ask(server, "POST", "/__midwatch__/faults", {"chaos": "overload=1"})
        assert status == 400
        assert "did you mean 'overloaded'?" in body["error"]
        assert ask(server, "POST", "/__midwatch__/faults", {}, **{"content-type": "text/plain"})[0] == 415
        assert ask(server, "POST", "/__midwatch__/faults", b"[1]")[0] == 400
        status, body = ask(server, "POST", "/chat/completions", chat("hi"))
        assert status == 404
        assert "an OpenAI base URL ends in /v1" in body["error"]["message"]
        status, body = ask(server, "GET", "/v1/messages", None, **{"anthropic-version": "2026-10-21"})
        assert (status, body["type"]) == (404, "error")


def test_hundreds_of_slow_answers_use_one_thread() -> None:
    """Three hundred answers of 2 s wait at the same time in one thread, and all are sent."""
    threads = threading.active_count()
    body = json.dumps(chat("hi")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ModelServer(lambda _: Say("hello"), latency_ms=2_000) as server:
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) for _ in range(300)]
        for connection in sockets:
            connection.sendall(head + body)
        stats = server.wait_until(lambda stats: stats.requests == 300, PATIENCE_S)
        assert stats.in_flight > 100
        assert threading.active_count() == threads + 1
        for connection in sockets:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
            connection.close()
        assert server.stats().by_status == {200: 300}
    assert {entry.latency_ms >= 2_000 for entry in server.journal()} == {True}


def test_connections_are_kept_alive() -> None:
    """Many requests use one connection."""
    with ModelServer(lambda _: Say("hello")) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.connect()
        port = connection.sock.getsockname()[1]
        for _ in range(5):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat("hi")))
            assert connection.getresponse().read()
            assert connection.sock.getsockname()[1] == port
        connection.close()


def test_stop_cancels_waiting_answers() -> None:
    """`stop` ends waiting answers, which have status 0 in the journal. A second call does nothing."""
    server = ModelServer(lambda _: Say("never"), latency_ms=60_000).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat("hi")))
    server.wait_until(lambda stats: stats.in_flight == 1, PATIENCE_S)
    server.stop()
    server.stop()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()
    connection.close()
    assert [entry.status for entry in server.journal()] == [0]


def test_a_client_that_leaves_ends_its_answer() -> None:
    """When a client closes its connection, the server cancels its answer."""
    with ModelServer(lambda _: Say("never"), latency_ms=60_000) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat("hi")))
        server.wait_until(lambda stats: stats.in_flight == 1, PATIENCE_S)
        connection.close()
        assert server.wait_until(lambda stats: stats.in_flight == 0, PATIENCE_S).by_status == {0: 1}


def test_timeout_of_wait_until_shows_the_totals() -> None:
    """If the condition is not reached in time, the error shows the current totals."""
    with ModelServer() as server, pytest.raises(TimeoutError, match='"requests":0'):
        server.wait_until(lambda stats: stats.requests == 1, timeout_s=0.01)


def test_wrong_arguments_are_refused() -> None:
    """A negative latency or a reversed range is a ConfigError. A port that is taken is an OSError."""
    for latency_ms in (-1, (5, 1)):
        with pytest.raises(ConfigError, match="latency_ms: expected"):
            ModelServer(latency_ms=latency_ms)
    with ModelServer() as server, pytest.raises(OSError, match="in use"):
        ModelServer(port=server.port).start()


def real_tools() -> list[tuple[str, dict[str, Any]]]:
    """Return (name, input schema) of tools by other authors."""
    if not DATA.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"tool schemas are not here: {DATA}")
    found = []
    for name in ("tau_retail", "tau_airline"):
        for tool in json.loads((DATA / name / "tools.json").read_text()):
            found.append((tool["function"]["name"], tool["function"]["parameters"]))
    for suite in json.loads((DATA / "agentdojo_tools.json").read_text())["suites"].values():
        found.extend((tool["name"], tool["input_schema"]) for tool in suite)
    with gzip.open(DATA / "mcp_server_tools.json.gz", "rt") as file:
        for server in json.load(file)["servers"].values():
            found.extend((tool["name"], tool["inputSchema"]) for tool in server)
    return found


def test_example_arguments_are_valid_for_real_tools() -> None:
    """Every tool schema of two benchmarks and ten MCP servers gets arguments that satisfy it."""
    refused = [name for name, schema in real_tools() if not Draft202012Validator(schema).is_valid(make_example(schema))]
    assert refused == []


def test_conversations_are_not_mixed_up() -> None:
    """A rule set gets only the conversation of the current request."""

    def rules(conversation: Conversation) -> Say:
        return Say(conversation.last_user)

    with ModelServer(rules, faults=Faults(seed=1)) as server:
        for text in ("one", "two"):
            assert (
                ask(server, "POST", "/v1/chat/completions", chat(text))[1]["choices"][0]["message"]["content"] == text
            )
        assert server.stats().conversations == 2
