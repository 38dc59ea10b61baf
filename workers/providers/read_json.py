"""Parses a provider's reply and checks the type of each field."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from midwatch.schemas.contract import MAX_DEPTH, JsonObject
from midwatch.schemas.failure import FailureKind


class BadReply(Exception):
    """Raised when a reply with status 2xx can't be used. The message says why, without quoting the reply."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class ErrorReply(Exception):
    """Raised when a reply with status 2xx reports an error: a failed response, or a gateway's error object."""

    def __init__(self, body: object) -> None:
        super().__init__("the reply is an error")
        self.body = body


def raise_wrong_type(what: str, expected: str, got: object) -> NoReturn:
    """Refuse a reply because `what` is not `expected`. The message names the type received, never the value.

    Raises:
        BadReply: always.

    """
    kind = "null" if got is None else type(got).__name__
    raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: expected {what} to be {expected}, got {kind}")


def read_object(content: bytes, content_type: str) -> JsonObject:
    """Parse the JSON object in the body of a reply.

    Raises:
        BadReply: the body is no JSON object. If it begins with `{`, it was cut off on the way (`connection`).
            Anything else, such as a proxy's HTML page, is a `provider_error`.

    """
    try:
        value: object = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadReply(FailureKind.PROVIDER_ERROR, "unusable reply: nested too deep to parse") from None
    except ValueError:
        if content.lstrip()[:1] == b"{":
            raise BadReply(FailureKind.CONNECTION, f"the reply was cut off after {len(content)} bytes") from None
        what = f"{content_type or 'no content type'}, {len(content)} bytes"
        raise BadReply(FailureKind.PROVIDER_ERROR, f"expected a JSON object, got something else ({what})") from None
    if not isinstance(value, dict):
        raise_wrong_type("the body", "an object", value)
    # A reply that ends between two tokens may hold half of a surrogate pair, which can't be encoded later.
    return _replace_lone_surrogates(value) if b"\\ud" in content.lower() else value


def as_object(value: object, what: str) -> JsonObject:
    """Return `value`, or raise BadReply if it is no object."""
    if not isinstance(value, dict):
        raise_wrong_type(what, "an object", value)
    return value


def as_list(value: object, what: str) -> list[Any]:
    """Return `value`, or raise BadReply if it is no list."""
    if not isinstance(value, list):
        raise_wrong_type(what, "a list", value)
    return value


def as_text(value: object, what: str) -> str:
    """Return `value`, or raise BadReply if it is no string."""
    if not isinstance(value, str):
        raise_wrong_type(what, "a string", value)
    return value


def as_arguments(value: object, what: str) -> str:
    """Return a tool call's arguments as JSON text. Text is kept unchanged; an object is written as compact JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return json.dumps(check_depth(value, what), ensure_ascii=False, separators=(",", ":"))
    raise_wrong_type(what, "a string or an object", value)


def check_depth(value: JsonObject, what: str) -> JsonObject:
    """Return `value`, or raise BadReply if it nests deeper than a stored value may."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return value
    raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: {what} nests deeper than {MAX_DEPTH} levels")


def _children(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, (dict, list))]


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity: they are not JSON, and no provider accepts them in a request."""
    raise ValueError(name)


def _replace_lone_surrogates(value: Any) -> Any:
    """Replace every lone surrogate by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_replace_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_lone_surrogates(key): _replace_lone_surrogates(item) for key, item in value.items()}
    return value
