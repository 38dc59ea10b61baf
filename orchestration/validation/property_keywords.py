"""Keywords that sort an object's properties by patterns. The library matches these with `re`, which has no bound on time.

- `pattern` and `patternProperties` match with `patterns`.
- `additionalProperties` and `unevaluatedProperties` say in typed fields which properties are left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jsonschema import ValidationError
from jsonschema.protocols import Validator

from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.patterns import compile_pattern


class LeftOver(ValidationError):
    """The error of properties that the schema does not allow."""

    names: tuple[str, ...] = ()


def match(validator: Validator, pattern: str, text: str) -> bool:
    """Match a pattern, and pay for higher limits on backtracks."""
    effort = getattr(validator, "format_checker", None)
    spend: Callable[[int], None] = effort.spend if isinstance(effort, EffortBudget) else lambda _units: None
    return compile_pattern(pattern).matches(text, spend)


def pattern(validator: Validator, wanted: str, instance: object, _schema: object) -> Iterator[ValidationError]:
    """`pattern`: the text contains a match."""
    if isinstance(instance, str) and not match(validator, wanted, instance):
        yield ValidationError("does not match")


def pattern_properties(validator: Any, wanted: Any, instance: object, _schema: object) -> Iterator[ValidationError]:
    """`patternProperties`: a property whose name matches satisfies the schema of the pattern."""
    if isinstance(instance, dict):
        for one, subschema in wanted.items():
            for name, value in instance.items():
                if match(validator, one, name):
                    yield from validator.descend(value, subschema, path=name, schema_path=one)


def additional_properties(validator: Any, allowed: Any, instance: object, schema: Any) -> Iterator[ValidationError]:
    """`additionalProperties`: the other properties satisfy this schema, or there are none."""
    if isinstance(instance, dict):
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        left = [
            name for name in instance if name not in known and not any(match(validator, one, name) for one in patterns)
        ]
        if isinstance(allowed, dict):
            for name in left:
                yield from validator.descend(instance[name], allowed, path=name)
        elif not allowed and left:
            yield _left_over(left)


def unevaluated_properties(validator: Any, allowed: Any, instance: object, schema: Any) -> Iterator[ValidationError]:
    """`unevaluatedProperties`: properties that no other keyword has judged satisfy this schema, or there are none."""
    if isinstance(instance, dict):
        judged = set(_find_covered(validator, instance, {**schema, "unevaluatedProperties": None}))
        left = [
            name for name, value in instance.items() if name not in judged and not _is_valid(validator, value, allowed)
        ]
        if left:
            yield _left_over(left)


def _left_over(names: list[str]) -> LeftOver:
    error = LeftOver("other properties are not allowed")
    error.names = tuple(names)
    return error


def _find_covered(validator: Any, instance: dict[str, Any], schema: Any) -> Iterator[str]:
    """The properties that a schema covers, by its own keywords and by those of the subschemas that are satisfied."""
    if not isinstance(schema, dict):
        return
    yield from (name for name in instance if name in schema.get("properties", {}))
    yield from (
        name for name in instance if any(match(validator, one, name) for one in schema.get("patternProperties", ()))
    )
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if schema.get(keyword) is not None:
            yield from (name for name, value in instance.items() if _is_valid(validator, value, schema[keyword]))
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            found = validator._resolver.lookup(schema[keyword])
            inner = validator.evolve(schema=found.contents, _resolver=found.resolver)
            yield from _find_covered(inner, instance, found.contents)
    for one in _holding(validator, instance, schema):
        yield from _find_covered(validator, instance, one)


def _holding(validator: Any, instance: dict[str, Any], schema: dict[str, Any]) -> Iterable[Any]:
    """The subschemas that apply to the same object and that it satisfies."""
    for keyword in ("allOf", "anyOf", "oneOf"):
        yield from (one for one in schema.get(keyword, ()) if _is_valid(validator, instance, one))
    yield from (one for name, one in schema.get("dependentSchemas", {}).items() if name in instance)
    if "if" in schema:
        if _is_valid(validator, instance, schema["if"]):
            yield from (schema["if"], schema.get("then"))
        else:
            yield schema.get("else")


def _is_valid(validator: Any, instance: object, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None
