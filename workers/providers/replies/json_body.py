"""Reads the JSON in the body of a reply, also if the server wrote it carelessly.

Python's own parser is used. It reads a byte order mark, UTF-16, half a surrogate pair and a line break inside a string,
and its hooks read a number of 5,000 digits. jiter and pydantic_core refuse all of these (decision record 25).
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.read_json import BadReply
from midwatch.workers.providers.replies.exact_json import (
    OddNumber,
    RepeatedNames,
    read_float,
    read_integer,
    read_pairs,
)

_DECODER = json.JSONDecoder(
    parse_int=read_integer,
    parse_float=read_float,
    parse_constant=OddNumber,
    object_pairs_hook=read_pairs,
    strict=False,
)

_JSON_START = re.compile(r'\{\s*(?:["}]|$)|\[\s*(?:[\[{"\]]|$)')
"""How a JSON object begins, or a list of something. `[ERROR] no route` and `{'a': 1}` are text."""

_CUT_END = re.compile(
    r'"(?:[^"\\]|\\.)*+\\?'  # a string without its end
    r"|\\?u?[0-9a-fA-F]{0,4}"  # half an escape
    r"|-|\.|[eE][+-]?|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|Na?|I[a-z]{0,6}",  # half a number or a word
    re.DOTALL,
)
"""What is left of JSON text, from the place where the parser stopped, if the text ends too early."""

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A character of several bytes in UTF-8."""

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class NotJson(Exception):
    """Raised when a body does not begin with a JSON object or list: a web page, plain text, or nothing."""


def read_value(content: bytes, content_type: str = "") -> Any:
    """Read the first JSON object or list in the body. What follows it is ignored.

    Raises:
        NotJson: the body is something else.
        BadReply: it is cut off (`connection`), or it is complete but not JSON (`format_error`, because the same
            request would cost the same again).

    """
    text = decode(content, content_type).lstrip("\ufeff \t\r\n")
    if not _JSON_START.match(text):
        raise NotJson
    try:
        value, _ = _DECODER.raw_decode(text)
    except RecursionError:
        raise BadReply(FailureKind.FORMAT_ERROR, "unusable reply: nested too deep to parse") from None
    except json.JSONDecodeError as error:
        if _CUT_END.fullmatch(text[error.pos :].rstrip()):
            raise BadReply(FailureKind.CONNECTION, f"the reply was cut off after {len(content):,} bytes") from None
        place = f"at character {error.pos:,} of {len(text):,}"
        detail = f"unusable reply: expected JSON, got a mistake {place}. The same request is not sent again"
        raise BadReply(FailureKind.FORMAT_ERROR, detail) from None
    # A text that was cut between two tokens may end with half of a surrogate pair, which can't be encoded later.
    return _replace_lone_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def read_object(content: bytes, content_type: str = "") -> JsonObject | None:
    """Read a JSON object, or the first object of a list. None if the body has none."""
    try:
        value = read_value(content, content_type)
    except (NotJson, BadReply):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else None


def decode(content: bytes, content_type: str = "") -> str:
    """Decode a body: UTF-8, else the charset that the server names, else Windows-1252. It never fails.

    A body that is UTF-8 apart from single wrong bytes gets U+FFFD for those.
    """
    for mark, charset in _MARKS:
        if content.startswith(mark):
            return content.decode(charset, "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    named = _CHARSET.search(content_type)
    if named and (text := _decode_as(content, named[1])) is not None:
        return text
    return content.decode("utf-8" if _MULTIBYTE.search(content) else "cp1252", "replace")


def _decode_as(content: bytes, charset: str) -> str | None:
    try:
        return content.decode(charset)
    except (LookupError, UnicodeError):
        return None


def _replace_lone_surrogates(value: Any) -> Any:
    """Replace every lone surrogate by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_replace_lone_surrogates(item) for item in value]
    if isinstance(value, RepeatedNames):
        return RepeatedNames(
            [(_replace_lone_surrogates(key), _replace_lone_surrogates(item)) for key, item in value.pairs]
        )
    if isinstance(value, dict):
        return {_replace_lone_surrogates(key): _replace_lone_surrogates(item) for key, item in value.items()}
    return value
