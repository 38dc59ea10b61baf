"""A schema with alternatives at its top level as one plain object: what is offered to a vendor that takes no others.

Wider than what the author wrote, never narrower but in one point: where alternatives name different properties, a
property has the form that those give it which name it. (By the letter, `{"anyOf": [A, B]}` with an open B allows a
property of A with any value beside B. Nobody means that, and to say it would leave the model without its type.)
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from urllib.parse import unquote

from midwatch.orchestration.dialects.shapes import ANY_OBJECT, Form, Shape, both, either
from midwatch.orchestration.validation.problems import pointer
from midwatch.orchestration.validation.subschemas import every_part, target, types
from midwatch.schemas.contract import JsonObject

COMPOSED = ("anyOf", "oneOf", "allOf")

MAX_SAID_CHARS = 300
"""Longest text about alternatives: it is added to a description that is sent with every call."""

_LEFT_OUT = frozenset({
    *COMPOSED, "$ref", "not", "if", "then", "else", "enum", "const", "unevaluatedProperties",
})  # fmt: skip
"""Keywords of the top level that are not sent. All of them still judge the arguments."""

_DEFINED = ("#/$defs/", "#/definitions/")


class NotOneObject(ValueError):
    """It can't be said in one object; the message says why."""


@dataclass(frozen=True)
class RootForm:
    """The schema that is sent, and the alternatives in words."""

    schema: JsonObject
    said: str


def one_object(schema: JsonObject) -> RootForm:
    """The schema without `anyOf`, `oneOf`, `allOf`, `$ref`, `not`, `if`, `enum` and `const` at its top level.

    Raises:
        NotOneObject: no object satisfies it, or it refers to a place by a name.

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
    _forget_unused(sent)
    return RootForm(sent, _bounded([_words(kind, found, shape) for kind, found in reader.choices]))


class _Reader:
    """Reads shapes of parts that judge the arguments themselves."""

    def __init__(self, root: JsonObject) -> None:
        self.root = root
        self.choices: list[tuple[str, list[Shape]]] = []
        """The alternatives of which one must be met in any case, each with its keyword."""

    def read(self, part: object, inside: tuple[str, ...]) -> Shape | None:
        """None: no object satisfies it. `inside` are the keywords and references on the way here."""
        if isinstance(part, bool):
            return ANY_OBJECT if part else None
        if not isinstance(part, dict) or not {"object", None} & set(types(part)):
            return None
        found: list[Shape | None] = [Shape.of(part)]
        if "$ref" in part:
            found.append(self._referred(part["$ref"], inside))
        found += [self.read(one, inside) for one in part.get("allOf", ())]
        for keyword in ("anyOf", "oneOf"):
            if keyword in part:
                found.append(self._chosen(keyword, part[keyword], inside))
        shapes = [shape for shape in found if shape is not None]
        return both(shapes) if len(shapes) == len(found) else None

    def _chosen(self, keyword: str, branches: list[object], inside: tuple[str, ...]) -> Shape | None:
        found = [shape for one in branches if (shape := self.read(one, (*inside, keyword))) is not None]
        if not {"anyOf", "oneOf"} & set(inside):
            self.choices.append((keyword, found))
        return either(found) if found else None

    def _referred(self, reference: str, inside: tuple[str, ...]) -> Shape | None:
        if reference in inside:
            raise NotOneObject(f"the reference {reference[:80]!r} leads back to itself")
        return self.read(target(self.root, reference), (*inside, reference))


def _with_definitions(schema: JsonObject) -> JsonObject:
    """A copy whose references lead to definitions: what stands elsewhere may not stand there afterwards."""
    copy = deepcopy(schema)
    found: dict[str, list[JsonObject]] = {}
    for _, part in every_part(copy):
        reference = part.get("$ref", "#")
        if (
            "$dynamicRef" in part
            or not isinstance(reference, str)
            or (reference != "#" and target(copy, reference) is None)
        ):
            raise NotOneObject(
                f"the reference {str(part.get('$dynamicRef', reference))[:80]!r} is none of the form #/..."
            )
        if reference != "#" and not reference.startswith(_DEFINED):
            found.setdefault(reference, []).append(part)
    moved = {reference: target(copy, reference) for reference in found}
    for reference, referring in found.items():
        definitions = copy.setdefault("$defs", {})
        name = next(name for n in count(1) if (name := f"shared-{n}") not in definitions)
        definitions[name] = moved[reference]
        for part in referring:
            part["$ref"] = f"#/$defs/{name}"
    return copy


def _forget_unused(sent: JsonObject) -> None:
    """Definitions that only alternatives referred to: every call would pay for them."""
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


def _words(keyword: str, shapes: list[Shape], whole: Shape) -> str:
    """One sentence, or nothing where the alternatives do not differ in what is to be given."""
    texts = [_given(shape, whole) for shape in shapes]
    if len(texts) < 2 or "" in texts or len(set(texts)) < len(texts):
        return ""
    return f"Give {'exactly' if keyword == 'oneOf' else 'at least'} one of: {'; '.join(texts)}."


def _given(shape: Shape, whole: Shape) -> str:
    """`kind "file" and path`: what an alternative demands beyond the rest."""
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


def _bounded(sentences: list[str]) -> str:
    said = " ".join(sentence for sentence in sentences if sentence)
    return said if len(said) <= MAX_SAID_CHARS else f"{said[: MAX_SAID_CHARS - 2].rsplit(' ', 1)[0]} …"
