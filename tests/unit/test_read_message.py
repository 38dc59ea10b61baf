"""Reading queue items: the fleet's own task messages strictly, and all others as kombu reads them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from midwatch.schemas.step import StepRef
from midwatch.workers.celery_app.read_message import (
    EarlyMessage,
    ExpiredMessage,
    UnreadableMessage,
    read_foreign_message,
    read_message,
)
from midwatch.workers.celery_app.write_message import CeleryMessageWriter

REPLY = {
    "body": "eyJjZWxlcnlAaG9zdCI6IHsib2siOiAicG9uZyJ9fQ==",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"clock": 7, "expires": None, "ticket": "t-1"},
    "properties": {"delivery_tag": "d-1", "delivery_mode": 2, "body_encoding": "base64", "priority": 0},
}
"""A worker's reply to `celery inspect ping`, as kombu writes it. It has no task id."""


def test_reply_to_an_inspection_is_read_as_it_is() -> None:
    """`celery inspect` and Flower get the replies of the workers."""
    assert read_foreign_message(json.dumps(REPLY).encode()) == REPLY


def test_message_of_another_application_keeps_what_a_step_may_not_have() -> None:
    """Midwatch does not check its headers, its countdown, its compression and its kind of body."""
    task = {
        **REPLY,
        "content-type": "application/x-python-serialize",
        "headers": {"task": "shop.pay", "id": 7, "eta": "2030-01-01T00:00:00", "compression": "gzip"},
    }
    assert read_foreign_message(json.dumps(task).encode()) == task


def test_reply_in_a_queue_of_the_fleet_is_unreadable() -> None:
    """There a message needs a task id."""
    with pytest.raises(UnreadableMessage, match="expected id as a short text, got nothing"):
        read_message(json.dumps(REPLY).encode(), "mw.model")


@pytest.mark.parametrize("raw", [b"no json", b"[]", b"\xff", b"[" * 100_000, b'{"headers": {}, "properties": {}}'])
def test_foreign_item_that_kombu_can_not_deliver_is_unreadable(raw: bytes) -> None:
    """kombu would raise inside the worker's event loop, which ends the worker."""
    with pytest.raises(UnreadableMessage, match="not a"):
        read_foreign_message(raw)


def message(**headers: object) -> bytes:
    """Make the message of a step, with other headers."""
    made = json.loads(CeleryMessageWriter("mw").write(StepRef(job_id="job-1", session_id="s", step="1")))
    made["headers"].update(headers)
    return json.dumps(made).encode()


def at(wait_s: float, *, zone: bool = True) -> str:
    """Return the time in so many seconds, as Celery writes it."""
    moment = datetime.now(UTC) + timedelta(seconds=wait_s)
    return (moment if zone else moment.replace(tzinfo=None)).isoformat()


@pytest.mark.parametrize("zone", [True, False], ids=["with a zone", "without one, which means UTC"])
def test_a_message_is_early_until_its_eta_and_expired_after_its_expiry(zone: bool) -> None:
    """A reader sees `countdown` as an `eta`. An expired message is expired even if its eta has come."""
    with pytest.raises(EarlyMessage) as early:
        read_message(message(eta=at(60, zone=zone)), "mw.model")
    assert 50 < early.value.eta_s - time.time() < 70
    with pytest.raises(ExpiredMessage):
        read_message(message(expires=at(-1, zone=zone), eta=at(-2, zone=zone)), "mw.model")
    for fine in (
        message(eta=at(-1, zone=zone)),
        message(expires=at(60, zone=zone)),
        message(retries=3, chord={"a": 1}),
    ):
        assert read_message(fine, "mw.model")["headers"]["id"] == "job-1.1"


@pytest.mark.parametrize(
    "wrong",
    [7, "soon", [], {"__type__": "datetime"}, pytest.param(at(91 * 86_400), id="in 91 days"), "9999-99-99"],
)
def test_an_eta_that_is_no_time_or_too_far_is_unreadable(wrong: object) -> None:
    """The reason names the header."""
    with pytest.raises(UnreadableMessage, match="eta: "):
        read_message(message(eta=wrong), "mw.model")


def test_callbacks_are_left_out_and_the_step_remains() -> None:
    """They would run when the step's task ends, which is not the end of the job."""
    made = json.loads(message())
    arguments = json.loads(made["body"])
    made["body"] = json.dumps([arguments[0], arguments[1], {"callbacks": [{"task": "shop.pay"}], "chord": None}])
    read = read_message(json.dumps(made).encode(), "mw.model")
    assert json.loads(read["body"]) == [arguments[0], arguments[1], {}]
