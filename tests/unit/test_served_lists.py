"""Which lists a worker's channel asks for, in which order: priority first, then begun before new, then the queues in turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.utils.scheduling import cycle_by_name

from midwatch.workers.celery_app import transport
from midwatch.workers.celery_app.first_steps import FirstSteps
from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.celery_app.write_message import NUMBERS, SEPARATOR
from midwatch.workers.settings import Settings

QUEUES = ["mw.model", "mw.tools", "mw.maintenance"]


class Channel(transport.Channel):
    """A channel without a connection. It keeps the keys that it asks for."""

    active_queues = QUEUES
    client: Any = None
    sep = SEPARATOR
    priority_steps = NUMBERS
    brpop_timeout = 1

    def __init__(self) -> None:
        options = make_app(Settings()).conf.broker_transport_options
        self._queue_cycle = cycle_by_name(options["queue_order_strategy"])(list(QUEUES))
        self.connection = SimpleNamespace(client=SimpleNamespace(transport_options=options))
        self.asked: list[str] = []
        self.client = SimpleNamespace(connection=SimpleNamespace(send_command=self._send))

    def _send(self, _command: str, *arguments: Any) -> None:
        self.asked = [key.removeprefix("mw.").replace(SEPARATOR, " ") for key in arguments[:-1]]

    def ask(self, taken_from: str = "") -> list[str]:
        """Ask for the next message, after one was taken from a queue."""
        if taken_from:
            self._queue_cycle.rotate(taken_from)
        self._brpop_start()
        return self.asked


def test_a_worker_asks_for_begun_steps_of_all_queues_before_first_steps():
    """First steps are only in the model queue, so a worker for all queues asks for 16 lists and not for 24."""
    assert Channel().ask() == [
        "model", "tools", "maintenance", "model 1",
        "model 3", "tools 3", "maintenance 3", "model 4",
        "model 6", "tools 6", "maintenance 6", "model 7",
        "model 8", "tools 8", "maintenance 8", "model 9",
    ]  # fmt: skip


def test_queues_take_turns_at_equal_priority():
    """However many model steps there are, the next tool step and the next compaction come before the next but one."""
    channel = Channel()
    assert channel.ask("mw.model")[4:7] == ["tools 3", "maintenance 3", "model 3"]
    assert channel.ask("mw.tools")[4:7] == ["maintenance 3", "model 3", "tools 3"]


def test_first_steps_that_are_held_back_are_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    """All other steps are."""
    monkeypatch.setattr(transport, "FIRST_STEPS", FirstSteps(held=frozenset({4, 7, 9})))
    asked = Channel().ask()
    assert "model 1" in asked
    assert not {"model 4", "model 7", "model 9"} & set(asked)
    assert len(asked) == 13
