"""Type hints of a tool's parameters: evaluate them, tell plain JSON types from others, read their descriptions."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from annotated_types import BaseMetadata, GroupedMetadata
from pydantic.fields import FieldInfo

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.context import ToolContext
from midwatch.schemas.contract import JsonObject

_CONTEXT_TEXT = re.compile(r"(?:\w+\.)*ToolContext(?: \| None)?")
_PLAIN = (str, int, float, bool, None, type(None), Any, object, dict, list)
_CONTAINERS = (list, dict, Union, types.UnionType, Required, NotRequired)
_SCHEMA_MAPS = ("properties", "$defs", "patternProperties")
_SCHEMA_VALUES = ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "prefixItems", "not", "contains")


def evaluate_hint(function: Callable[..., Any], parameter: inspect.Parameter, *, strict: bool) -> Any:
    """Evaluate the type hint of one parameter. The return hint is never evaluated: it may name something not imported.

    Args:
        function: The function whose parameter it is.
        parameter: The parameter, from `inspect.signature`.
        strict: True to raise when the hint can't be evaluated; otherwise such a hint counts as missing.

    Raises:
        ConfigError: the hint names something that doesn't exist at run time.

    """
    hint = parameter.annotation
    if not isinstance(hint, str):
        return ToolContext if ToolContext in get_args(hint) else hint
    inner = inspect.unwrap(function)
    namespace = getattr(getattr(inner, "__func__", inner), "__globals__", {})
    try:
        holder = types.SimpleNamespace(__annotations__={parameter.name: hint})
        found = get_type_hints(holder, globalns=dict(namespace), include_extras=True)[parameter.name]
        return ToolContext if ToolContext in get_args(found) else found
    except Exception as error:
        if _CONTEXT_TEXT.fullmatch(hint):  # imported for type checkers only
            return ToolContext
        if not strict:
            return inspect.Parameter.empty
        raise ConfigError(
            f"tool {getattr(function, '__name__', function)}: the type hint {hint!r} of {parameter.name!r} can't be "
            f"evaluated ({error}); import it at the top of the module, not under TYPE_CHECKING"
        ) from error


def is_plain_json(hint: Any, within: tuple[Any, ...] = ()) -> bool:
    """Is a decoded JSON value already of the hinted type, so that it needs no conversion?

    Args:
        hint: An evaluated type hint.
        within: The TypedDicts around this one. A TypedDict that contains itself is checked once.

    """
    if is_typeddict(hint):
        inner = get_type_hints(hint, include_extras=True).values() if hint not in within else ()
        return all(is_plain_json(part, (*within, hint)) for part in inner)
    if hint in _PLAIN:
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return is_plain_json(parts[0], within) and all(_only_constrains(one) for one in parts[1:])
    if origin is Literal:
        return all(type(one) in (str, int, bool, type(None)) for one in parts)
    return origin in _CONTAINERS and all(is_plain_json(part, within) for part in parts)


def _only_constrains(metadata: object) -> bool:
    """Is this a constraint or a description? Those are in the schema already. Anything else may change the value."""
    if isinstance(metadata, FieldInfo):
        return all(_only_constrains(one) for one in metadata.metadata)
    if (
        type(metadata).__name__ == "_PydanticGeneralMetadata"
    ):  # pydantic keeps pattern, strict and similar constraints there
        return True
    return isinstance(metadata, (str, BaseMetadata, GroupedMetadata)) or type(metadata).__name__ in ("Doc", "DocInfo")


def description_in(hint: Any) -> str:
    """The description in `Annotated[str, "the query"]` or `Annotated[str, Doc("the query")]`."""
    for one in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(one, str):
            return one
        text = getattr(one, "documentation", None)
        if isinstance(text, str):
            return text
    return ""


def without_titles(schema: Any) -> Any:
    """Copy a schema without pydantic's generated titles, which cost tokens for nothing. A property `title` stays."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [without_titles(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy: JsonObject = {}
    for key, value in schema.items():
        if key in _SCHEMA_MAPS:
            copy[key] = {name: without_titles(one) for name, one in value.items()}
        elif key in _SCHEMA_VALUES:
            copy[key] = without_titles(value)
        elif key != "title":
            copy[key] = value
    return copy
