"""Tool calls without a mark: a JSON object or list that names a tool, or a call as in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from midwatch.orchestration.tools.toolbox import Toolbox

MAX_CHARS = 200_000
"""A longer text is not decoded."""

NAMES = ("name", "tool", "tool_name", "function", "function_name", "recipient_name", "action")
ARGUMENTS = ("arguments", "parameters", "args", "input", "params", "kwargs", "tool_input", "tool_args", "action_input")
"""The keys that models use for a call's tool and its arguments."""

AROUND = ("function", "function_call", "tool_call", "tool_calls", "tool_uses", "calls")
"""Keys of an object around calls."""

ALSO = frozenset({"id", "type", "index", "call_id", "tool_call_id", "status", "thought", "reasoning"})
"""Other keys that a call may have. An object with more keys, such as the definition of a tool, is no call."""

_NO_JSON = object()
_DECODER = json.JSONDecoder()
_SEPARATORS = re.compile(r"[\s;,]*")
_BEGIN = re.compile(
    rf"""[\[\s]*\{{\s*["'](?:{"|".join(NAMES)})["']\s*:\s*["']([\w.:-]{{1,80}})["']\s*,\s*["'](?:{"|".join(ARGUMENTS)})["']\s*:\s*[{{"']"""
)
"""How a call in JSON begins. It counts if the JSON is broken or has single quotes. The definition of a tool is whole JSON."""

_NAMED = re.compile(
    r"(?:(?:assistant\s?)?commentary\s+)?(?:to=)?(?:functions\.)?([A-Za-z_][\w-]*)(?::\d{1,4})?\s*:?\s*(?:json\s*)?(?=\{)"
)
"""A name and its arguments: `look_up {…}`, also with what is left of Kimi's and gpt-oss's marks without special tokens."""

_WRAPPED = re.compile(r"<(\w[\w:-]{0,40})>\s*(.*?)\s*</\1>\s*", re.DOTALL)
"""A text in one pair of tags."""

_FIELD = re.compile(r"<(\w[\w-]{0,60})>(?:(?!</\1>).){0,100000}</\1>\s*", re.DOTALL)

_PYTHON = re.compile(
    r"\[?\s*(?:await\s+|[A-Za-z_]\w*\s*=\s*)?(?:print\()?(?:default_api\.|functions\.|tools\.)?([A-Za-z_]\w*)\((?=\s*(?:\)|\w+\s*=|\{|\")).*\)\s*\]?",
    re.DOTALL,
)


def is_bare_call(text: str, toolbox: Toolbox) -> bool:
    """Is the whole text one or several calls of offered tools?"""
    text = text.strip()
    if not toolbox.specs or not text or len(text) > MAX_CHARS:
        return False
    if (python := _PYTHON.fullmatch(text)) is not None:
        return toolbox.get(python[1]) is not None
    if (wrapped := _WRAPPED.fullmatch(text)) is not None:
        return _is_wrapped_call(wrapped[1], wrapped[2], toolbox)
    if text[0] not in "{[":
        named = _NAMED.match(text)
        return named is not None and toolbox.get(named[1]) is not None and is_json(text[named.end() :])
    values = list(_decode_all(text))
    if _NO_JSON in values:
        begun = _BEGIN.match(text)
        return begun is not None and _is_offered(begun[1], toolbox)
    return all(_is_call(value, toolbox) for value in values)


def _is_wrapped_call(tag: str, inside: str, toolbox: Toolbox) -> bool:
    """Is it `<tools>{…}</tools>` with a call inside, or `<look_up><order>A</order></look_up>`, as prompts ask for it?"""
    if (tool := toolbox.get(tag)) is None:
        return inside[:1] in ("{", "[") and is_bare_call(inside, toolbox)
    fields = {found[1] for found in _FIELD.finditer(inside[:2_000])}
    known = tool.validator.schema.get("properties")
    return is_json(inside) or (bool(fields) and isinstance(known, dict) and fields <= known.keys())


def is_json(text: str) -> bool:
    """Is the whole text one JSON object or list?"""
    if text[:1] not in ("{", "[") or len(text) > MAX_CHARS:
        return False
    values = _decode_all(text)
    return next(values) is not _NO_JSON and next(values, None) is None


def _decode_all(text: str) -> Iterator[object]:
    """Decode JSON values one after the other, lazily. `_NO_JSON` if anything else comes."""
    place = 0
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield _NO_JSON
            return
        yield value
        separator = _SEPARATORS.match(text, place)
        place = separator.end() if separator else place


def _is_call(value: object, toolbox: Toolbox) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_call(one, toolbox) for one in value)
    if not isinstance(value, dict):
        return False
    for key in AROUND:
        if isinstance(value.get(key), (dict, list)) and value.keys() <= {key, *ALSO}:
            return _is_call(value[key], toolbox)
    named = [key for key in NAMES if _is_offered(value.get(key), toolbox)]
    if named:
        has_arguments = any(isinstance(value.get(key), (dict, str)) for key in ARGUMENTS)
        return value.keys() <= {named[0], *ARGUMENTS, *ALSO} and has_arguments
    return _is_keyed_call(value, toolbox)


def _is_keyed_call(value: dict[str, object], toolbox: Toolbox) -> bool:
    """`{"look_up": {"order": "A"}}`: a call if the tool accepts these arguments, and it has some."""
    if len(value) != 1:
        return False
    ((name, arguments),) = value.items()
    found = toolbox.get(name)
    return (
        found is not None
        and isinstance(arguments, dict)
        and bool(arguments)
        and not found.validator.problems(arguments)
    )


def _is_offered(name: object, toolbox: Toolbox) -> bool:
    return isinstance(name, str) and toolbox.get(name.rpartition(".")[2].partition(":")[0]) is not None
