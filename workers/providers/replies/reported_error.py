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

SIGNS = (
    "msg", "message", "detail", "errors", "error_msg", "error_message", "error_code", "errorCode", "errorMessage", "__type",
    "fault", "Error", "status_code", "statusCode", "code", "response",
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
        _raise_event_stream(decode(content, content_type))
        raise NoApiReply(content) from None
    if isinstance(value, list) and value and isinstance(value[0], dict) and (found := find_error(value[0])) is not None:
        raise ErrorReply(found)
    if not isinstance(value, dict):
        raise_wrong_type("the body", "an object", value)
    if (found := find_error(value)) is not None:
        raise ErrorReply(found)
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
        return {"error": {"code": status.lower(), "message": f"the response has status {status} and no reason"}}
    if any(reply.get(name) for name in ANSWERS):
        return None
    is_status = isinstance(status, int) and status >= 400
    if is_status or reply.get("success") is False or any(_is_sign(reply.get(name)) for name in SIGNS):
        return reply
    return _find_nested(reply, _DEEPEST)


def _find_in_answer(reply: JsonObject) -> Any | None:
    """Find an error that a server puts where the answer belongs: in the first choice, or as one of the items."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for holder in (first, first.get("message") if isinstance(first, Mapping) else None):
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
        if isinstance(inner, Mapping) and _is_error(inner.get("error")):
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


def _raise_event_stream(text: str) -> None:
    """Raise the error in an event stream that came instead of a JSON object, or that the stream can't be used.

    Raises:
        ErrorReply: one of its events is an error.
        BadReply: it has an answer, which the same request would only cost again.

    """
    lines = text.splitlines()[:_MOST_EVENTS]
    if not any(line.startswith(("data:", "event:")) for line in lines):
        return
    has_answer = False
    for line in lines:
        event = read_object(line.removeprefix("data:").encode("utf-8", "replace")) if line.startswith("data:") else None
        if event is None:
            continue
        if (found := find_error(event)) is not None and not _is_progress(event):
            raise ErrorReply(found)
        has_answer = has_answer or bool(event)
    kind = FailureKind.FORMAT_ERROR if has_answer else FailureKind.PROVIDER_ERROR
    raise BadReply(kind, "unusable reply: expected a JSON object, got an event stream, although none was asked for")


def _is_progress(event: JsonObject) -> bool:
    """Is it an event of an answer that is going well? Those of the Responses and Messages formats have a `response`."""
    kind = event.get("type")
    return isinstance(kind, str) and kind != "error" and not kind.endswith(("failed", "incomplete", ".error"))
