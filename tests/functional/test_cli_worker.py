"""`midwatch worker`: a real worker process, from its boot to its drain."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.settings import Settings
from midwatch.workers.simulator import ModelServer, Say, ScriptBrain, Use
from tests.patience import PATIENCE_S

AGENTS = '''\
from midwatch import Agent, tool


@tool(idempotent=True, timeout_s=45)
def look_up(order: str) -> str:
    """Look an order up.

    Args:
        order: its number.
    """
    return "shipped"


desk = Agent("desk", "claude-sonnet-4-6", "You work.", [look_up])
'''


class Process:
    """A worker process, and its log."""

    def __init__(self, folder: Path, arguments: list[str], env: dict[str, str]) -> None:
        (folder / "desk_agents_here.py").write_text(AGENTS)
        self.log = folder / "worker.log"
        environment = {**os.environ, "MIDWATCH_AGENTS": "desk_agents_here", "MIDWATCH_LOG_FORMAT": "json", **env}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "midwatch.workers.cli", "worker", *arguments],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self, text: str) -> bool:
        """Return whether the log contains a text. Fail if the process has ended without it."""
        found = text in self.log.read_text()
        assert found or self.process.poll() is None, self.log.read_text()
        return found

    def end(self, how: int = signal.SIGTERM) -> int:
        """Ask the process to end, and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


def free_port() -> int:
    """Return a port below those of outgoing connections, because one of those could take it while the server is down."""
    for _ in range(20):
        port = random.randrange(12_000, 20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("no free port in 20 tries")


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A model that looks the order up, then answers."""
    brain = ScriptBrain([Use([("look_up", {"order": "O-1"})]), Say("It is on its way.")])
    with ModelServer(brain) as running:
        yield running


@pytest.fixture
def start(prefix, model, tmp_path):
    """`start("--queues", ...)` starts a worker. If it still runs at the end of the test, it is killed."""
    started: list[Process] = []

    def begin(*arguments: str, **env: str) -> Process:
        started.append(Process(tmp_path, list(arguments), {**model.environment(), **env}))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_jobs_and_drains(start, prefix, server, wait_for, tmp_path, how):
    """A job runs from `submit --wait` to its output. The worker exits with 0 at SIGTERM and with 130 at Ctrl-C."""
    worker = start("--concurrency", "4", "--name", "w1")
    wait_for(lambda: worker.said("ready."), "the worker")
    done = subprocess.run(
        [sys.executable, "-m", "midwatch.workers.cli", "submit", "desk", "Where is O-1?", "--wait", "--timeout", "60"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "It is on its way.\n", "")
    assert worker.end(how) == (0 if how == signal.SIGTERM else 130)
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    (starting,) = [line for line in lines if line["event"] == "worker.starting"]
    assert (starting["pool"], starting["concurrency"], starting["agents"]) == ("threads", 4, ["desk"])
    (advice,) = [line for line in lines if line["event"] == "worker.advice"]
    assert "can't stop one that hangs" in advice["advice"]
    assert any(re.fullmatch(r"w1@.* ready\.", line["event"]) for line in lines)


def test_a_worker_with_only_tools_runs_them_in_children_with_a_hard_limit(start, server, prefix, wait_for):
    """The worker uses prefork without a warning. The hard limit is the longest tool's timeout plus 30 s."""
    worker = start("--queues", "tools", "--concurrency", "1")
    wait_for(lambda: worker.said("ready."), "the worker")
    first = json.loads(worker.log.read_text().splitlines()[0])
    assert (first["pool"], first["time_limit_s"]) == ("prefork", 75.0)
    assert "worker.advice" not in worker.log.read_text()
    assert worker.end() == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_thing", "can't import 'broken'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = (", "SyntaxError"),
        ("x = 1", "holds no Agent"),
        ("from midwatch import Agent\nAgent('a b', 'claude-sonnet-4-6', 'x')", "agent name 'a b'"),
        ("from midwatch import Agent\n\nAgent('a', 'claude-sonnet-4-6', 'x', max_step=3)", "line 3"),
    ],
)
def test_a_mistake_in_the_agents_module_ends_the_boot(prefix, tmp_path, source, said):
    """The exit code is 2. One line says what is wrong and where, without a traceback, and no worker starts."""
    (tmp_path / "broken.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "midwatch.workers.cli", "worker"],
        env={**os.environ, "MIDWATCH_AGENTS": "broken"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_worker_without_agents_is_refused(prefix, tmp_path):
    """A worker without agents could run no step, and would turn other workers' jobs into dead letters."""
    done = subprocess.run(
        [sys.executable, "-m", "midwatch.workers.cli", "worker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert "MIDWATCH_AGENTS" in done.stderr


def test_an_embedded_server_listens_where_producers_look_for_it(start, tmp_path, wait_for):
    """The server listens at MIDWATCH_REDIS_URL. Its data outlives the process, and a second one on the same data is refused."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    env = {"MIDWATCH_REDIS_URL": url, "MIDWATCH_PREFIX": "mw", "XDG_STATE_HOME": str(tmp_path / "state")}
    worker = start("--embedded", **env)
    wait_for(lambda: worker.said("ready."), "the worker")
    client = make_client(Settings(redis_url=url, prefix="mw"))
    job_id = client.enqueue("desk", "Where is O-1?").id
    assert client.jobs.get(job_id).result(PATIENCE_S).output == "It is on its way."
    client.store.client.close()
    second = subprocess.run(
        [sys.executable, "-m", "midwatch.workers.cli", "worker", "--embedded"],
        env={**os.environ, **env, "MIDWATCH_AGENTS": "desk_agents_here"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert second.returncode == 2
    assert "leave --embedded out" in second.stderr
    assert worker.end() == 0
    again = start("--embedded", **env)
    wait_for(lambda: again.said("ready."), "the worker again")
    client = make_client(Settings(redis_url=url, prefix="mw"))
    assert client.jobs.show(job_id).output == "It is on its way."
    client.store.client.close()
    assert again.end() == 0
