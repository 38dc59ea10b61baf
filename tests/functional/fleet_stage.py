"""A real fleet for one test module: worker processes, and a scripted model server in this process.

`stage.cast([...])` takes the lines of the model's script and returns a text. A job with that text as input is answered with
those lines, over HTTP and the vendors' own SDKs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from midwatch import Client, JobHandle, connect
from midwatch.orchestration.client import client as client_module
from midwatch.schemas.job import Job
from midwatch.schemas.message import ToolMessage
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings
from midwatch.workers.simulator import Conversation, ModelServer, Say, UnexpectedCall, Use
from tests.functional import fleet_marks
from tests.patience import PATIENCE_S

Line = str | Say | Use | Callable[[Conversation], Say | Use]
ROOT = Path(__file__).parents[2]

MODEL_AND_TOOLS = (("model,maintenance", "threads", 12), ("tools", "threads", 12))


def use(*calls: tuple[str, Mapping[str, object] | str]) -> Use:
    """Make a line in which the model calls these tools."""
    return Use(list(calls))


class Stage:
    """A fleet, its producer's client, and the model that its agents talk to."""

    def __init__(self, client: Client, model: ModelServer, fleet: Fleet, parts: Parts) -> None:
        self.client = client
        self.model = model
        self.fleet = fleet
        self._parts = parts
        self._producers = [client]

    def connect(self, redis_url: str | None = None, broker_url: str | None = None) -> Client:
        """Connect as `orchestration.connect` does. The client is closed with the stage."""
        client = connect(redis_url, broker_url)
        self._producers.append(client)
        return client

    def close(self) -> None:
        """Close all clients of this process. A client would otherwise live as long as the process."""
        for client in [*self._producers, *client_module._clients.values()]:
            close(client)

    def cast(self, lines: Sequence[Line], text: str | None = None) -> str:
        """Return a user's input that the model answers with these lines, in order. A repeated request gets the same line."""
        return self._parts.add(lines, text)

    def heard(self, text: str) -> list[Conversation]:
        """Return the conversation of each request that the model got for this input."""
        return self._parts.heard[text]

    def job(self, handle: JobHandle) -> Job:
        """Return the record of a job."""
        return self.client.jobs.show(handle.id)

    def results(self, handle: JobHandle) -> list[ToolMessage]:
        """Return the tool results of the job's session, in the order in which they were committed."""
        said = self.client.sessions.messages(handle.session_id)
        return [message for message in said if isinstance(message, ToolMessage)]


def close(client: Client) -> None:
    """Close a producer's connections to the store and, if it has any, to the broker."""
    client.operations.client.close()
    app = vars(client.store._dispatcher).get("_app")
    if app is not None:
        app.producer_pool.force_close_all()
        app.pool.force_close_all()


class Parts:
    """The model server's rule set. It has a script for each user input, and records the conversations that it gets."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Conversation]] = {}
        self._lines: dict[str, Sequence[Line]] = {}
        self._turns: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def add(self, lines: Sequence[Line], text: str | None) -> str:
        text = text or f"Question {next(self._numbers)}, please."
        self._lines[text] = lines
        self.heard[text] = []
        self._turns[text] = -1
        return text

    def __call__(self, conversation: Conversation) -> Say | Use:
        text = conversation.last_user
        if text not in self._lines:  # a client may send two consecutive user messages as one
            text = text.rpartition("\n\n")[2]
        if text not in self._lines:
            return Say(f"You said: {text[:80]}")
        heard = self.heard[text]
        # Counted here, because the request does not show empty answers and trimmed turns.
        self._turns[text] += not heard or heard[-1].turns != conversation.turns
        heard.append(conversation)
        lines, turn = self._lines[text], self._turns[text]
        if turn >= len(lines):
            raise UnexpectedCall(f"{text!r} has {len(lines)} lines, and turn {turn + 1} was asked for")
        line = lines[turn]
        return line(conversation) if callable(line) else Say(line) if isinstance(line, str) else line


def told(conversation: Conversation) -> list[str]:
    """Return the tool results in a request since the last user message, without the vendor format's error marks."""
    return [turn.text.removeprefix("ERROR: ") for turn in conversation.since_user if turn.role == "tool"]


def note(conversation: Conversation) -> str:
    """Return the last note of the runtime in a request. A note is not a user message."""
    last = conversation.last
    assert last is not None
    assert last.role == "note"
    return last.text.removeprefix("<reminder>").removesuffix("</reminder>")


@contextmanager
def fleet_on_stage(
    redis_url: str,
    prefix: str,
    folder: Path,
    kinds: Sequence[tuple[str, str, int]] = MODEL_AND_TOOLS,
    env: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """Start a fleet with this process as a producer, and stop it at the end. No model call may be unexpected."""
    parts = Parts()
    (folder / "marks").mkdir()
    with ModelServer(parts) as model, pytest.MonkeyPatch.context() as environment:
        shared = {
            "MIDWATCH_REDIS_URL": redis_url,
            "MIDWATCH_PREFIX": prefix,
            "MIDWATCH_EVENTS": "false",
            "MIDWATCH_SWEEP_MS": "60",
            "MIDWATCH_AGENTS": "tests.functional.fleet_agents",
            "PYTHONPATH": str(ROOT),
            fleet_marks.FOLDER: str(folder / "marks"),
            **model.environment(),
            **(env or {}),
        }
        for name, value in shared.items():
            environment.setenv(name, value)
        environment.setattr(client_module, "_clients", {})
        with Fleet(shared, folder / "logs") as fleet:
            for number, (queues, pool, concurrency) in enumerate(kinds):
                fleet.start(f"worker-{number}", worker_argv(queues, pool, concurrency, f"worker-{number}"))
            for member in fleet.members:
                wait_ready(member, "ready", timeout_s=PATIENCE_S)
            stage = Stage(make_client(Settings()), model, fleet, parts)
            yield stage
            stage.close()
        assert model.stats().unexpected == 0, "the model was called more often than its script has lines"
