"""The tool `recall`: pages the original messages of a group that a compaction moved out of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.orchestration.tools.result_pages import PAGE_CHARS, pack, read_page
from midwatch.orchestration.tools.result_pages import RECALL as NAME
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.message import MESSAGE, Message, ToolCall, ToolMessage
from midwatch.schemas.tools import ToolSpec

if TYPE_CHECKING:
    from midwatch.orchestration.ports import Store
    from midwatch.orchestration.protocol.claims import Claim

RECALL = ToolSpec(
    name=NAME,
    description="Read the original messages of an earlier group of this conversation, which the memory only sums up.",
    input_schema={
        "type": "object",
        "properties": {
            "group": {"type": "integer", "minimum": 1, "description": "The group, as the memory names it."},
            "offset": {"type": "integer", "minimum": 0, "description": "First character to read, from 0."},
        },
        "required": ["group"],
        "additionalProperties": False,
    },
)
"""Offered to the model once its session has a memory."""

_VALIDATOR = JSONSchemaValidator(RECALL.input_schema)


def pack_group(messages: list[Message]) -> bytes:
    """Pack the original messages of one group for the archive, one line of JSON each."""
    return pack("\n".join(message.model_dump_json(exclude_none=True) for message in messages))


def unpack_group(body: bytes) -> list[Message]:
    """Unpack the messages that `pack_group` packed."""
    import zlib

    text = zlib.decompressobj().decompress(body).decode(errors="replace")
    return [MESSAGE.validate_json(line) for line in text.split("\n") if line]


def _missing(claim: Claim, group: int) -> str:
    if claim.memory is None or group > claim.memory.through_group:
        return f"Group {group} was not archived: it is in your window."
    return (
        f"Group {group} is no longer kept: the oldest originals leave when there are too many. Ask for what you need."
    )


def answer_recall(store: Store, claim: Claim, call: ToolCall, ordinal: int) -> ToolMessage:
    """Answer one call of `recall` from the session's archive."""
    content, is_error = "", True
    try:
        arguments = parse_arguments(call.raw_arguments, has_required=True)
        problems = _VALIDATOR.problems(arguments)
    except InvalidArguments as error:
        content = str(error)
    else:
        group = int(arguments.get("group", 0)) if not problems else 0
        if problems:
            content = explain(problems, RECALL.input_schema)
        elif (body := store.get_archived(claim.ref.session_id, group)) is None:
            content = _missing(claim, group)
        else:
            content, is_error = read_page(body, int(arguments.get("offset", 0)), PAGE_CHARS), False
    return ToolMessage(
        group=claim.group, ordinal=ordinal, call_id=call.id, tool=call.name, content=content, is_error=is_error
    )
