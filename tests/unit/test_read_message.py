"""Reading queue items: task messages, and the replies that `celery inspect` waits for."""

from __future__ import annotations

import json

import pytest

from midwatch.workers.celery_app.read_message import UnreadableMessage, read_message

REPLY = {
    "body": "eyJjZWxlcnlAaG9zdCI6IHsib2siOiAicG9uZyJ9fQ==",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"clock": 7, "expires": None, "ticket": "t-1"},
    "properties": {"delivery_tag": "d-1", "delivery_mode": 2, "body_encoding": "base64", "priority": 0},
}
"""A worker's reply to `celery inspect ping`, as kombu writes it. It has no task id."""


def test_reply_on_a_reply_queue_is_passed_on_unchanged() -> None:
    """`celery inspect` and Flower get the replies of the workers."""
    assert read_message(json.dumps(REPLY).encode(), "c0ffee.reply.celery.pidbox") == REPLY


def test_reply_on_a_task_queue_is_unreadable() -> None:
    """Only the name of a reply queue lifts the rule that a message has a task id."""
    with pytest.raises(UnreadableMessage, match="expected id as a short text, got nothing"):
        read_message(json.dumps(REPLY).encode(), "mw.model")


@pytest.mark.parametrize("raw", [b"no json", b"[]", b'{"headers": {}, "properties": {}}'])
def test_malformed_item_on_a_reply_queue_is_unreadable(raw: bytes) -> None:
    """An item that kombu could not deliver is refused on every queue."""
    with pytest.raises(UnreadableMessage, match="not a task message"):
        read_message(raw, "c0ffee.reply.celery.pidbox")
