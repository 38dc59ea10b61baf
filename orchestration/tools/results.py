"""What a tool returned, as text for the model: rendered, bounded, the whole of it kept by reference."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import PurePath
from typing import NoReturn

from pydantic_core import to_jsonable_python

from midwatch.orchestration.errors import ToolFailed
from midwatch.orchestration.tools.result_pages import PAGE_CHARS, READ_RESULT, pack
from midwatch.schemas.failure import Failure, FailureKind

MAX_RESULT_CHARS = 64 * 1024 * 1024
"""Text beyond it is not even rendered: a worker must survive a tool that returns its whole database."""

BYTES_PER_TOKEN = 2.5
"""Conservative on purpose: for JSON and logs, characters/4 counts half of what recent tokenizers do (measured)."""

SMALL_NODES = 20_000
"""Values up to here are encoded in one go (by C); larger ones piece by piece, so that the ceiling can stop them."""

PIECES = 10_000
"""Pieces joined at a time: ten million small strings are ten times as large as their text."""

SLICE_CHARS = 1_000_000

HEAD_SHARE = 0.7
"""Of a cut result, the part taken from its beginning. The end often says how it went, so it stays too."""


@dataclass(frozen=True)
class BoundResult:
    """A result as the model sees it. `body` is the whole, compressed (see `pages.pack`), when `content` is not."""

    content: str
    handle_needed: bool = False
    body: bytes | None = None


def render(value: object) -> str:
    """Text as it is; bytes as UTF-8; anything else as compact JSON, or, when that can't be, as a bounded `repr`.

    Raises:
        ToolFailed: format_error, for NaN and Infinity (which JSON can't say) and for endless nesting.
        Exception: whatever the value's own code raises on being read.

    """
    if isinstance(value, str):
        return _whole(_cut(value, f"{len(value)} characters"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        body = memoryview(value).cast("B")
        return _cut(str(body[: MAX_RESULT_CHARS + 1], "utf-8", "replace"), f"{len(body)} bytes")
    try:
        return _whole(_encode(value))
    except TypeError:  # keys that JSON has no names for
        return _described(value)
    except ValueError as error:
        if "Circular" in str(error):
            return _described(value)
        _unsayable(f"can't be written as JSON: {error}"[:300] + "; NaN and Infinity: return None or a string instead")
    except RecursionError:
        _unsayable("is nested too deep for JSON; return something flatter")


def bound(text: str, max_result_tokens: int, handle: str) -> BoundResult:
    """The text, or its head and tail around a line that says how to read the rest.

    Args:
        text: As `render` made it.
        max_result_tokens: Ceiling, at 2.5 bytes a token. The line in between comes on top (under 400 bytes).
        handle: The name under which the caller will keep `body`, if there is one.

    """
    text = _whole(text)
    limit_bytes = int(max_result_tokens * BYTES_PER_TOKEN)
    if len(text) <= limit_bytes and (4 * len(text) <= limit_bytes or len(text.encode()) <= limit_bytes):
        return BoundResult(text)
    head_bytes = int(limit_bytes * HEAD_SHARE)
    tail_bytes = limit_bytes - head_bytes
    head = text[:head_bytes].encode()[:head_bytes].decode(errors="ignore")
    tail = text[-tail_bytes:].encode()[-tail_bytes:].decode(errors="ignore")
    left_out = len(text) - len(head) - len(tail)
    note = (
        f"\n[{left_out} of {len(text)} characters are left out here. The whole result is kept: read on with "
        f'{READ_RESULT.name}(handle="{handle}", offset={len(head)}, length={PAGE_CHARS})]\n'
    )
    return BoundResult(head + note + tail, handle_needed=True, body=pack(text))


def tokens(text: str) -> int:
    """What the text may cost, at most."""
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)


def new_handle(job_id: str, step: str) -> str:
    """The handle of a step's result: short enough for a model to copy, the same for every try at the step."""
    return "res-" + sha256(f"{job_id}/{step}".encode()).hexdigest()[:12]


def _encode(value: object) -> str:
    if _is_small(value):
        return _ENCODER.encode(value)
    parts: list[str] = []
    pieces: list[str] = []
    size = 0
    for piece in _ENCODER.iterencode(value):  # in Python, piece by piece
        pieces.append(piece)
        size += len(piece)
        if size > MAX_RESULT_CHARS:
            pieces[-1] = piece[: len(piece) - (size - MAX_RESULT_CHARS)]
            pieces.append(_cut_note("more"))
            break
        if len(pieces) >= PIECES:
            parts.append("".join(pieces))
            pieces.clear()
    return "".join([*parts, *pieces])


def _is_small(value: object) -> bool:
    """True when the value has few parts, long texts counted by their length."""
    todo, seen = [value], 0
    while todo and seen <= SMALL_NODES:
        one = todo.pop()
        seen += 1
        if isinstance(one, str):
            seen += len(one) // 100
        elif isinstance(one, Mapping):
            seen += len(one)
            todo.extend(islice(one.values(), SMALL_NODES))
        elif isinstance(one, (list, tuple)):
            todo.extend(islice(one, SMALL_NODES))
            seen += max(0, len(one) - SMALL_NODES)
    return seen <= SMALL_NODES


def _plain(value: object) -> object:
    """One level of something that is no JSON value: models and dataclasses by field, dates and the like as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Iterator):  # may have no end, and can be read but once
        return _described(value)
    return to_jsonable_python(value, fallback=_described, inf_nan_mode="constants")


def _described(value: object) -> str:
    try:
        shown = repr(value)
    except Exception as error:
        shown = f"its repr raises {type(error).__name__}"
    return f"[not JSON: a {type(value).__name__}: {shown[:2000]}{'…' if len(shown) > 2000 else ''}]"


_ENCODER = json.JSONEncoder(default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, came: str) -> str:
    return text if len(text) <= MAX_RESULT_CHARS else text[:MAX_RESULT_CHARS] + _cut_note(came)


def _cut_note(came: str) -> str:
    return f"\n[cut: the tool returned {came}; only the first {MAX_RESULT_CHARS} characters are kept]"


def _whole(text: str) -> str:
    """Half a surrogate pair is no character, and would break whatever encodes it later: it is escaped."""
    if text.isascii():
        return text
    slices = range(0, len(text), SLICE_CHARS)  # looked at by slices: the whole, encoded, may be four times as large
    try:
        for start in slices:
            text[start : start + SLICE_CHARS].encode()
    except UnicodeEncodeError:
        escaped = (text[start : start + SLICE_CHARS].encode(errors="backslashreplace").decode() for start in slices)
        return "".join(escaped)
    return text


def _unsayable(why: str) -> NoReturn:
    raise ToolFailed(Failure(kind=FailureKind.FORMAT_ERROR, detail=f"the tool's result {why}"))
