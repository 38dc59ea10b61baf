"""A worker that reports ready has imported and connected what its first step needs, in every pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.settings import Settings
from midwatch.workers.simulator import ModelServer, Say, ScriptBrain, Use
from tests.patience import PATIENCE_S

AGENTS = '''\
import os, sys

from midwatch import Agent, ContextBudget, tool


def note(event, args, folder=os.environ["IMPORTS_FOLDER"]):
    """Write down every module that Python does not find among the loaded ones."""
    if event == "import" and args[0] not in sys.modules:
        with open(f"{folder}/{os.getpid()}.imports", "a") as file:
            file.write(args[0] + "\\n")


sys.addaudithook(note)


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Look an order up."""
    return "shipped"


clerk = Agent("clerk", "gpt-5-2025-08-07", "You help.", [look_up])
desk = Agent(
    "desk", "claude-sonnet-4-6", "You work.", [look_up], children=[clerk],
    context_budget=ContextBudget(120_000, summary_model="openai-compatible:house-1"),
)
'''

Start = Callable[..., "Worker"]


class Worker:
    """A worker process, its log, and the imports of its processes."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        (folder / "ready_agents.py").write_text(AGENTS)
        self.folder, self.log = folder, folder / "worker.log"
        environment = {**os.environ, "MIDWATCH_AGENTS": "ready_agents", "IMPORTS_FOLDER": str(folder), **env}
        command = [sys.executable, "-m", "midwatch.workers.cli", "worker", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def events(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [
            json.loads(line)
            for line in self.log.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]

    def is_ready(self) -> bool:
        """Return whether the worker has reported ready."""
        assert self.process.poll() is None, self.log.read_text()
        return any(str(line["event"]).endswith(" ready.") for line in self.events())

    def before_ready(self, event: str) -> list[dict[str, Any]]:
        """Return the events of this name that were logged before the worker reported ready."""
        names = [str(line["event"]) for line in self.events()]
        ready = next(at for at, name in enumerate(names) if name.endswith(" ready."))
        return [line for line in self.events()[:ready] if line["event"] == event]

    def imports(self) -> dict[str, list[str]]:
        """Return the modules that each process has imported since it loaded its agents."""
        return {path.name: path.read_text().split() for path in self.folder.glob("*.imports")}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A model that looks an order up, then answers."""
    with ModelServer(ScriptBrain([Use([("look_up", {"order": "O-1"})]), Say("It is on its way.")])) as running:
        yield running


@pytest.fixture
def start(prefix: str, model: ModelServer, tmp_path: Path) -> Iterator[Start]:
    """`start("--pool", ...)` starts a worker. At the end of the test it is killed."""
    started: list[Worker] = []

    def begin(*arguments: str, **env: str) -> Worker:
        started.append(Worker(tmp_path, arguments, {**model.environment(), **env}))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_the_first_step_imports_nothing(start: Start, wait_for: Any, pool: str) -> None:
    """The SDKs, also those of children and of summaries, are loaded before the worker reports ready. So is all other code."""
    count = 1 if pool == "solo" else 2
    worker = start("--pool", pool, *(() if pool == "solo" else ("--concurrency", "2")))
    wait_for(worker.is_ready, "the worker")
    prepared = worker.before_ready("worker.prepared")
    assert len({line["pid"] for line in prepared}) == (count if pool == "prefork" else 1)
    assert [sorted(line["providers"]) for line in prepared] == [["anthropic", "openai", "openai-compatible"]] * len(
        prepared
    )

    before = worker.imports()
    loaded = {name for names in before.values() for name in names}
    assert {"anthropic", "openai"} <= loaded
    client = make_client(Settings())
    assert client.enqueue("desk", "Where is O-1?").result(PATIENCE_S).output == "It is on its way."
    after = worker.imports()
    assert {name: modules[len(before.get(name, [])) :] for name, modules in after.items()} == {
        name: [] for name in after
    }


def test_missing_credentials_are_said_at_boot(start: Start, wait_for: Any) -> None:
    """The worker starts, because its other agents may have theirs. The event names the provider, the agents and the variable."""
    worker = start("--concurrency", "2", OPENAI_API_KEY="")
    wait_for(worker.is_ready, "the worker")
    (missing,) = (line for line in worker.before_ready("worker.provider_not_ready") if line["provider"] == "openai")
    assert (missing["level"], missing["agents"]) == ("error", ["clerk"])
    assert "OPENAI_API_KEY" in missing["error"]


def test_a_worker_for_tools_loads_no_sdk(start: Start, wait_for: Any) -> None:
    """It calls no model, so it needs neither the memory nor the credentials."""
    worker = start("--queues", "tools", "--concurrency", "1", ANTHROPIC_API_KEY="", OPENAI_API_KEY="")
    wait_for(worker.is_ready, "the worker")
    assert [line["providers"] for line in worker.before_ready("worker.prepared")] == [[]]
    assert worker.before_ready("worker.provider_not_ready") == []
    assert not {"anthropic", "openai"} & {name for names in worker.imports().values() for name in names}


def test_a_model_whose_end_is_announced_is_logged_at_boot(start: Start, wait_for: Any) -> None:
    """One line for each agent and model, with the day."""
    worker = start("--concurrency", "1")
    wait_for(worker.is_ready, "the worker")
    (line,) = worker.before_ready("model.ends")
    assert (line["agent"], line["model"], line["ends"]) == ("clerk", "openai:gpt-5-2025-08-07", "2026-12-11")
