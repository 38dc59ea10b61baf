"""Reading queue items: the fleet's own task messages strictly, and all others as kombu reads them."""

from __future__ import annotations

import json

import pytest

from midwatch.workers.celery_app.read_message import UnreadableMessage, read_foreign_message, read_message

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
    """Its headers, its countdown, its compression and its kind of body are that application's affair."""
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
