"""Reading a provider's reply with suspicion: bytes to JSON, and each field with the type it must have."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from midwatch.schemas.contract import MAX_DEPTH, JsonObject
from midwatch.schemas.failure import FailureKind


class BadReply(Exception):
    """Raised when a reply with a good status can't be used; says why, without quoting it."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class ErrorReply(Exception):
    """Raised when a reply with a good status is an error in itself: a failed response, a gateway's error object."""

    def __init__(self, body: object) -> None:
        super().__init__("the reply is an error")
        self.body = body


def misshapen(what: str, expected: str, got: object) -> NoReturn:
    """Refuse a reply: `what` should have been `expected`. Names the type that came, never the value.

    Raises:
        BadReply: always.

    """
    kind = "null" if got is None else type(got).__name__
    raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: expected {what} to be {expected}, got {kind}")


def read_object(content: bytes, content_type: str) -> JsonObject:
    """The JSON object that a reply consists of.

    Raises:
        BadReply: it is none. Text that begins like one was cut off on the way (`connection`); anything else, such as
            a proxy's HTML page, is the provider's error.

    """
    try:
        value: object = json.loads(content, parse_constant=_no_constant)
    except RecursionError:
        raise BadReply(FailureKind.PROVIDER_ERROR, "unusable reply: nested too deep to read") from None
    except ValueError:
        if content.lstrip()[:1] == b"{":
            raise BadReply(FailureKind.CONNECTION, f"the reply was cut off after {len(content)} bytes") from None
        what = f"{content_type or 'no content type'}, {len(content)} bytes"
        raise BadReply(FailureKind.PROVIDER_ERROR, f"expected a JSON object, got something else ({what})") from None
    if not isinstance(value, dict):
        misshapen("the body", "an object", value)
    # A reply that is cut at a token may end in half a character; nothing downstream could encode it.
    return _mended(value) if b"\\ud" in content.lower() else value


def as_object(value: object, what: str) -> JsonObject:
    """`value`, which must be an object."""
    if not isinstance(value, dict):
        misshapen(what, "an object", value)
    return value


def as_list(value: object, what: str) -> list[Any]:
    """`value`, which must be a list."""
    if not isinstance(value, list):
        misshapen(what, "a list", value)
    return value


def as_text(value: object, what: str) -> str:
    """`value`, which must be a string."""
    if not isinstance(value, str):
        misshapen(what, "a string", value)
    return value


def as_arguments(value: object, what: str) -> str:
    """A tool call's arguments as JSON text: as they came, or written compactly when the vendor parsed them already."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return json.dumps(not_too_deep(value, what), ensure_ascii=False, separators=(",", ":"))
    misshapen(what, "a string or an object", value)


def not_too_deep(value: JsonObject, what: str) -> JsonObject:
    """`value`, which is stored as it is and must not nest beyond what every later reader accepts."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return value
    raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: {what} nests deeper than {MAX_DEPTH} levels")


def _children(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, (dict, list))]


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are not JSON, and no provider takes them back."""
    raise ValueError(name)


def _mended(value: Any) -> Any:
    """The value with every lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value
