"""What comes out of a queue, read strictly: Celery is handed a message rebuilt from what a step needs, and nothing else.

Celery and kombu trust what they find: one message whose body is `null`, whose id is a list or whose time limit is a word
ended a worker, and the next worker with the next such message; a callback in it ran; a gzip header inflated in the event
loop. So a message is taken apart here, and what is odd becomes a poison record with its reason.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from kombu.utils.json import loads

from midwatch.schemas.contract import MAX_ENVELOPE_BYTES, check_depth

SHOWN_CHARS = 1_000
"""Of what Flower shows of the arguments."""

PASSED_ON = ("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "traceparent", "tracestate", "baggage")
"""Headers that are only shown, or read by a tracer."""

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
"""Every header of Celery's, at the value that asks for nothing."""

Json = dict[str, Any]


class Unreadable(ValueError):
    """Raised when a raw item can't be a message."""


def read_message(raw: bytes, queue: str) -> Json:
    """A raw list item as kombu's message. Nothing recurses into it before its depth is known.

    Raises:
        Unreadable: says why.

    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise Unreadable(f"{len(raw):,} bytes, at most {MAX_ENVELOPE_BYTES:,}: messages carry ids, not content")
    try:
        check_depth(raw)
        frame = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a task message: {type(error).__name__}: {str(error)[:200]}") from error
    properties, headers = _object(frame, "properties"), _object(frame, "headers")
    _refuse(frame, headers)
    task_id = _word(headers, "id")
    return {
        "body": _body(frame.get("body"), properties.get("body_encoding")),
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


def _object(frame: Any, name: str) -> Json:
    found = frame.get(name) if isinstance(frame, dict) else None
    if not isinstance(found, dict):
        raise Unreadable(f"not a task message: expected an object with {name}, got {_kind(frame)} with {_kind(found)}")
    return found


def _word(holder: Json, name: str) -> str:
    """An id or a name: it becomes a key of dictionaries, and part of logs."""
    value = holder.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise Unreadable(f"not a task message: expected {name} as a short text, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refuse(frame: Json, headers: Json) -> None:
    """What Celery would act on and a step never has."""
    if frame.get("content-type") != "application/json" or str(frame.get("content-encoding")).lower() != "utf-8":
        kind = f"{frame.get('content-type')!r:.60} in {frame.get('content-encoding')!r:.30}"
        raise Unreadable(f"content type {kind}: expected application/json in utf-8")
    if headers.get("compression"):
        raise Unreadable("compressed: expected plain JSON")
    if headers.get("eta") is not None or headers.get("expires") is not None:
        raise Unreadable("eta, countdown and expires are not supported: a worker that dies would lose the message")


def _body(body: Any, encoding: Any) -> str:
    """The body as JSON text, of which Celery makes positional and keyword arguments without asking."""
    try:
        if not isinstance(body, str) or encoding not in (None, "utf-8", "base64"):
            raise Unreadable(f"undecodable: expected text, plain or in base64, got {_kind(body)} in {encoding!r:.30}")
        text = base64.b64decode(body, validate=True).decode() if encoding == "base64" else body
        check_depth(text)
        # kombu's JSON makes dates, decimals and UUIDs of marked objects, and takes four times as long.
        arguments = loads(text) if "__type__" in text else json.loads(text)
    except Unreadable:
        raise
    except Exception as error:  # each of those types has errors of its own
        raise Unreadable(f"undecodable: {type(error).__name__}: {str(error)[:200]}") from error
    match arguments:
        case [list(), dict(), None | dict() as embedded]:
            if embedded and any(embedded.values()):
                raise Unreadable("callbacks, chains and chords are not supported: a step names what follows it")
            return text
        case _:
            raise Unreadable("invalid task message: expected [positional, keyword, embedded] arguments as its body")


def _headers(given: Json, task_id: str) -> Json:
    """All of Celery's headers: texts as they came, everything that steers Celery at its default."""
    texts = {name: given[name][:SHOWN_CHARS] for name in PASSED_ON if isinstance(given.get(name), str)}
    return {**DEFAULTS, **texts, "task": _word(given, "task"), "id": task_id}
