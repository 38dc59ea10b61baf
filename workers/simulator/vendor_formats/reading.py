"""How requests are read: the shapes that all wires share, and a 400 that names the place for everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.brains.brain import Turn
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Prompt, Wire

REMINDER = re.compile(r"(?:\A|\n\n)(<reminder>.*?</reminder>)(?=\n\n|\Z)", re.DOTALL)


def read(wire: Wire, body: bytes) -> Prompt:
    """The request in these bytes; raises BadRequest when it is not JSON, or not of the vendor's shape."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request ({type(error).__name__}).") from None
    if not isinstance(value, dict):
        raise BadRequest(f"expected a JSON object, got {type(value).__name__}")
    try:
        return wire.read(value)
    except (TypeError, AttributeError, KeyError) as error:
        raise BadRequest(f"the request has not the shape of {wire.name} ({type(error).__name__}: {error})") from error


def objects(value: object, where: str) -> Iterator[JsonObject]:
    """Each entry of a list of objects; raises BadRequest for anything else."""
    if not isinstance(value, list):
        raise BadRequest(f"{where}: expected a list, got {type(value).__name__}")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadRequest(f"{where}.{number}: expected an object, got {type(entry).__name__}")
        yield entry


def text_of(content: object, where: str) -> str:
    """All text of a content field: a string, null, or a list of parts; what is no text becomes `[its type]`."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = objects(content, where)
    return "".join(part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type')}]" for part in parts)


def heard(text: str) -> list[Turn]:
    """What one user text holds: what the user said, and apart from it any `<reminder>` paragraph, which is a note.

    Clients mark the runtime's words so where a server takes no system message in mid-conversation.
    """
    if "<reminder>" not in text:  # nearly always; the pattern takes 2 ms for 100 KB, this takes nothing
        return [Turn("user", text)]
    turns = []
    for number, piece in enumerate(REMINDER.split(text)):
        if number % 2:
            turns.append(Turn("note", piece))
        elif piece.strip("\n") or len(text) == len(piece):
            turns.append(Turn("user", piece.removeprefix("\n\n") if number else piece))
    return turns


def refuse_streaming(body: JsonObject) -> None:
    """Say plainly that there is no streaming here, instead of answering a stream with something else."""
    if body.get("stream"):
        raise BadRequest("stream: this model server answers whole replies only; leave `stream` out, or set it to false")
