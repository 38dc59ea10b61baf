"""Large results: stored compressed, and read page by page with the tool `read_result`.

The body is one zlib stream of the UTF-8 text (level 1: fast, and 16 times smaller on a typical transcript). The stream is
flushed every 65,536 characters, and a trailer lists where these blocks end. So `zlib.decompress(body)` gives the whole text,
and a page needs only its own blocks: 2 ms anywhere in 50 MB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.message import ToolCall, ToolMessage
from midwatch.schemas.tools import ToolSpec

if TYPE_CHECKING:
    from midwatch.orchestration.ports import Store
    from midwatch.orchestration.protocol.claims import Claim
    from midwatch.schemas.model import ModelReply

PAGE_CHARS = 8_000
"""Longest page: about 3,200 tokens of English, within the usual limit of a tool result."""

BLOCK_CHARS = 65_536

RECALL = "recall"
"""Name of the tool that reads archived groups: see `context.recall`."""

READ_RESULT = ToolSpec(
    name="read_result",
    description="Read a part of a long tool result that was shown only in part. The result says its handle.",
    input_schema={
        "type": "object",
        "properties": {
            "handle": {"type": "string", "description": "The handle, as the shortened result says it."},
            "offset": {"type": "integer", "minimum": 0, "description": "First character to read, from 0."},
            "length": {"type": "integer", "minimum": 1, "maximum": PAGE_CHARS, "description": "Characters to read."},
        },
        "required": ["handle", "offset"],
        "additionalProperties": False,
    },
)
"""Offered to the model once a result in its session was shortened."""

_VALIDATOR = JSONSchemaValidator(READ_RESULT.input_schema)

_TRAILER = struct.Struct(">QI4s")
_MAGIC = b"mwp1"


def pack(text: str) -> bytes:
    """Compress a text for storage."""
    squeeze = zlib.compressobj(1)
    body = bytearray()
    ends: list[int] = []
    for start in range(0, len(text), BLOCK_CHARS):
        body += squeeze.compress(text[start : start + BLOCK_CHARS].encode(errors="replace"))
        body += squeeze.flush(zlib.Z_FULL_FLUSH)
        ends.append(len(body))
    body += squeeze.flush()
    body += struct.pack(f">{len(ends)}Q", *ends) + _TRAILER.pack(len(text), len(ends), _MAGIC)
    return bytes(body)


def read_page(body: bytes, offset: int, length: int) -> str:
    """Read `length` characters from `offset` on, at most a page. A last line says how much remains."""
    length = max(1, min(length, PAGE_CHARS))
    total, text = _read(body, max(0, offset), length)
    if not text:
        return f"[nothing at {offset}: the result has {total} characters]"
    end = max(0, offset) + len(text)
    rest = f"{total - end} remain: go on with offset={end}" if end < total else "this is the end"
    return f"{text}\n[characters {max(0, offset)} to {end} of {total}; {rest}]"


def _read(body: bytes, offset: int, length: int) -> tuple[int, str]:
    trailer = body[-_TRAILER.size :]
    if (
        len(trailer) < _TRAILER.size or _TRAILER.unpack(trailer)[2] != _MAGIC
    ):  # an artifact of a tool, in another format
        text = _inflate(body)
        return len(text), text[offset : offset + length]
    total, count, _ = _TRAILER.unpack(trailer)
    ends = struct.unpack(f">{count}Q", body[-_TRAILER.size - 8 * count : -_TRAILER.size])
    first = offset // BLOCK_CHARS
    text = "".join(_blocks(body, ends, first, (offset + length - 1) // BLOCK_CHARS))
    start = offset - first * BLOCK_CHARS
    return total, text[start : start + length]


def _blocks(body: bytes, ends: tuple[int, ...], first: int, last: int) -> Iterator[str]:
    for number in range(first, min(last + 1, len(ends))):
        start = ends[number - 1] if number else 2  # after the two header bytes of the stream
        yield zlib.decompressobj(wbits=-15).decompress(body[start : ends[number]]).decode()


def _inflate(body: bytes) -> str:
    try:
        return zlib.decompressobj().decompress(body, 64 * 1024 * 1024).decode(errors="replace")
    except zlib.error:
        return body.decode(errors="replace")


def answer_read_result(store: Store, claim: Claim, reply: ModelReply, call: ToolCall) -> ToolMessage:
    """Answer one call of `read_result` from the session's stored results."""
    ordinal = next(place for place, one in enumerate(reply.tool_calls) if one is call)
    content, is_error = "", True
    try:
        arguments = parse_arguments(call.raw_arguments, has_required=True)
        problems = _VALIDATOR.problems(arguments)
    except InvalidArguments as error:
        content = str(error)
    else:
        if problems:
            content = explain(problems, READ_RESULT.input_schema)
        elif (body := store.get_result(claim.ref.session_id, arguments["handle"])) is None:
            content = (
                "There is no result of that handle, or it is no longer kept: the oldest are deleted when there are too many. "
                "Call the tool again that returned it."
            )
        else:
            content, is_error = (
                read_page(body, int(arguments["offset"]), int(arguments.get("length", PAGE_CHARS))),
                False,
            )
    return ToolMessage(
        group=claim.group, ordinal=ordinal, call_id=call.id, tool=call.name, content=content, is_error=is_error
    )
