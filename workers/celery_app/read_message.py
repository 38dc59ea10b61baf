"""Strict reading of Celery messages from a Redis queue.

Celery and kombu trust every message. In tests a message ended its worker if its body was `null`, its id a list or its time
limit a word, and the next such message ended the next worker. Callbacks in a message ran. A gzip body was inflated in the
event loop. So this module parses each message itself. It rebuilds the message from the fields that a step needs, and
passes only those to Celery. An invalid message becomes a poison record with the reason.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import structlog
from kombu.utils.json import loads

from midwatch.schemas.contract import MAX_ENVELOPE_BYTES, check_depth
from midwatch.workers.celery_app.later import LONGEST_S, read_time

log = structlog.get_logger("midwatch.tasks")

SHOWN_CHARS = 1_000
"""Most characters kept of a header that Flower shows."""

TEXT_HEADERS = ("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "traceparent", "tracestate", "baggage")
"""Headers that are only shown or traced. They are kept as they arrive."""

DEFAULTS = {
    "lang": "py",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": (None, None),
    "root_id": None,
    "parent_id": None,
    "argsrepr": "()",
    "kwargsrepr": "{}",
    "origin": None,
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": None,
}
"""All headers of Celery, each with the value that has no effect."""

Json = dict[str, Any]


class UnreadableMessage(ValueError):
    """Raised when a queue item is not a valid message."""


class ExpiredMessage(Exception):
    """Raised when a message's `expires` has passed. Its argument is the task's id."""


class EarlyMessage(Exception):
    """Raised when a message's `eta` has not come."""

    def __init__(self, eta_s: float) -> None:
        super().__init__(eta_s)
        self.eta_s = eta_s


def read_message(raw: bytes, queue: str) -> Json:
    """Parse a raw queue item into kombu's message. The nesting depth is checked before any recursive parsing.

    Raises:
        UnreadableMessage: gives the reason.
        ExpiredMessage: its `expires` has passed.
        EarlyMessage: its `eta` has not come.

    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise UnreadableMessage(f"{len(raw):,} bytes, at most {MAX_ENVELOPE_BYTES:,}: messages carry ids, not content")
    try:
        check_depth(raw)
        frame = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage(f"not a task message: {type(error).__name__}: {str(error)[:200]}") from error
    properties, headers = _object(frame, "properties"), _object(frame, "headers")
    _refuse_unsupported(frame, headers)
    task_id = _word(headers, "id")
    _word(headers, "task")
    _word(properties, "delivery_tag")
    body = _body(frame.get("body"), properties.get("body_encoding"), task_id)
    _check_times(headers, task_id)
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": _headers(headers, task_id),
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "delivery_tag": _word(properties, "delivery_tag"),
        },
    }


def read_foreign_message(raw: bytes) -> Json:
    """Parse an item of a queue that is not the fleet's, as kombu does. Only what kombu can't deliver at all is refused.

    Raises:
        UnreadableMessage: gives the reason.

    """
    try:
        frame = loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage(f"not a message: {type(error).__name__}: {str(error)[:200]}") from error
    _word(_object(frame, "properties"), "delivery_tag")
    message: Json = frame
    return message


def _object(frame: Any, name: str) -> Json:
    found = frame.get(name) if isinstance(frame, dict) else None
    if not isinstance(found, dict):
        raise UnreadableMessage(
            f"not a task message: expected an object with {name}, got {_kind(frame)} with {_kind(found)}"
        )
    return found


def _word(holder: Json, name: str) -> str:
    """Return an id or a name. It must be short printable text, because it is used as a dictionary key and in logs."""
    value = holder.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise UnreadableMessage(f"not a task message: expected {name} as a short text, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refuse_unsupported(frame: Json, headers: Json) -> None:
    """Raise if the message uses a Celery feature that steps never use."""
    if frame.get("content-type") != "application/json" or str(frame.get("content-encoding")).lower() != "utf-8":
        kind = f"{frame.get('content-type')!r:.60} in {frame.get('content-encoding')!r:.30}"
        raise UnreadableMessage(f"content type {kind}: expected application/json in utf-8")
    if headers.get("compression"):
        raise UnreadableMessage("compressed: expected plain JSON")


def _check_times(headers: Json, task_id: str) -> None:
    """Raise if the message has expired, or if its time has not come."""
    now_s = time.time()
    try:
        expires_s = read_time(headers["expires"], "expires") if headers.get("expires") is not None else None
        eta_s = read_time(headers["eta"], "eta") if headers.get("eta") is not None else now_s
    except ValueError as error:
        raise UnreadableMessage(f"invalid task message: {error}") from error
    if eta_s - now_s > LONGEST_S:
        raise UnreadableMessage(f"eta: expected a time within {LONGEST_S // 86_400} days, got {headers['eta'][:40]!r}")
    if expires_s is not None and expires_s <= now_s:
        raise ExpiredMessage(task_id)
    if eta_s > now_s:
        raise EarlyMessage(eta_s)


def _body(body: Any, encoding: Any, task_id: str) -> str:
    """Return the body as JSON text after checking it. Celery does not check its arguments.

    Callbacks and chains are left out, with a line in the log: they would run when the job is enqueued, not when it is done.
    """
    try:
        if not isinstance(body, str) or encoding not in (None, "utf-8", "base64"):
            raise UnreadableMessage(
                f"undecodable: expected text, plain or in base64, got {_kind(body)} in {encoding!r:.30}"
            )
        text = base64.b64decode(body, validate=True).decode() if encoding == "base64" else body
        check_depth(text)
        # kombu's parser turns marked objects into dates, decimals and UUIDs. It takes four times as long as json.
        arguments = loads(text) if "__type__" in text else json.loads(text)
    except UnreadableMessage:
        raise
    except Exception as error:  # the parsers of these types raise different errors
        raise UnreadableMessage(f"undecodable: {type(error).__name__}: {str(error)[:200]}") from error
    match arguments:
        case [list(), dict(), None | dict() as embedded]:
            if not embedded or not any(embedded.values()):
                return text
            ignored = sorted(str(name)[:40] for name, value in embedded.items() if value)
            log.warning("message.ignored_options", task_id=task_id, options=ignored)
            return json.dumps([*arguments[:2], {}])
        case _:
            raise UnreadableMessage(
                "invalid task message: expected [positional, keyword, embedded] arguments as its body"
            )


def _headers(given: Json, task_id: str) -> Json:
    """Return all of Celery's headers: text headers as they arrived, and every control header at its default."""
    texts = {name: given[name][:SHOWN_CHARS] for name in TEXT_HEADERS if isinstance(given.get(name), str)}
    return {**DEFAULTS, **texts, "task": _word(given, "task"), "id": task_id}
