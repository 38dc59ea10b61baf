"""What every shape inherits: frozen, versioned, ids that are safe as Redis keys, limits at every ingress."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

WIRE_VERSION = 1
"""The version of every envelope and stored record. Fields may be added within a version: readers ignore and keep them.
A larger version means that this release would misread the record, so it refuses it."""

Version = Annotated[int, Field(ge=1, le=WIRE_VERSION)]
"""The version field `v` of an envelope or record."""

MAX_INPUT_BYTES = 1_000_000
"""Largest job input. A longer document belongs in a tool's downstream, not in a prompt."""

MAX_ENVELOPE_BYTES = 8_500_000
"""Largest Celery message that is looked at. Messages carry ids; only `midwatch.start` carries an input, and the largest input
may grow eightfold on its way (every byte escaped as `\\u0000`, then base64)."""

MAX_DEPTH = 64
"""Deepest nesting accepted anywhere. At 990 levels one argument kills Celery worker after worker (RecursionError while
pickling, measured); real tool arguments stay under 12."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
"""An id that came from a user: it becomes part of a Redis key, so braces, slashes, spaces and control characters stay out."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
"""A name of an agent or a tool: the subset that every provider accepts for functions."""

JsonObject = dict[str, Any]
"""A decoded JSON object whose shape somebody else's schema decides."""


class Contract(BaseModel):
    """Base of policies and of shapes within a process. Unknown fields are errors: a typo must not pass as a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Record(Contract):
    """Base of stored shapes. A field that a newer release added is ignored, and is kept when the record is written back."""

    model_config = ConfigDict(extra="allow")


class Envelope(Contract):
    """Base of messages. A field that a newer release added is ignored."""

    model_config = ConfigDict(extra="ignore")


class TooDeep(ValueError):
    """Raised when nesting exceeds the limit; said without recursion, so it can't overflow itself."""


def check_depth(text: str | bytes, limit: int = MAX_DEPTH) -> None:
    """Refuse JSON text nested deeper than `limit`, before any parser recurses into it.

    Counts brackets outside strings in one pass: no recursion, no allocation that grows with depth.

    Raises:
        TooDeep: the text nests deeper than `limit`.

    """
    raw = text.encode() if isinstance(text, str) else text
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return
    depth = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            if depth > limit:
                raise TooDeep(f"nested deeper than {limit} levels; flatten it, or pass a reference")
        elif byte in (0x5D, 0x7D):
            depth -= 1


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: the same value gives the same text, so it can be digested and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
