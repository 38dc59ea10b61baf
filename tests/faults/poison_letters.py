"""Messages that no producer should send. Each is a raw queue item and the reason that must be recorded for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from midwatch.schemas.step import StepRef
from midwatch.workers.celery_app.write_message import CeleryMessageWriter

DEEP = "[" * 990 + "]" * 990
FORGED = StepRef(job_id="job-forged", session_id="session-forged", step="1")


@dataclass(frozen=True)
class Letter:
    """`raw` is pushed to the list. `reason` must be in its poison record, or is None if the message only finds nothing to do."""

    name: str
    raw: bytes
    reason: str | None


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a step's message as workers publish it, with one thing changed."""
    message = json.loads(CeleryMessageWriter("p").write(FORGED))
    change(message)
    return json.dumps(message).encode()


def frame(**values: Any) -> bytes:
    """Change the outermost object. `__` is written as a hyphen."""
    return altered(lambda message: message.update({name.replace("__", "-"): value for name, value in values.items()}))


def headers(**values: Any) -> bytes:
    """Change the headers."""
    return altered(lambda message: message["headers"].update(values))


def properties(**values: Any) -> bytes:
    """Change the properties."""
    return altered(lambda message: message["properties"].update(values))


def without(part: str, name: str) -> bytes:
    """Remove a header or a property."""
    return altered(lambda message: message[part].pop(name))


def arguments(**envelope: Any) -> bytes:
    """Change the keyword arguments of the task."""
    return frame(body=json.dumps([[], envelope, {}]))


def start(**envelope: Any) -> bytes:
    """Return a `midwatch.start` message as a producer in another language sends it."""

    def change(message: dict[str, Any]) -> None:
        message["headers"]["task"] = "midwatch.start"
        message["body"] = json.dumps([[envelope], {}, {}])

    return altered(change)


NO_MESSAGE, NO_BODY = "not a task message", "undecodable"
SHAPE = "expected [positional, keyword, embedded] arguments"
GOOD_START = {"v": 1, "job_id": "job-started", "agent": "fault", "session_id": "session-started", "input": "hello"}

LETTERS = [
    Letter("not JSON", b"not json \xff\xfe", NO_MESSAGE),
    Letter("empty", b"", NO_MESSAGE),
    Letter("a list", b"[1, 2]", NO_MESSAGE),
    Letter("null", b"null", NO_MESSAGE),
    Letter("a number of 5,000 digits", b"9" * 5_000, NO_MESSAGE),
    Letter("an empty object", b"{}", NO_MESSAGE),
    Letter("nested 990 deep", DEEP.encode(), "nested deeper"),
    Letter("a body nested 990 deep", frame(body=DEEP), "nested deeper"),
    Letter("an argument nested 990 deep", frame(body=f"[[], {{}}, {DEEP}]"), "nested deeper"),
    Letter(
        "a body nested 990 deep in base64",
        altered(
            lambda m: (
                m.update(body=base64.b64encode(DEEP.encode()).decode()),
                m["properties"].update(body_encoding="base64"),
            )
        ),
        "nested deeper",
    ),
    Letter("9 MB", frame(body="x" * 9_000_000), "at most 8,500,000"),
    Letter("an unknown task", headers(task="midwatch.nope"), "unknown task 'midwatch.nope'"),
    Letter("a task that is a list", headers(task=["midwatch.model"]), NO_MESSAGE),
    Letter("no task", without("headers", "task"), NO_MESSAGE),
    Letter("no id", without("headers", "id"), NO_MESSAGE),
    Letter("an id that is an object", headers(id={}), NO_MESSAGE),
    Letter("headers that are a list", frame(headers=[1]), NO_MESSAGE),
    Letter("properties that are null", frame(properties=None), NO_MESSAGE),
    Letter("a delivery tag that is a list", properties(delivery_tag=[1]), NO_MESSAGE),
    Letter("a body that is not JSON", frame(body="not json"), NO_BODY),
    Letter("an unknown body encoding", properties(body_encoding="rot13"), NO_BODY),
    Letter("a body that is not base64", properties(body_encoding="base64"), NO_BODY),
    Letter("a body that is a list", frame(body=[1]), NO_BODY),
    Letter("a body of null", frame(body="null"), SHAPE),
    Letter("a body of an object", frame(body='{"args": [], "kwargs": {}}'), SHAPE),
    Letter("a body of one argument", frame(body="[1]"), SHAPE),
    Letter("keyword arguments that are a text", frame(body='[[], "abc", {}]'), SHAPE),
    Letter(
        "keyword arguments of kombu's own types",
        frame(body='[[], {"__type__": "decimal", "__value__": "1"}, {}]'),
        SHAPE,
    ),
    Letter("a broken date of kombu's", arguments(job_id={"__type__": "datetime", "__value__": "never"}), NO_BODY),
    Letter("pickle", frame(content__type="application/x-python-serialize", content__encoding="binary"), "content type"),
    Letter("YAML", frame(content__type="application/x-yaml"), "content type"),
    Letter("a content type that is a list", frame(content__type=[1]), "content type"),
    Letter("an unknown charset", frame(content__encoding="klingon"), "content type"),
    Letter("compressed", headers(compression="application/x-gzip"), "compressed"),
    Letter("an eta in 1,000 years", headers(eta="2999-01-01T00:00:00+00:00"), "eta: expected a time within 90 days"),
    Letter("an eta that is a list", headers(eta=[1]), "eta: expected a time"),
    Letter("an expiry that is a word", headers(expires="soon"), "expires: expected a time"),
    Letter("an expiry in the past", headers(expires="2001-01-01T00:00:00+00:00"), None),
    Letter("a chain to another task", frame(body='[[], {}, {"chain": [{"task": "midwatch.start"}]}]'), "job_id"),
    Letter("no arguments", arguments(), "job_id: Field required"),
    Letter("positional arguments", frame(body='[["job-1", "1"], {}, {}]'), "2 positional"),
    Letter("a version of tomorrow", arguments(v=2, job_id="j", session_id="s", step="1"), "version 2"),
    Letter("a step that is none", arguments(job_id="j", session_id="s", step="1.2.3"), "step: "),
    Letter("an id that breaks out of its key", arguments(job_id="a}b{c", session_id="s", step="1"), "job_id: "),
    Letter(
        "a start without an agent",
        start(v=1, job_id="j", session_id="s", input="x"),
        "midwatch.start: agent: Field required",
    ),
    Letter("a start with no input", start(**{**GOOD_START, "input": ""}), "midwatch.start: input"),
    Letter(
        "a start with a key of ours in its id",
        start(**{**GOOD_START, "job_id": "mw:{mw00}:due"}),
        "midwatch.start: job_id",
    ),
    Letter("a start of a version of tomorrow", start(**{**GOOD_START, "v": 2}), "midwatch.start: v"),
    Letter("a step of a job that does not exist", altered(lambda message: None), None),
    Letter("time limits that kill at once", headers(timelimit=[-1, -1]), None),
    Letter("time limits that are words", headers(timelimit=["a", "b"]), None),
    Letter("stamps that are a number", headers(stamped_headers=7, stamps=7), None),
    Letter("retries beyond counting", headers(retries=10**30), None),
]
