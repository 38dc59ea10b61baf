"""Makes replies wrong on purpose, like those of real models. The same seed and turn give the same damage."""

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
from midwatch.workers.simulator.brains.brain import SPOILED_ID, Conversation, SimulatedCall
from midwatch.workers.simulator.faults.faults import SPOILING, Fault, chance
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json
from midwatch.workers.simulator.vendor_formats.vendor_format import Reply


def spoil(fault: Fault, reply: Reply, conversation: Conversation, seed: int) -> Reply | None:
    """Apply a fault to a reply. None if that is not possible, because there is no call or no invalid value for it."""
    if fault is Fault.CONTENT_NULL:
        return replace(reply, has_content=False, calls=(), stop=Stop.END)
    if fault is Fault.NO_USAGE:
        return replace(reply, usage=None)
    if fault is Fault.ABSURD_USAGE:
        return replace(
            reply,
            usage=_make_absurd_usage(reply.usage or Usage(), chance(seed, conversation.key, conversation.turn, fault)),
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
    last_call = reply.calls[-1]
    spoiled = _spoil_call(fault, last_call, conversation, luck)
    if spoiled is None:
        return None
    # The id contains the turn, so it is unique even if the same call is spoiled again. Clients rename repeated ids.
    spoiled = replace(spoiled, id=f"{last_call.id}_{conversation.turn}{SPOILED_ID}")
    calls = (*reply.calls[:-1], spoiled)
    if fault is not Fault.CUT_OFF:
        return replace(reply, calls=calls)
    return replace(reply, calls=calls, stop=Stop.LENGTH, usage=use_up_tokens(reply.usage, conversation))


def use_up_tokens(usage: Usage | None, conversation: Conversation) -> Usage | None:
    """Set the output tokens to the request's limit, for a reply that was cut off. Fewer would mean a full window."""
    if usage is None or conversation.max_output_tokens is None:
        return usage
    return usage.model_copy(update={"output_tokens": conversation.max_output_tokens})


def _make_absurd_usage(usage: Usage, luck: float) -> Usage:
    """Return a usage that real servers have sent, or that a broken counter would send."""
    read, written = usage.input_tokens, usage.output_tokens
    figures = ((0, 0), (-read, -written), (10**12, 10**12), (50 * read, 50 * written))
    input_tokens, output_tokens = figures[int(luck * len(figures))]
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


def _spoil_call(fault: Fault, call: SimulatedCall, conversation: Conversation, luck: float) -> SimulatedCall | None:
    schema = next((tool.input_schema for tool in conversation.tools if tool.name == call.name), {})
    if fault is Fault.UNKNOWN_TOOL:
        return replace(call, name=f"{call.name[:60]}_v2")
    if fault is Fault.INVALID_ARGUMENTS:
        arguments = _make_invalid(call.input, schema, luck)
        return None if arguments is None else replace(call, arguments=dump_json(arguments))
    cut = _cut_text(call.arguments, luck)
    if fault is Fault.MALFORMED_ARGUMENTS and conversation.vendor_format == "anthropic-messages":
        # This format can't contain half a JSON text. The vendor sends {} or a value of another type.
        cut = dump_json(_find_invalid(({}, {"parameters": call.input}), schema, luck, cut))
    return replace(call, arguments=cut)


def _cut_text(arguments: str, luck: float) -> str:
    """Cut the text in its second half, so that it is no valid JSON."""
    keep = max(1, int(len(arguments) * (0.5 + luck / 2)) - 1)
    return arguments[:keep] if len(arguments) > 1 else "{"


def _make_invalid(arguments: JsonObject, schema: JsonObject, luck: float) -> JsonObject | None:
    """Make arguments that a model might write and the schema refuses. None if the schema accepts them all."""
    wrong = _find_invalid(tuple(_list_mistakes(arguments, schema)), schema, luck, None)
    return wrong if isinstance(wrong, dict) else None


def _list_mistakes(arguments: JsonObject, schema: JsonObject) -> Iterator[JsonObject]:
    """Yield typical mistakes of models: a missing field, a wrong type, a misspelt enum value, an unknown field."""
    properties = schema.get("properties", {})
    for name, value in arguments.items():
        yield {other: kept for other, kept in arguments.items() if other != name}
        if isinstance(value, str):
            yield {**arguments, name: [value]}
            if isinstance(properties.get(name), dict) and "enum" in properties[name]:
                yield {**arguments, name: f"{value}s"}
        else:
            yield {**arguments, name: dump_json(value)}
    yield {**arguments, "reason": "as the user asked"}


def _find_invalid(candidates: tuple[Any, ...], schema: JsonObject, luck: float, otherwise: Any) -> Any:
    """Find a candidate that the schema refuses. `luck` decides where the search starts."""
    try:
        Draft202012Validator.check_schema(schema)
        # The empty registry makes a reference to another document fail. Otherwise it would be fetched.
        validator = Draft202012Validator(schema, registry=Registry())
        start = int(luck * len(candidates))
        for candidate in candidates[start:] + candidates[:start]:
            if not validator.is_valid(json.loads(dump_json(candidate))):
                return candidate
    except (SchemaError, Unresolvable, re.error):
        return otherwise
    return otherwise
