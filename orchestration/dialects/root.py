"""Rewrite a schema with alternatives at its top level as one plain object, for vendors that accept nothing else.

The result allows everything that the author's schema allows, with one exception. If only some alternatives name a property, the
result keeps the form that they give it. Strictly, `{"anyOf": [A, B]}` with an open B allows a property of A with any value
together with B. Authors don't mean that, and then the model would not learn the property's type.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from urllib.parse import unquote

from midwatch.orchestration.dialects.shapes import ANY_OBJECT, Form, Shape, merge_all, merge_alternatives
from midwatch.orchestration.validation.problems import pointer, show
from midwatch.orchestration.validation.subschemas import every_part, resolve_reference, types
from midwatch.schemas.contract import JsonObject

COMPOSED = ("anyOf", "oneOf", "allOf")

MAX_NOTE_CHARS = 300
"""Longest text about the alternatives. It is added to a description, which is sent with every call."""

_LEFT_OUT = frozenset({
    *COMPOSED, "$ref", "not", "if", "then", "else", "enum", "const", "unevaluatedProperties",
})  # fmt: skip
"""Keywords of the top level that are not sent. The arguments are still validated against them."""

_DEFINED = ("#/$defs/", "#/definitions/")


class NotOneObject(ValueError):
    """Raised when a schema can't be written as one object. The message says why."""


@dataclass(frozen=True)
class RootForm:
    """The schema that is sent, and the alternatives as text."""

    schema: JsonObject
    note: str


def to_one_object(schema: JsonObject) -> RootForm:
    """Rewrite a schema so that its top level has no `anyOf`, `oneOf`, `allOf`, `$ref`, `not`, `if`, `enum` and `const`.

    Raises:
        NotOneObject: no object satisfies the schema, or a reference is not a path.

    """
    reader = _Reader(_with_definitions(schema))
    shape = reader.read(reader.root, ())
    if shape is None:
        raise NotOneObject("no object satisfies it")
    sent = {key: value for key, value in reader.root.items() if key not in _LEFT_OUT}
    sent["type"] = "object"
    sent["properties"] = {
        name: {} if form is True else form for name, form in shape.properties.items() if form is not False
    }
    if shape.required:
        sent["required"] = list(shape.required)
    if shape.closed:
        sent["additionalProperties"] = False
    _remove_unused(sent)
    return RootForm(sent, _shorten([_describe_choice(kind, found, shape) for kind, found in reader.choices]))


class _Reader:
    """Reads the shape of the top level, with the alternatives, references and `allOf` parts that apply to it."""

    def __init__(self, root: JsonObject) -> None:
        self.root = root
        self.choices: list[tuple[str, list[Shape]]] = []
        """The alternatives at the top, each with its keyword. One of them must always hold."""

    def read(self, part: object, inside: tuple[str, ...]) -> Shape | None:
        """Read the shape of a part. None if no object satisfies it. `inside` holds the keywords and references above it."""
        if isinstance(part, bool):
            return ANY_OBJECT if part else None
        if not isinstance(part, dict) or not {"object", None} & set(types(part)):
            return None
        found: list[Shape | None] = [Shape.of(part)]
        if "$ref" in part:
            found.append(self._read_reference(part["$ref"], inside))
        found += [self.read(one, inside) for one in part.get("allOf", ())]
        for keyword in ("anyOf", "oneOf"):
            if keyword in part:
                found.append(self._read_alternatives(keyword, part[keyword], inside))
        shapes = [shape for shape in found if shape is not None]
        return merge_all(shapes) if len(shapes) == len(found) else None

    def _read_alternatives(self, keyword: str, branches: list[object], inside: tuple[str, ...]) -> Shape | None:
        found = [shape for one in branches if (shape := self.read(one, (*inside, keyword))) is not None]
        if not {"anyOf", "oneOf"} & set(inside):
            self.choices.append((keyword, found))
        return merge_alternatives(found) if found else None

    def _read_reference(self, reference: str, inside: tuple[str, ...]) -> Shape | None:
        if reference in inside:
            raise NotOneObject(f"the reference {show(reference[:80])} leads back to itself")
        return self.read(resolve_reference(self.root, reference), (*inside, reference))


def _with_definitions(schema: JsonObject) -> JsonObject:
    """Copy a schema so that all references lead to definitions, since other places may change."""
    copy = deepcopy(schema)
    found: dict[str, list[JsonObject]] = {}
    for _, part in every_part(copy):
        reference = part.get("$ref", "#")
        if (
            "$dynamicRef" in part
            or not isinstance(reference, str)
            or (reference != "#" and resolve_reference(copy, reference) is None)
        ):
            raise NotOneObject(
                f"the reference {show(str(part.get('$dynamicRef', reference))[:80])} does not have the form #/..."
            )
        if reference != "#" and not reference.startswith(_DEFINED):
            found.setdefault(reference, []).append(part)
    moved = {reference: resolve_reference(copy, reference) for reference in found}
    for reference, referring in found.items():
        definitions = copy.setdefault("$defs", {})
        name = next(name for n in count(1) if (name := f"shared-{n}") not in definitions)
        definitions[name] = moved[reference]
        for part in referring:
            part["$ref"] = f"#/$defs/{name}"
    return copy


def _remove_unused(sent: JsonObject) -> None:
    """Remove definitions that only the alternatives used. Otherwise every call would pay for them."""
    while True:
        used = [unquote(part["$ref"]) for _, part in every_part(sent) if "$ref" in part]
        unused = [
            (keyword, name)
            for keyword in ("$defs", "definitions")
            for name in sent.get(keyword, ())
            if not any(reference.startswith(f"#{pointer((keyword, name))}") for reference in used)
        ]
        if not unused:
            return
        for keyword, name in unused:
            sent[keyword] = {key: value for key, value in sent[keyword].items() if key != name}
            if not sent[keyword]:
                del sent[keyword]


def _describe_choice(keyword: str, shapes: list[Shape], whole: Shape) -> str:
    """One sentence about the alternatives. Empty if they do not differ in what they require."""
    texts = [_requirements(shape, whole) for shape in shapes]
    if len(texts) < 2 or "" in texts or len(set(texts)) < len(texts):
        return ""
    return f"Give {'exactly' if keyword == 'oneOf' else 'at least'} one of: {'; '.join(texts)}."


def _requirements(shape: Shape, whole: Shape) -> str:
    """What one alternative requires in addition to the whole schema, such as `kind "file" and path`."""
    names: list[str] = []
    for name in dict.fromkeys([*shape.properties, *shape.required]):
        only = _constant(shape.properties.get(name))
        if only is not None:
            names.append(f"{name} {only}")
        elif name in shape.required and name not in whole.required:
            names.append(name)
    return " and ".join(names)


def _constant(form: Form | None) -> str | None:
    if not isinstance(form, dict):
        return None
    values = form.get("enum", [form["const"]] if "const" in form else [])
    return json.dumps(values[0], ensure_ascii=False) if len(values) == 1 else None


def _shorten(sentences: list[str]) -> str:
    note = " ".join(sentence for sentence in sentences if sentence)
    return note if len(note) <= MAX_NOTE_CHARS else f"{note[: MAX_NOTE_CHARS - 2].rsplit(' ', 1)[0]} …"
