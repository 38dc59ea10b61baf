"""The command line as a process: its imports, its start, its output on a terminal, and its end by signals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys

import pytest

from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.step import Defer
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.settings import Settings
from midwatch.workers.views.output import shorten_ids
from tests.patience import PATIENCE_S

HEAVY = (
    *("anthropic", "celery", "flower", "jsonschema", "kombu", "midwatch.orchestration", "midwatch.schemas", "openai"),
    *("pydantic", "pydantic_settings", "redis", "rich", "structlog"),
)
PROBE = """
import sys
from midwatch.workers.cli import main
code = main(sys.argv[2:])
print("LOADED", *(name for name in sys.argv[1].split(",") if name in sys.modules), file=sys.stderr)
"""


def loaded(*arguments: str) -> list[str]:
    """Return which of the heavy packages a command line imports."""
    process = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(HEAVY), *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("LOADED")]
    return line.split()[1:]


def midwatch(*arguments: str, **more: object) -> subprocess.Popen[str]:
    """Return the command line that starts `midwatch` as a process."""
    argv = [sys.executable, "-m", "midwatch.workers.cli", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.fixture
def client(prefix, server):
    """A producer of this test's fleet."""
    made = make_client(Settings(redis_url=server.url, prefix=prefix))
    yield made
    made.store.client.close()


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("worker", "--help"), ("dlq", "replay", "--help"), ("bench",), ("jbos",)]
)
def test_help_loads_nothing(arguments):
    """Help imports neither Redis nor Celery, neither rich nor pydantic, so it appears at once."""
    assert loaded(*arguments) == []


def test_a_listing_loads_neither_celery_nor_a_vendor(prefix):
    """A producer's machine needs neither to list jobs. Logging and validation are imported only where they are used."""
    needless = {"celery", "kombu", "flower", "anthropic", "openai", "structlog", "rich", "jsonschema"}
    assert not needless & set(loaded("jobs", "list", "--json"))


PRODUCERS = {
    "enqueue by name": "from midwatch import connect; connect().enqueue('clerk', 'x').cancel()",
    "an agent": "from midwatch import Agent, tool; Agent('clerk', 'scripted:m-1', 'You help.')",
}


@pytest.mark.parametrize("what", PRODUCERS)
def test_a_producer_loads_no_worker(prefix, what):
    """Neither an SDK nor Celery, Flower or the logs. By name, not even the validation of schemas."""
    code = f"import sys; {PRODUCERS[what]}; print(*(name for name in sys.argv[1].split(',') if name in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code, ",".join(HEAVY)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    needless = {"celery", "kombu", "flower", "anthropic", "openai", "structlog", "rich"}
    assert not (needless | ({"jsonschema"} if what == "enqueue by name" else set())) & set(ran.stdout.split())


def test_the_version_is_that_of_the_distribution():
    """`midwatch --version`, one line."""
    out, _ = midwatch("--version").communicate(timeout=PATIENCE_S)
    assert re.fullmatch(r"midwatch \d+\.\d+\.\d+\S*\n", out)


def test_ctrl_c_while_following_a_job_is_130(client):
    """A tail that waits for the next step ends at once, without a traceback."""
    job = client.enqueue("desk", "x")
    claim = client.store.claim(client.operations.first_step(job.job()), "n")
    assert isinstance(claim, Claim)
    record = TraceRecord(
        step="1", kind="model", attempt=0, outcome="defer", started_ms=1, ended_ms=2, worker="w", reason="busy"
    )
    assert client.store.defer(claim, Defer(after_ms=60_000, reason="busy", counts_as_attempt=False), record)
    process = midwatch("jobs", "tail", job.id)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["reason"] == "busy"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "\n")  # so that the prompt does not follow ^C


def screen(arguments: list[str], **env: str) -> str:
    """Return what a terminal of 100 columns receives."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "midwatch.workers.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    received = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        received += piece
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    return received.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


def test_a_terminal_gets_a_coloured_table_unless_no_color_is_set(client):
    """A terminal gets colours. With NO_COLOR it gets the same text without them."""
    job = client.enqueue("desk", "x")
    client.jobs.cancel(job.id)
    coloured, plain = screen(["jobs", "list"]), screen(["jobs", "list"], NO_COLOR="1")
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)
    for shown in (coloured, plain):
        assert shorten_ids(job.id) in shown
        assert "cancelled" in shown
    assert "\t" not in coloured


def test_the_model_server_takes_faults_as_options(tmp_path):
    """`midwatch simulate` prints its address, answers with the configured faults, and ends at SIGTERM."""
    process = midwatch("simulate", "--chaos", "overloaded=0.5,seed=3", cwd=tmp_path)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["url"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chaos", "overlaoded=0.5"], "did you mean 'overloaded'?"),
        (["--script", "a.toml", "--rules", "m:f"], "got script and rules"),
        (["--latency-ms", "fast"], "expected a number like 300"),
    ],
)
def test_the_model_server_refuses_invalid_options(arguments, said, tmp_path):
    """The exit code is 2, with one line of explanation."""
    process = midwatch("simulate", *arguments, cwd=tmp_path)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert said in err
    assert err.count("\n") == 1
