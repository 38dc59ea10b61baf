"""JSONSchemaValidator: validates the arguments of a tool's calls. A tool runs only on input that passed.

The schema is checked and the validator is built once, when the schema is declared. `jsonschema.validate()` on every call would
cost 30 times as much (measured: 3 to 6 ms instead of 0.1 ms).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain, islice
from typing import Any

from referencing import Registry

from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.effort import EffortExceeded
from midwatch.orchestration.validation.formats import FORMATS
from midwatch.orchestration.validation.problems import MAX_PROBLEMS, Problem, from_error, pointer, show
from midwatch.orchestration.validation.schema_check import check_and_copy
from midwatch.schemas.contract import MAX_DEPTH, JsonObject

MAX_ERRORS = 100
"""Most errors that are read to find ten problems. A list of a million wrong items has a million errors."""

MAX_FOUND = 3 * MAX_PROBLEMS
"""Most problems that are described, since a hint searches through all names."""

MAX_VALUES = 50_000
"""Most items and properties of one call. The largest recorded call has 24 KB of text."""


class JSONSchemaValidator:
    """Validates a tool's arguments against a JSON Schema: 2020-12, or draft-07 if `$schema` names it.

    `format` is checked. Nothing outside the schema is fetched or read.

    Args:
        schema: A JSON Schema whose top level is an object. Without `type` it counts as one.

    Raises:
        SchemaRefused: the schema is invalid, too large or too deep, refers outside of itself, or has a pattern of
            exponential time. The message names the first problem.

    """

    def __init__(self, schema: JsonObject) -> None:
        self.schema, applied, draft = check_and_copy(schema)
        """A copy of the declared schema. Don't change it; make another validator instead."""
        own = deepcopy(applied)
        own.pop("$schema", None)  # with it, a `$ref` to "#" would use the library's own validator class
        self._validator: Any = draft(own, registry=Registry(), format_checker=FORMATS)
        self.has_required = bool(self.problems({}))
        """True if the schema refuses `{}`. Then an empty text is not accepted as arguments."""

    def __repr__(self) -> str:
        return f"JSONSchemaValidator({', '.join(self.schema.get('properties', {})) or 'no properties'})"

    def problems(self, arguments: object) -> tuple[Problem, ...]:
        """At most ten problems, sorted by place. Empty if the arguments satisfy the schema.

        Never raises: arguments that can't be validated are refused.
        """
        unfit = tuple(islice(_find_non_json(arguments), MAX_PROBLEMS))
        if unfit:
            return unfit
        if not isinstance(arguments, dict):
            return (Problem("", "object", show(arguments), "type"),)
        found: set[Problem] = set()
        try:
            errors = self._validator.evolve(format_checker=EffortBudget()).iter_errors(arguments)
            for problem in islice(chain.from_iterable(map(from_error, islice(errors, MAX_ERRORS))), MAX_FOUND):
                found.add(problem)
        except Exception as error:
            # For example RecursionError of a recursive schema, OverflowError of a format. In any case the tool must not run.
            found = found or {_problem_of(arguments, error)}
        return tuple(sorted(found)[:MAX_PROBLEMS])


def _problem_of(arguments: object, error: Exception) -> Problem:
    if isinstance(error, EffortExceeded):
        return Problem("", "less in one call: validating this takes too long", show(arguments), "size")
    return Problem("", "a value that the schema can validate", f"{show(arguments)} ({type(error).__name__})", "schema")


def _find_non_json(arguments: object) -> Iterator[Problem]:
    """Problems of values that are not JSON, too many or too deep. Without recursion, since the depth is not known yet."""
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
            yield Problem(pointer(path), "a finite number", json.dumps(value), "type")
        elif isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            yield Problem(pointer(path), "a number below 1e300", f"one of {value.bit_length()} bits", "type")
        elif not isinstance(value, (str, int, float, type(None))):
            yield Problem(pointer(path), "a JSON value", type(value).__name__, "type")


_PLAIN = frozenset((str, bool, type(None)))
"""Types that need no check."""

MAX_NUMBER_BITS = 1_000
"""A longer whole number does not fit a float, and comparing it raises."""
