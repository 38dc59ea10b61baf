"""Tool results as text for the model: render the value, limit its length, keep the whole under a handle."""

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
"""Longer text is not even rendered: a worker must survive a tool that returns its whole database."""

BYTES_PER_TOKEN = 2.5
"""Deliberately low: for JSON and logs, four characters a token gives half of what recent tokenizers count (measured)."""

SMALL_NODES = 20_000
"""Most parts of a value that is encoded at once (in C). A larger one is encoded in pieces, so that it can be stopped."""

PIECES = 10_000
"""Pieces that are collected before they are joined. Ten million small strings take ten times the memory of their text."""

SLICE_CHARS = 1_000_000

HEAD_SHARE = 0.7
"""Share of a cut result that is taken from its beginning. The rest is its end, which often shows the outcome."""


@dataclass(frozen=True)
class BoundResult:
    """A result as the model gets it. If `content` was shortened, `body` is the whole, compressed (see `result_pages.pack`)."""

    content: str
    handle_needed: bool = False
    body: bytes | None = None


def render(value: object) -> str:
    """Render a value: text unchanged, bytes as UTF-8, anything else as compact JSON, or else as a limited `repr`.

    Raises:
        ToolFailed: format_error, for NaN and Infinity (which JSON does not have) and for endless nesting.
        Exception: anything that the value's own code raises when it is read.

    """
    if isinstance(value, str):
        return _escape_surrogates(_cut(value, f"{len(value)} characters"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        body = memoryview(value).cast("B")
        return _cut(str(body[: MAX_RESULT_CHARS + 1], "utf-8", "replace"), f"{len(body)} bytes")
    try:
        return _escape_surrogates(_encode(value))
    except TypeError:  # keys that JSON can't have
        return _describe(value)
    except ValueError as error:
        if "Circular" in str(error):
            return _describe(value)
        _fail_format(f"can't be written as JSON: {error}"[:300] + "; NaN and Infinity: return None or a string instead")
    except RecursionError:
        _fail_format("is nested too deep for JSON; return something flatter")


def bound(text: str, max_result_tokens: int, handle: str) -> BoundResult:
    """Limit a text. A long one is cut to its head and tail, around a line that says how to read the rest.

    Args:
        text: A rendered result, from `render`.
        max_result_tokens: The limit, at 2.5 bytes a token. The added line is not counted (under 400 bytes).
        handle: The name under which the caller will store `body`, if there is one.

    """
    text = _escape_surrogates(text)
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


def count_tokens_at_most(text: str) -> int:
    """The most tokens that the text may have."""
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)


def new_handle(job_id: str, step: str) -> str:
    """The handle of a step's result: short enough for a model to copy, and the same for every attempt at the step."""
    return "res-" + sha256(f"{job_id}/{step}".encode()).hexdigest()[:12]


def _encode(value: object) -> str:
    if _is_small(value):
        return _ENCODER.encode(value)
    parts: list[str] = []
    pieces: list[str] = []
    size = 0
    for piece in _ENCODER.iterencode(value):  # in Python, one piece at a time
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
    """Has the value few parts? A long text counts as several, by its length."""
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


def _to_jsonable(value: object) -> object:
    """Convert one level of a value that is not JSON: models and dataclasses to their fields, dates and similar to text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Iterator):  # an iterator may have no end, and can be read only once
        return _describe(value)
    return to_jsonable_python(value, fallback=_describe, inf_nan_mode="constants")


def _describe(value: object) -> str:
    try:
        shown = repr(value)
    except Exception as error:
        shown = f"its repr raises {type(error).__name__}"
    return f"[not JSON: a {type(value).__name__}: {shown[:2000]}{'…' if len(shown) > 2000 else ''}]"


_ENCODER = json.JSONEncoder(default=_to_jsonable, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, came: str) -> str:
    return text if len(text) <= MAX_RESULT_CHARS else text[:MAX_RESULT_CHARS] + _cut_note(came)


def _cut_note(came: str) -> str:
    return f"\n[cut: the tool returned {came}; only the first {MAX_RESULT_CHARS} characters are kept]"


def _escape_surrogates(text: str) -> str:
    """Escape lone surrogates, since they can't be encoded later."""
    if text.isascii():
        return text
    slices = range(0, len(text), SLICE_CHARS)  # in slices, since the encoded text may be four times as large
    try:
        for start in slices:
            text[start : start + SLICE_CHARS].encode()
    except UnicodeEncodeError:
        escaped = (text[start : start + SLICE_CHARS].encode(errors="backslashreplace").decode() for start in slices)
        return "".join(escaped)
    return text


def _fail_format(why: str) -> NoReturn:
    raise ToolFailed(Failure(kind=FailureKind.FORMAT_ERROR, detail=f"the tool's result {why}"))
