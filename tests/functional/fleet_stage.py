"""A real fleet for one test module: worker processes, a model server in this process, and a part for it to play.

The model is played line by line: `stage.cast([...])` gives a text, and whoever is sent that text as a user's input is
answered with those lines, over HTTP, through the vendors' own SDKs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kombu import pools

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
    """The model calls these tools."""
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
        """What `orchestration.connect` gives, closed with the stage."""
        client = connect(redis_url, broker_url)
        self._producers.append(client)
        return client

    def close(self) -> None:
        """Close what the producers of this process have open: a client lives as long as its process otherwise."""
        for client in [*self._producers, *client_module._clients.values()]:
            close(client)

    def cast(self, lines: Sequence[Line], text: str | None = None) -> str:
        """A user's input that is answered with these lines, one after the other. A repeated request gets the same line."""
        return self._parts.add(lines, text)

    def heard(self, text: str) -> list[Conversation]:
        """What the model was shown, each time it was asked to answer this input."""
        return self._parts.heard[text]

    def job(self, handle: JobHandle) -> Job:
        """All that is known of a job."""
        return self.client.jobs.show(handle.id)

    def results(self, handle: JobHandle) -> list[ToolMessage]:
        """The tool results of the job's session, in the order they were committed."""
        said = self.client.sessions.messages(handle.session_id)
        return [message for message in said if isinstance(message, ToolMessage)]


def close(client: Client) -> None:
    """Close a producer's connections, to the state and, where it has any, to the broker."""
    client.operations.client.close()
    app = vars(client.store._dispatcher).get("_app")
    if app is not None:
        app.producer_pool.force_close_all()
        app.pool.force_close_all()
        for group in (pools.producers, pools.connections):
            # Or the next app of this address is given closed pools. Left open and emptied, they would let it wait for ever.
            with suppress(KeyError):  # two clients of one address share it
                del group[app.connection_for_write()]


class Parts:
    """The rule set behind the model server: what to say to whom, and what was heard."""

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
        if text not in self._lines:  # a client may send two user messages on end as one
            text = text.rpartition("\n\n")[2]
        if text not in self._lines:
            return Say(f"You said: {text[:80]}")
        heard = self.heard[text]
        # Counted here: an empty answer and a trimmed window don't show in the request.
        self._turns[text] += not heard or heard[-1].turns != conversation.turns
        heard.append(conversation)
        lines, turn = self._lines[text], self._turns[text]
        if turn >= len(lines):
            raise UnexpectedCall(f"{text!r} has {len(lines)} lines, and turn {turn + 1} was asked for")
        line = lines[turn]
        return line(conversation) if callable(line) else Say(line) if isinstance(line, str) else line


def told(conversation: Conversation) -> list[str]:
    """The tool results that the model was shown since the user spoke, without what marks an error on a wire."""
    return [turn.text.removeprefix("ERROR: ") for turn in conversation.since_user if turn.role == "tool"]


def note(conversation: Conversation) -> str:
    """What the runtime, not the user, said to the model last."""
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
    """Start it all, with this process as a producer of that fleet, and stop it all; no model call may be unexpected."""
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
        assert model.stats().unexpected == 0, "the model was asked for more turns than its part has lines"
