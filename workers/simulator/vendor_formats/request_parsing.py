"""Parses what all formats have in common. Anything invalid is a BadRequest that names the place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.brains.brain import ConversationTurn
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Prompt, SimulatedFormat

REMINDER = re.compile(r"(?:\A|\n\n)(<reminder>.*?</reminder>)(?=\n\n|\Z)", re.DOTALL)


def parse_request(vendor_format: SimulatedFormat, body: bytes) -> Prompt:
    """Parse the body of a request. Raises BadRequest if it is not JSON or has the wrong shape for the format."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request ({type(error).__name__}).") from None
    if not isinstance(value, dict):
        raise BadRequest(f"expected a JSON object, got {type(value).__name__}")
    try:
        return vendor_format.parse_request(value)
    except (TypeError, AttributeError, KeyError) as error:
        raise BadRequest(
            f"the request does not have the shape of {vendor_format.name} ({type(error).__name__}: {error})"
        ) from error


def require_objects(value: object, where: str) -> Iterator[JsonObject]:
    """Yield the entries of a list of objects. Raises BadRequest for anything else."""
    if not isinstance(value, list):
        raise BadRequest(f"{where}: expected a list, got {type(value).__name__}")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadRequest(f"{where}.{number}: expected an object, got {type(entry).__name__}")
        yield entry


def extract_text(content: object, where: str) -> str:
    """Join the text of a content field: a string, null, or a list of parts. A part without text becomes `[type]`."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = require_objects(content, where)
    return "".join(part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type')}]" for part in parts)


def split_reminders(text: str) -> list[ConversationTurn]:
    """Split a user text into what the user wrote and the `<reminder>` paragraphs, which are notes.

    Clients mark the runtime's notes in this way for servers that accept no system message inside a conversation.
    """
    if "<reminder>" not in text:  # the usual case; the pattern needs 2 ms for 100 KB
        return [ConversationTurn("user", text)]
    turns = []
    for number, piece in enumerate(REMINDER.split(text)):
        if number % 2:
            turns.append(ConversationTurn("note", piece))
        elif piece.strip("\n") or len(text) == len(piece):
            turns.append(ConversationTurn("user", piece.removeprefix("\n\n") if number else piece))
    return turns


def refuse_streaming(body: JsonObject) -> None:
    """Refuse a streaming request with a clear message."""
    if body.get("stream"):
        raise BadRequest(
            "stream: this model server sends complete replies only; leave `stream` out, or set it to false"
        )
