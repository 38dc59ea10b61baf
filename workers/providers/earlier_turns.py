"""Writes parts of earlier turns so that any vendor accepts them, even if another vendor's model produced them."""

from __future__ import annotations

import functools
import json
import math
import re
from typing import Any, NoReturn

from midwatch.schemas.contract import MAX_DEPTH, JsonObject
from midwatch.schemas.message import NoteMessage, ToolMessage, UserMessage
from midwatch.workers.providers.read_json import is_too_deep

EARLIER_TURNS = "<reminder>Earlier turns are not shown.</reminder>"
"""Put in front of a window that starts with a model turn, because some vendors want a user message first."""

BLANK = "(blank)"
"""Sent instead of a blank text. Anthropic and some servers of the Chat Completions format refuse one."""

REPLACED = "\N{REPLACEMENT CHARACTER}"
"""Sent instead of a lone surrogate, which has no UTF-8 form, and of NUL, which several servers refuse."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_UNSENDABLE = re.compile("[\\x00\\ud800-\\udfff]")
_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


@functools.lru_cache(maxsize=1_024)
def make_portable_name(name: str) -> str:
    """Make a tool name that every vendor accepts. Models also invent names (`functions.search`, or an empty one)."""
    portable = _NOT_IN_NAMES.sub("_", name)[:64] or "unnamed"
    # Gemini wants a letter or an underscore first.
    return portable if portable[0].isalpha() or portable[0] == "_" else f"_{portable}"[:64]


def parse_arguments(raw_arguments: str) -> JsonObject | None:
    """Parse the arguments of an earlier call. None if they are no JSON object; the call's result is then an error."""
    try:
        value = json.loads(raw_arguments, parse_constant=_refuse, parse_float=_read_float)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or (_count_brackets(raw_arguments) > MAX_DEPTH and is_too_deep(value)):
        return None
    return value


def render_arguments(raw_arguments: str) -> str:
    """Return the arguments of an earlier call unchanged, or `{}` if they are no JSON object.

    Most servers parse the arguments in the history. Text that is no JSON object would fail every later call.
    """
    value = parse_arguments(raw_arguments)
    if value is None:
        return "{}"
    if _UNSENDABLE.search(raw_arguments) or _ESCAPED.search(raw_arguments):
        return json.dumps(replace_unsendable(value), ensure_ascii=False, separators=(",", ":"))
    return raw_arguments


def replace_unsendable(value: Any) -> Any:
    """Return a JSON value in whose texts each lone surrogate and each NUL is replaced."""
    if isinstance(value, str):
        return _UNSENDABLE.sub(REPLACED, value)
    if isinstance(value, (list, tuple)):
        return [replace_unsendable(item) for item in value]
    if isinstance(value, dict):
        return {replace_unsendable(key): replace_unsendable(item) for key, item in value.items()}
    return value


def render_result(result: ToolMessage) -> str:
    """Return the text of a result. An error is marked in the text, for vendors that have no field for it."""
    return f"ERROR: {result.content}" if result.is_error else result.content


def render_input(message: UserMessage | NoteMessage) -> str:
    """Return the text of a message, for vendors without notes: a note is marked, so it does not look like the user's."""
    if isinstance(message, NoteMessage):
        return f"<reminder>{message.text}</reminder>"
    return message.text if message.text.strip() else BLANK


def _count_brackets(text: str) -> int:
    return text.count("{") + text.count("[")


def _refuse(name: str) -> NoReturn:
    """Refuse NaN and Infinity, because no vendor accepts them."""
    raise ValueError(name)


def _read_float(text: str) -> float:
    """Read a number. `1e999` becomes infinite in Python, and could not be written again."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value
