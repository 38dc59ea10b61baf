"""A message of `midwatch.start` is all that exists of its job. It survives a store that can't be used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.workers.process import tasks

START = {"v": 1, "job_id": "tides-1", "agent": "clerk", "session_id": "s-1", "input": "When?"}


class Fleet:
    """A worker's runtime whose store refuses every job, and its poison list and broker."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.sent: list[dict[str, Any]] = []
        self.poison: list[str] = []
        self.refusal: Exception | None = None
        keys = SimpleNamespace(queue=lambda name: f"mw.{name}")
        operations = SimpleNamespace(keys=keys, cancel=None)
        self.client = SimpleNamespace(store=SimpleNamespace(enqueue=self.refuse), operations=operations)
        self.agents: tuple[str, ...] = ()
        self.settings = SimpleNamespace(one_server=False)

    def refuse(self, *_: Any, **__: Any) -> None:
        raise self.error

    def send_task(
        self, name: str, args: tuple[Any, ...], queue: str, countdown: float, argsrepr: str, **_: Any
    ) -> None:
        if self.refusal:
            raise self.refusal
        assert countdown > 0
        assert argsrepr == "()"  # shown by Celery's tools
        self.sent.append({"name": name, "args": args, "queue": queue})

    def keep(self, _queue: str, body: str, _reason: str) -> None:
        self.poison.append(body)


@pytest.fixture(params=[StoreUnavailable("gone"), NoPermissionError("no right for evalsha")], ids=["gone", "no right"])
def fleet(request, monkeypatch) -> Fleet:
    """A worker whose broker is another server."""
    made = Fleet(request.param)
    monkeypatch.setattr(tasks, "runtime", lambda: made)
    monkeypatch.setattr(tasks.app, "send_task", made.send_task)
    monkeypatch.setattr(tasks, "_poison_list", lambda: made)
    return made


def test_a_start_is_published_again_if_the_store_is_unusable(fleet):
    """The worker has taken the message, and the producer will not send it again."""
    tasks.start(START)
    assert fleet.sent == [{"name": "midwatch.start", "args": (START,), "queue": "mw.model"}]
    assert fleet.poison == []


def test_a_start_that_the_broker_refuses_is_kept_as_poison(fleet):
    """Broker and store are often one server. Then the poison list at least logs the message."""
    fleet.refusal = OSError("no broker")
    tasks.start(START)
    assert fleet.sent == []
    assert len(fleet.poison) == 1


def test_an_invalid_start_is_poison_and_not_published_again(fleet):
    """It would come back for ever."""
    tasks.start({**START, "job_id": "a b"})
    assert (fleet.sent, len(fleet.poison)) == ([], 1)


def test_a_start_on_one_server_is_tried_until_the_patience_ends(fleet, monkeypatch):
    """The broker is down together with the store, so it is no place for the message."""
    waits: list[float] = []
    fleet.settings.one_server = True
    monkeypatch.setattr(tasks, "START_RETRY_S", 0.01)
    monkeypatch.setattr(tasks.time, "sleep", waits.append)
    tasks.start(START)
    assert len(waits) >= 1
    assert len(fleet.sent) == 1
