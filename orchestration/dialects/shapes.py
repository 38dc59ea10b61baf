"""The shape of an object: its properties, which of them are required, and whether others are allowed.

Shapes can be merged into one, if all must hold or if one of them must hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from midwatch.schemas.contract import JsonObject

Form = JsonObject | bool
"""The schema of a property."""

_NOTES = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
"""Keywords that do not restrict a value."""

_BOUND = frozenset({
    "$ref", "if", "then", "else", "contains", "minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
"""Keywords whose meaning depends on the other keywords of their schema. They are never merged into one schema."""


@dataclass(frozen=True)
class Shape:
    """The shape of one object."""

    properties: dict[str, Form]
    required: tuple[str, ...] = ()
    closed: bool = False
    """True if no other properties are allowed."""
    partial: frozenset[str] = field(default_factory=frozenset)
    """Properties that only some alternatives name. If another part describes such a property, that description is used."""

    @classmethod
    def of(cls, part: JsonObject) -> Shape:
        """The shape that a schema gives by its own keywords, without its subschemas."""
        closed = part.get("additionalProperties") is False and not part.get("patternProperties")
        return cls(part.get("properties", {}), tuple(part.get("required", ())), closed)


ANY_OBJECT = Shape({})


def merge_all(shapes: Sequence[Shape]) -> Shape:
    """Merge shapes that must all hold."""
    return reduce(_both, shapes, ANY_OBJECT)


def _both(one: Shape, other: Shape) -> Shape:
    properties: dict[str, Form] = {}
    for name in dict.fromkeys([*one.properties, *other.properties]):
        having = [shape for shape in (one, other) if name in shape.properties]
        if any(shape.closed for shape in (one, other) if shape not in having):
            continue
        having = [shape for shape in having if name not in shape.partial] or having
        properties[name] = reduce(_both_forms, [shape.properties[name] for shape in having])
    required = tuple(dict.fromkeys([*one.required, *other.required]))
    partial = frozenset(
        name for name in properties if all(name in s.partial for s in (one, other) if name in s.properties)
    )
    return Shape(properties, required, one.closed or other.closed, partial)


def merge_alternatives(shapes: Sequence[Shape]) -> Shape:
    """Merge shapes of which one must hold."""
    properties: dict[str, Form] = {}
    partial: set[str] = set()
    for name in dict.fromkeys(name for shape in shapes for name in shape.properties):
        properties[name] = _any_form([shape.properties[name] for shape in shapes if name in shape.properties])
        if any(name in s.partial if name in s.properties else not s.closed for s in shapes):
            partial.add(name)
    required = tuple(name for name in shapes[0].required if all(name in shape.required for shape in shapes))
    return Shape(properties, required, all(shape.closed for shape in shapes), frozenset(partial))


def _both_forms(one: Form, other: Form) -> Form:
    if one is False or other is False:
        return False
    if one is True or other is True or one == other:
        return other if one is True else one
    keys, other_keys = set(one) - _NOTES, set(other) - _NOTES
    if not (keys | other_keys) & _BOUND and all(one[key] == other[key] for key in keys & other_keys):
        return {**other, **one}
    return {"allOf": [one, other]}


def _any_form(forms: list[Form]) -> Form:
    """A form that allows each of the forms. A form `false`, which forbids the property, is dropped."""
    several = [form for n, form in enumerate(forms) if form is not False and form not in forms[:n]]
    if not several:
        return False
    if True in several or {} in several:
        return True
    return several[0] if len(several) == 1 else _as_enum(several) or {"anyOf": several}


def _as_enum(forms: Sequence[Form]) -> JsonObject | None:
    """One `enum` for all forms, if each is a constant or an enum of strings."""
    values: list[object] = []
    for form in forms:
        keys = {} if isinstance(form, bool) else {key: form[key] for key in form if key not in _NOTES}
        values += keys.pop("enum", [keys.pop("const")] if "const" in keys else [])
        if not values or keys not in ({}, {"type": "string"}):
            return None
    return {"type": "string", "enum": values} if all(isinstance(value, str) for value in values) else None
