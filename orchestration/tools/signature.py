"""The signature of a tool's function: the arguments that the model fills in, their JSON Schema, and their conversion.

Validated JSON is passed to the function unchanged: a `str` parameter gets the string, and nothing is coerced. A value is
converted, by pydantic in strict mode, only if the annotation is not a JSON type (a pydantic model, a dataclass, an Enum, a
datetime, a set).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.annotations import description_in, evaluate_hint, is_plain_json, without_titles
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.validation.problems import Problem, pointer, show
from midwatch.schemas.contract import JsonObject

_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One argument that the model fills in."""

    name: str
    annotation: Any
    default: Any = _MISSING
    adapter: TypeAdapter[Any] | None = None
    """Converts the JSON value. None if the value is passed unchanged."""

    @property
    def required(self) -> bool:
        """Must the model give a value? Yes, if the function has no default."""
        return self.default is _MISSING


@dataclass(frozen=True)
class Signature:
    """The signature of a function that is called with JSON arguments."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    takes_context: str | None = None
    """Name of the parameter annotated `ToolContext`."""
    takes_any: bool = False
    """True if the function has `**arguments`."""

    @classmethod
    def of(cls, function: Callable[..., Any], *, schema_given: bool) -> Signature:
        """Read a function's signature.

        Args:
            function: The tool's function.
            schema_given: True if the tool's author wrote the schema. Then annotations may be missing.

        Raises:
            ConfigError: the function can't be called with named JSON arguments, or its annotations are incomplete.

        """
        name = getattr(function, "__name__", type(function).__name__)
        parameters: dict[str, Parameter] = {}
        context, takes_any = None, False
        for one in inspect.signature(function).parameters.values():
            annotation = evaluate_hint(function, one, strict=not schema_given)
            if annotation is ToolContext:
                context = _only_one(name, context, one.name)
            elif one.kind is inspect.Parameter.VAR_KEYWORD:
                takes_any = True
            else:
                parameters[one.name] = _parameter(name, one, annotation)
        if takes_any and not schema_given:
            raise ConfigError(f"tool {name}: **arguments says nothing about the input; give it a validator")
        return cls(name, parameters, context, takes_any)

    def schema(self, descriptions: Mapping[str, str]) -> JsonObject:
        """Make the JSON Schema of the arguments: no other properties, no titles, with defaults and descriptions.

        Raises:
            ConfigError: an annotation has no JSON Schema.

        """
        adapters = {one.name: _adapter(self.name, one) for one in self.parameters.values()}
        try:
            schemas, shared = TypeAdapter.json_schemas([(name, "validation", made) for name, made in adapters.items()])
        except PydanticUserError as error:
            raise ConfigError(f"tool {self.name}: a parameter's type has no JSON Schema: {error.message}") from error
        properties = {name: without_titles(schemas[(name, "validation")]) for name in adapters}
        for name, schema in properties.items():
            text = (
                schema.get("description") or description_in(self.parameters[name].annotation) or descriptions.get(name)
            )
            if text:
                schema["description"] = text
            _add_default(schema, self.parameters[name], adapters[name])
        found: JsonObject = {"type": "object", "properties": properties}
        required = [one.name for one in self.parameters.values() if one.required]
        if required:
            found["required"] = required
        found["additionalProperties"] = False
        if shared.get("$defs"):
            found["$defs"] = {name: without_titles(schema) for name, schema in shared["$defs"].items()}
        return found

    def mismatch(self, arguments: JsonObject) -> list[Problem]:
        """Find where valid arguments do not fit the function: an unknown name, or a missing one."""
        extra = [] if self.takes_any else [name for name in arguments if name not in self.parameters]
        missing = [one.name for one in self.parameters.values() if one.required and one.name not in arguments]
        return [
            Problem(pointer([name]), "no such property", show(arguments[name]), "additionalProperties")
            for name in extra
        ] + [Problem(pointer([name]), "a value (it is required)", "nothing", "required") for name in missing]

    def convert(self, arguments: JsonObject) -> tuple[JsonObject, list[Problem]]:
        """Convert the arguments. Returns the values for the function, and the problems. Doesn't raise."""
        values, problems = dict(arguments), []
        for name, value in arguments.items():
            parameter = self.parameters.get(name)
            if parameter is None or parameter.adapter is None:
                continue
            try:
                values[name] = parameter.adapter.validate_json(json.dumps(value), strict=True)
            except ValidationError as error:
                problems += [
                    Problem(
                        pointer([name, *one["loc"]]), _in_json(one["type"], one["msg"]), show(one["input"]), one["type"]
                    )
                    for one in error.errors(include_url=False, include_context=False)
                ]
            except Exception as error:  # the author's own validator may raise anything
                problems.append(
                    Problem(
                        pointer([name]), "a value its type accepts", f"{show(value)} ({type(error).__name__})", "type"
                    )
                )
        return values, problems


def _parameter(tool: str, one: inspect.Parameter, annotation: Any) -> Parameter:
    if one.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
        raise ConfigError(f"tool {tool}: parameter {one.name!r} can't be passed by name; remove the '/' or '*'")
    if isinstance(one.default, FieldInfo):
        raise ConfigError(
            f"tool {tool}: parameter {one.name!r}: a Field(...) as default would be passed to the function; "
            f"write {one.name}: Annotated[..., Field(...)] and a plain default"
        )
    parameter = Parameter(one.name, annotation, one.default)
    if annotation is _MISSING or is_plain_json(annotation):
        return parameter
    return Parameter(one.name, annotation, one.default, _adapter(tool, parameter))


def _adapter(tool: str, parameter: Parameter) -> TypeAdapter[Any]:
    if parameter.annotation is _MISSING:
        raise ConfigError(f"tool {tool}: parameter {parameter.name!r} has no type hint; add one, or give a validator")
    try:
        return TypeAdapter(parameter.annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise ConfigError(
            f"tool {tool}: parameter {parameter.name!r}: no JSON value can be converted to {parameter.annotation!r}; "
            f"use plain types, a pydantic model or a dataclass ({str(error).partition(chr(10))[0]:.200})"
        ) from error


def _in_json(kind: str, message: str) -> str:
    """The message of a pydantic error, with choices spelled as in JSON. pydantic spells them as in Python."""
    if kind == "none_required":
        return "null"
    return message.replace("'", '"') if kind in ("enum", "literal_error") else message


def _only_one(tool: str, found: str | None, name: str) -> str:
    if found:
        raise ConfigError(f"tool {tool}: two parameters are a ToolContext, {found!r} and {name!r}; keep one")
    return name


def _add_default(schema: JsonObject, parameter: Parameter, adapter: TypeAdapter[Any]) -> None:
    if parameter.required:
        return
    try:
        default = adapter.dump_python(parameter.default, mode="json", warnings="none")
        adapter.validate_json(json.dumps(default, allow_nan=False))
    except Exception:  # a default may not match its annotation (`name: str = None`); then the schema shows none
        return
    schema["default"] = default
