"""JSONSchemaValidator: no tool runs on input that did not pass it.

Checked once, where the schema is declared, and built once: `jsonschema.validate()` on every call costs 30 times as much
(measured: 3-6 ms against 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain, islice
from typing import Any

from referencing import Registry

from midwatch.orchestration.validation.cost import Effort, TooMuchEffort
from midwatch.orchestration.validation.formats import FORMATS
from midwatch.orchestration.validation.problems import MAX_PROBLEMS, Problem, from_error, pointer, show
from midwatch.orchestration.validation.schema_check import checked_copy
from midwatch.schemas.contract import MAX_DEPTH, JsonObject

MAX_ERRORS = 100
"""How many errors are looked at to find ten problems: a list of a million wrong items has a million."""

MAX_FOUND = 3 * MAX_PROBLEMS
"""How many problems are put into words: a hint looks through every name there is."""

MAX_VALUES = 50_000
"""Most items and properties that are looked at. The largest recorded call is 24 KB of text."""


class JSONSchemaValidator:
    """Validates a tool's arguments against a JSON Schema: 2020-12, or draft-07 when `$schema` says so.

    `format` is asserted. Nothing outside the schema is ever fetched or read.

    Args:
        schema: A JSON Schema whose top level is an object.

    Raises:
        ConfigError: the schema is invalid, too large or too deep, refers outside itself, or has a pattern that could
            stop a worker. One finding.

    """

    def __init__(self, schema: JsonObject) -> None:
        self.schema, dialect = checked_copy(schema)
        """The schema as it was declared: a copy. Don't change it, make another validator."""
        own = deepcopy(self.schema)
        own.pop("$schema", None)  # with it, a `$ref` to "#" would fall back to the library's own class of the dialect
        self._validator: Any = dialect(own, registry=Registry(), format_checker=FORMATS)
        self.has_required = bool(self.problems({}))
        """`{}` is not enough: an empty text can't stand for the arguments."""

    def __repr__(self) -> str:
        return f"JSONSchemaValidator({', '.join(self.schema.get('properties', {})) or 'no properties'})"

    def problems(self, arguments: object) -> tuple[Problem, ...]:
        """What is wrong, by place, at most ten. Empty: the arguments satisfy the schema.

        Never raises: what can't be judged is refused.
        """
        unfit = tuple(islice(_unfit(arguments), MAX_PROBLEMS))
        if unfit:
            return unfit
        found: set[Problem] = set()
        try:
            errors = self._validator.evolve(format_checker=Effort()).iter_errors(arguments)
            for problem in islice(chain.from_iterable(map(from_error, islice(errors, MAX_ERRORS))), MAX_FOUND):
                found.add(problem)
        except Exception as error:
            # RecursionError of a recursive schema, OverflowError of a format: whatever it is, the tool must not run.
            found = found or {_unjudged(arguments, error)}
        return tuple(sorted(found)[:MAX_PROBLEMS])


def _unjudged(arguments: object, error: Exception) -> Problem:
    if isinstance(error, TooMuchEffort):
        return Problem("", "less in one call: judging this by the schema takes too long", show(arguments), "size")
    return Problem("", "a value that the schema can judge", f"{show(arguments)} ({type(error).__name__})", "schema")


def _unfit(arguments: object) -> Iterator[Problem]:
    """What is not JSON at all, or too much of it. Without recursion: too deep must not be found by falling in."""
    todo: list[tuple[tuple[object, ...], object]] = [((), arguments)]
    left = MAX_VALUES
    while todo:
        path, value = todo.pop()
        if isinstance(value, (dict, list)):
            left -= len(value)
            if left < 0:
                yield Problem("", f"at most {MAX_VALUES:,} values in one call", "more", "size")
                return
            if len(path) >= MAX_DEPTH:
                yield Problem(pointer(path), f"at most {MAX_DEPTH} levels of nesting", "more", "depth")
            elif isinstance(value, list):
                todo.extend(((*path, index), item) for index, item in enumerate(value) if type(item) not in _PLAIN)
            else:
                todo.extend(((*path, key), item) for key, item in value.items() if type(item) not in _PLAIN)
                yield from (
                    Problem(pointer(path), "names that are strings", show(str(key)), "type")
                    for key in value
                    if not isinstance(key, str)
                )
        elif isinstance(value, float) and not math.isfinite(value):
            yield Problem(pointer(path), "a finite number", str(value), "type")
        elif isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            yield Problem(pointer(path), "a number below 1e300", f"one of {value.bit_length()} bits", "type")
        elif not isinstance(value, (str, int, float, type(None))):
            yield Problem(pointer(path), "a JSON value", type(value).__name__, "type")


_PLAIN = frozenset((str, bool, type(None)))
"""Types with nothing to be checked."""

MAX_NUMBER_BITS = 1_000
"""Beyond it a whole number has no float, and comparing it raises."""
