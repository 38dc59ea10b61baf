"""The base classes of all data types, ids that are safe in Redis keys, and the limits on data from outside."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

WIRE_VERSION = 1
"""The version of every envelope and stored record. Fields may be added within a version: readers ignore and keep them.
This release refuses a larger version, because it would misread the record."""

Version = Annotated[int, Field(ge=1, le=WIRE_VERSION)]
"""The version field `v` of an envelope or record."""

MAX_INPUT_BYTES = 1_000_000
"""Largest job input. A longer document belongs behind a tool, not in a prompt."""

MAX_ENVELOPE_BYTES = 8_500_000
"""Largest Celery message that is read. Messages carry ids; only `midwatch.start` carries an input, and encoding can make the
largest input eight times as long (every byte escaped as `\\u0000`, then base64)."""

MAX_DEPTH = 64
"""Deepest nesting of JSON that is accepted. At 990 levels, one argument kills every Celery worker that gets it (RecursionError
while pickling, measured). Real tool arguments have fewer than 12 levels."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
"""An id from a user. It becomes part of a Redis key, so braces, slashes, spaces and control characters are not allowed."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
"""A name of an agent or a tool, in characters that every provider accepts in names of functions."""

JsonObject = dict[str, Any]
"""A decoded JSON object. Something else defines its fields, for example the schema of a tool."""


class Contract(BaseModel):
    """Base of policies and of values inside a process. An unknown field is an error: a typo must not select the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Policy(Contract):
    """Base of the policies that users write. Fields may be passed by position. An error suggests the name for a misspelt one.

    A value that would have no effect is refused. So is a field that is planned but not built yet (`NOT_BUILT`), unless it has
    its default.
    """

    NOT_BUILT: ClassVar[dict[str, str]] = {}
    """Fields without an effect so far, and what to do instead."""

    if not TYPE_CHECKING:  # type checkers see the fields as keywords

        def __init__(self, *values: object, **fields: object) -> None:
            known = list(type(self).model_fields)
            if len(values) > len(known):
                raise ValueError(f"{type(self).__name__} takes at most {len(known)} values, got {len(values)}")
            for name, value in zip(known, values, strict=False):
                if name in fields:
                    raise ValueError(f"{type(self).__name__} got {name} twice: by place and by name")
                fields[name] = value
            for name in fields:
                if name not in known:
                    close = get_close_matches(name, known, 1)
                    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                    raise ValueError(f"{type(self).__name__} got an unknown keyword {name!r}; {hint}")
            super().__init__(**fields)

    @model_validator(mode="after")
    def _built(self) -> Self:
        for name, instead in self.NOT_BUILT.items():
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value!r}: not built yet, so it would have no effect; {instead}")
        return self

    def _set(self, *names: str) -> list[str]:
        """Return those of the fields that were set by hand."""
        return [name for name in names if name in self.model_fields_set]


class Record(Contract):
    """Base of stored records. A field that a newer release added is ignored, and is kept when the record is written back."""

    model_config = ConfigDict(extra="allow")


class Envelope(Contract):
    """Base of messages. A field that a newer release added is ignored."""

    model_config = ConfigDict(extra="ignore")


class TooDeep(ValueError):
    """Raised when JSON is nested more deeply than the limit."""


def check_depth(text: str | bytes, limit: int = MAX_DEPTH) -> None:
    """Refuse JSON text nested deeper than `limit`. Call it before a recursive parser reads the text.

    It counts brackets outside strings in one pass, without recursion, so deep nesting can't make it fail.

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
