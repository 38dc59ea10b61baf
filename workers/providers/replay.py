"""How pieces of earlier turns are written so that a vendor takes them back, whoever wrote them first."""

from __future__ import annotations

import functools
import json
import re
from typing import NoReturn

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import NoteMessage, ToolMessage, UserMessage

EARLIER_TURNS = "<reminder>Earlier turns are not shown.</reminder>"
"""What a window begins with that was trimmed to a model turn: some vendors want the user to begin."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


@functools.lru_cache(maxsize=1_024)
def wire_name(name: str) -> str:
    """A tool name that every vendor takes back, also when the model made it up (`functions.search`, or nothing)."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "unnamed"


def parsed_arguments(raw_arguments: str) -> JsonObject | None:
    """The arguments of an earlier call as an object; None when they are none. Its result has told the model so."""
    try:
        value = json.loads(raw_arguments, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def error_marked(result: ToolMessage) -> str:
    """A result's text, for a vendor that has no field for 'this is an error'."""
    return f"ERROR: {result.content}" if result.is_error else result.content


def told(message: UserMessage | NoteMessage) -> str:
    """Text for a vendor that knows only the user: what the runtime says is marked, not to be taken for theirs."""
    return f"<reminder>{message.text}</reminder>" if isinstance(message, NoteMessage) else message.text


def _refuse(name: str) -> NoReturn:
    """NaN and Infinity: no vendor takes them."""
    raise ValueError(name)
