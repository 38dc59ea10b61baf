"""Finds the error in a reply with status 2xx, wherever in the body the server has put it.

Sources: OpenAI (`status: failed`), Anthropic (`type: error`), Google (a list), OpenRouter (`choices[0].error`, an event stream),
MiniMax (`base_resp`), Z.ai, DashScope and Baidu (a code and a message in place of the answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.read_json import BadReply, ErrorReply, NoApiReply, raise_wrong_type
from midwatch.workers.providers.replies.json_body import NotJson, decode, read_object, read_value

ANSWERS = ("choices", "content", "output")
"""The field of the answer in each of the three formats."""

ENDED = ("failed", "cancelled", "canceled", "expired")
"""Statuses of a response that has no answer."""

ENVELOPES = ("data", "result", "response", "output", "body")
"""Fields in which a gateway puts the whole reply. DashScope's own API has it in `output`, Cloudflare's in `result`."""

SIGNS = (
    "msg", "message", "detail", "errors", "error_msg", "error_message", "error_code", "errorCode", "errorMessage", "__type",
    "fault", "Error", "status_code", "statusCode", "code", "response",
    "errmsg", "exception", "reason",
)  # fmt: skip
"""Fields of an error that takes the place of the answer."""

_MOST_EVENTS = 10_000
_DEEPEST = 3


def read_answer(content: bytes, content_type: str) -> JsonObject:
    """Read the JSON object of a reply.

    Raises:
        ErrorReply: the reply reports an error.
        NoApiReply: the body is no JSON.
        BadReply: the body can't be used.

    """
    try:
        value = read_value(content, content_type)
    except NotJson:
        value = _read_event_stream(decode(content, content_type))
        if value is None:
            raise NoApiReply(content) from None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and value and isinstance(value[0], dict) and (found := find_error(value[0])) is not None:
        raise ErrorReply(found)
    if isinstance(value, dict):
        value = _unwrap(value)
    if not isinstance(value, dict):
        raise_wrong_type("the body", "an object", value)
    if (found := find_error(value)) is not None:
        raise ErrorReply(found)
    return value


def _unwrap(value: JsonObject) -> JsonObject:
    """Return the reply inside a gateway's own object: `{"code": 0, "data": {"choices": […]}}`."""
    if _is_error(value.get("error")) or any(value.get(name) for name in ("choices", "content")):
        return value
    for name in ENVELOPES:
        inner = value.get(name)
        answers = ("choices",) if name == "output" else ANSWERS  # in the Responses format, one item may be there
        if isinstance(inner, dict) and any(isinstance(inner.get(answer), list) and inner[answer] for answer in answers):
            return inner
    return value


def find_error(reply: JsonObject) -> Any | None:
    """Find the error in a reply. None if it reports none."""
    if _is_error(reply.get("error")) or reply.get("type") == "error":
        return reply
    if (found := _find_in_answer(reply)) is not None:
        return found
    base = reply.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code") not in (None, 0, "0", 200):
        return {"base_resp": base}
    status = reply.get("status")
    if isinstance(status, str) and status.lower() in ENDED:
        if isinstance(reason := reply.get("last_error") or reply.get("status_details"), Mapping):
            return {"error": reason}
        return {"error": {"code": status.lower(), "message": f"the response has status {status} and no reason"}}
    if any(reply.get(name) for name in ANSWERS):
        return None
    is_status = isinstance(status, int) and status >= 400
    if is_status or reply.get("success") is False or any(_is_sign(reply.get(name)) for name in SIGNS):
        return reply
    return _find_nested(reply, _DEEPEST)


def _find_in_answer(reply: JsonObject) -> Any | None:
    """Find an error that a server puts where the answer belongs: in a choice, or as one of the items."""
    choices = reply.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        for holder in (choice, choice.get("message") if isinstance(choice, Mapping) else None):
            if isinstance(holder, Mapping) and _is_error(holder.get("error")):
                return {"error": holder["error"]}
    for name in ("content", "output"):
        for item in reply[name] if isinstance(reply.get(name), list) else ():
            if isinstance(item, Mapping) and item.get("type") == "error":
                return item
    return None


def _find_nested(value: object, depth: int) -> Any | None:
    """Find an error object in the fields of a reply without an answer."""
    for inner in value.values() if isinstance(value, Mapping) and depth else ():
        if isinstance(inner, Mapping) and any(_is_error(inner.get(name)) for name in ("error", "Error", "errors")):
            return inner
        if (found := _find_nested(inner, depth - 1)) is not None:
            return found
    return None


def _is_sign(value: object) -> bool:
    """Is it a text, a number that is not zero, or a list? A `message` that is an object is another format's answer."""
    return bool(value) and not (isinstance(value, Mapping) and "content" in value)


def _is_error(value: object) -> bool:
    """Does the value of an `error` field hold an error? Some servers send an object of nulls with every answer."""
    if isinstance(value, Mapping):
        return any(inner not in (None, "", 0, False, "0", 200) for inner in value.values())
    return bool(value)


def _read_event_stream(text: str) -> JsonObject | None:
    """Read an event stream in place of a JSON object. Only one that holds a whole reply in a single event can be used.

    Returns None if the text is no event stream.

    Raises:
        ErrorReply: one of its events is an error.
        BadReply: it has an answer in pieces, which the same request would only cost again.

    """
    lines = text.splitlines()[:_MOST_EVENTS]
    if not any(line.startswith(("data:", "event:")) for line in lines):
        return None
    events: list[JsonObject] = []
    for line in lines:
        event = read_object(line.removeprefix("data:").encode("utf-8", "replace")) if line.startswith("data:") else None
        if event is None:
            continue
        if (found := find_error(event)) is not None and not _is_progress(event):
            raise ErrorReply(found)
        events.append(event)
    if len(events) == 1 and _is_whole(events[0]):
        return events[0]
    kind = FailureKind.FORMAT_ERROR if any(events) else FailureKind.PROVIDER_ERROR
    raise BadReply(kind, "unusable reply: expected a JSON object, got an event stream, although none was asked for")


def _is_whole(event: JsonObject) -> bool:
    """Is the event a whole reply? The pieces of a stream have a `delta`, or a type of their own."""
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return isinstance(choices[0].get("message"), dict)
    return event.get("type", "message") == "message" and any(isinstance(event.get(name), list) for name in ANSWERS[1:])


def _is_progress(event: JsonObject) -> bool:
    """Is it an event of an answer that is going well? Those of the Responses and Messages formats have a `response`."""
    kind = event.get("type")
    return isinstance(kind, str) and kind != "error" and not kind.endswith(("failed", "incomplete", ".error"))
