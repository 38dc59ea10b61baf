"""Answers made wrong on purpose, the way real models get them wrong. The same words of chance, the same damage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import SPOILED_ID, Call, Conversation
from midwatch.workers.simulator.faults import SPOILING, Fault, chance
from midwatch.workers.simulator.vendor_formats.jsontext import dump
from midwatch.workers.simulator.vendor_formats.vendor_format import Reply


def spoil(fault: Fault, reply: Reply, conversation: Conversation, seed: int) -> Reply | None:
    """The reply with the fault in it; None when it can't have it: no call to damage, no way to make it invalid."""
    if fault is Fault.CONTENT_NULL:
        return replace(reply, has_content=False, calls=(), stop=Stop.END)
    if fault is Fault.NO_USAGE:
        return replace(reply, usage=None)
    if fault is Fault.ABSURD_USAGE:
        return replace(
            reply, usage=_absurd(reply.usage or Usage(), chance(seed, conversation.key, conversation.turn, fault))
        )
    if fault is Fault.STOP_NULL:
        return replace(reply, stop=None)
    if not reply.calls:
        return None
    if fault is Fault.EMPTY_ID:
        return replace(reply, calls=tuple(replace(call, id="") for call in reply.calls))
    if fault is Fault.REPEATED_ID:
        earlier = conversation.calls()
        same = earlier[-1].id if earlier else f"call_{conversation.key}"
        return replace(reply, calls=tuple(replace(call, id=same) for call in reply.calls))
    if fault not in SPOILING:
        return None
    luck = chance(seed, conversation.key, conversation.turn, fault)
    victim = reply.calls[-1]
    spoiled = _spoiled(fault, victim, conversation, luck)
    if spoiled is None:
        return None
    # With the turn in it, an id stays unique when the same call is spoiled again: clients rename ids that repeat.
    spoiled = replace(spoiled, id=f"{victim.id}_{conversation.turn}{SPOILED_ID}")
    calls = (*reply.calls[:-1], spoiled)
    if fault is not Fault.CUT_OFF:
        return replace(reply, calls=calls)
    return replace(reply, calls=calls, stop=Stop.LENGTH, usage=exhausted(reply.usage, conversation))


def exhausted(usage: Usage | None, conversation: Conversation) -> Usage | None:
    """Usage of a reply that ran out of output tokens: all of them. Only a few would mean that the window is full."""
    if usage is None or conversation.max_output_tokens is None:
        return usage
    return usage.model_copy(update={"output_tokens": conversation.max_output_tokens})


def _absurd(usage: Usage, luck: float) -> Usage:
    """Figures that real servers have sent, or that a broken counter would."""
    read, written = usage.input_tokens, usage.output_tokens
    figures = ((0, 0), (-read, -written), (10**12, 10**12), (50 * read, 50 * written))
    input_tokens, output_tokens = figures[int(luck * len(figures))]
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


def _spoiled(fault: Fault, call: Call, conversation: Conversation, luck: float) -> Call | None:
    schema = next((tool.input_schema for tool in conversation.tools if tool.name == call.name), {})
    if fault is Fault.UNKNOWN_TOOL:
        return replace(call, name=f"{call.name[:60]}_v2")
    if fault is Fault.INVALID_ARGUMENTS:
        arguments = _invalid(call.input, schema, luck)
        return None if arguments is None else replace(call, arguments=dump(arguments))
    cut = _cut(call.arguments, luck)
    if fault is Fault.MALFORMED_ARGUMENTS and conversation.wire == "anthropic-messages":
        # Half a JSON text can't travel here: the vendor delivers {} or, at worst, a value of another type.
        cut = dump(_first_invalid(({}, {"parameters": call.input}), schema, luck, cut))
    return replace(call, arguments=cut)


def _cut(arguments: str, luck: float) -> str:
    """The text broken off somewhere in its second half; never valid JSON."""
    keep = max(1, int(len(arguments) * (0.5 + luck / 2)) - 1)
    return arguments[:keep] if len(arguments) > 1 else "{"


def _invalid(arguments: JsonObject, schema: JsonObject, luck: float) -> JsonObject | None:
    """Arguments that the schema refuses and a model might write; None when it refuses none of them."""
    wrong = _first_invalid(tuple(_mistakes(arguments, schema)), schema, luck, None)
    return wrong if isinstance(wrong, dict) else None


def _mistakes(arguments: JsonObject, schema: JsonObject) -> Iterator[JsonObject]:
    """What models get wrong: a field forgotten, of another type, nearly right, or made up."""
    properties = schema.get("properties", {})
    for name, value in arguments.items():
        yield {other: kept for other, kept in arguments.items() if other != name}
        if isinstance(value, str):
            yield {**arguments, name: [value]}
            if isinstance(properties.get(name), dict) and "enum" in properties[name]:
                yield {**arguments, name: f"{value}s"}
        else:
            yield {**arguments, name: dump(value)}
    yield {**arguments, "reason": "as the user asked"}


def _first_invalid(candidates: tuple[Any, ...], schema: JsonObject, luck: float, otherwise: Any) -> Any:
    """The first candidate, from one chosen by luck on, that the schema refuses."""
    try:
        Draft202012Validator.check_schema(schema)
        # An empty registry: a reference to another document must fail, not be fetched.
        validator = Draft202012Validator(schema, registry=Registry())
        start = int(luck * len(candidates))
        for candidate in candidates[start:] + candidates[:start]:
            if not validator.is_valid(json.loads(dump(candidate))):
                return candidate
    except (SchemaError, Unresolvable, re.error):
        return otherwise
    return otherwise
