"""Checks the type of each field of a provider's reply."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from midwatch.schemas.contract import MAX_DEPTH, JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.replies.exact_json import to_plain_json, write_exactly


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


class NoApiReply(Exception):
    """Raised when the body of a reply with status 2xx is no JSON: a login page, a proxy's page, plain text."""

    def __init__(self, content: bytes) -> None:
        super().__init__("the reply is no JSON")
        self.content = content


def raise_wrong_type(what: str, expected: str, got: object) -> NoReturn:
    """Refuse a reply because `what` is not `expected`. The message names the type received, never the value.

    Raises:
        BadReply: always.

    """
    kind = "null" if got is None else type(got).__name__
    raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: expected {what} to be {expected}, got {kind}")


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


def as_any_text(value: object) -> str:
    """Return a string unchanged, and any other value as JSON text. Null is empty."""
    if isinstance(value, str):
        return value
    return "" if value is None else _write(value)


def as_arguments(value: object) -> str:
    """Return a tool call's arguments as JSON text. The toolbox refuses what is no object, and tells the model why."""
    return as_any_text(value)


def check_depth(value: JsonObject, what: str) -> JsonObject:
    """Return `value` in a form that can be stored. Raise BadReply if it nests deeper than a stored value may."""
    if is_too_deep(value):
        raise BadReply(FailureKind.FORMAT_ERROR, f"unusable reply: {what} nests deeper than {MAX_DEPTH} levels")
    return cast("JsonObject", to_plain_json(value))


def is_too_deep(value: JsonObject) -> bool:
    """Does a decoded value nest deeper than a stored value may?"""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return False
    return True


def _write(value: object) -> str:
    try:
        return write_exactly(value)
    except RecursionError:
        raise BadReply(FailureKind.FORMAT_ERROR, "unusable reply: nested too deep to write") from None


def _children(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, (dict, list))]
