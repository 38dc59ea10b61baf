"""`midwatch bench validation`: judge the calls of a file as a worker would, and say how long each took.

A case is blocked when its text is no JSON object, or when the schema refuses it. A schema that is refused where it is
declared lets no call through: the case is blocked when it was said to be invalid; else it is an error, because no
worker would ever have been asked. A line that is no case is an error, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonschema

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.workers.bench.measure import percentile

REPEATS = 3
"""Each case is timed so often and the shortest counts: the machine's other work is not the validator's."""

SLOW_NS = 20_000_000
"""A case that takes longer is timed once."""

MAX_COMPARABLE = 20_000
MAX_BASELINE_CASES = 300
MAX_BASELINE_NS = 2_000_000
MAX_BASELINE_CHARS = 50_000
"""The library alone has no bounds: what is dear for us, or large, is not tried with it."""

Ending = Literal["accepted", "blocked", "error"]


@dataclass
class _Figures:
    ended: dict[Ending, int] = field(default_factory=lambda: {"accepted": 0, "blocked": 0, "error": 0})
    took_ns: list[int] = field(default_factory=list)
    disagreements: list[int] = field(default_factory=list)
    comparable: list[tuple[JsonObject, str]] = field(default_factory=list)
    """Cases that `jsonschema.validate` can be asked about: schema and arguments."""
    validators: dict[str, JSONSchemaValidator | None] = field(default_factory=dict)
    """By the schema's text. None: refused where it is declared."""


def run(cases: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Judge every line of a JSON Lines file: `{"schema", "arguments" (the raw text), "valid"?}`.

    Returns:
        `cases` = `blocked` + `accepted` + `errors`; the time of a call, parsing and wording included, building the
        validator not; `disagreements`, the numbers of the lines (from 1) that ended otherwise than their `valid`;
        `baseline_p50_us`, what `jsonschema.validate()` needs for the same calls.

    """
    found = _Figures()
    for number, line in _lines(cases):
        _judge_line(found, number, line)
        if number % 10_000 == 0:
            say(f"{number:,} lines")
    took = sorted(found.took_ns)
    baseline = sorted(_baseline_ns(found.comparable))
    return {
        "cases": sum(found.ended.values()),
        "blocked": found.ended["blocked"],
        "accepted": found.ended["accepted"],
        "errors": found.ended["error"],
        "max_ms": round(took[-1] / 1e6, 3) if took else None,
        "p50_us": _us(took, 50),
        "p99_us": _us(took, 99),
        "disagreements": found.disagreements,
        "schemas": len(found.validators),
        "baseline_cases": len(baseline),
        "baseline_p50_us": _us(baseline, 50),
        "baseline_p99_us": _us(baseline, 99),
    }


def _lines(cases: Path) -> Iterator[tuple[int, str]]:
    try:
        with cases.open(encoding="utf-8", errors="surrogateescape") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise ConfigError(f"--cases {cases}: expected a file of JSON lines; {error.strerror}") from error


def _judge_line(found: _Figures, number: int, line: str) -> None:
    try:
        case = json.loads(line)
        schema, raw, valid = case["schema"], case["arguments"], case.get("valid")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        schema = raw = valid = None
    if not isinstance(raw, str) or valid not in (None, True, False):
        found.ended["error"] += 1
        return
    validator = _validator(found, schema)
    if validator is None:
        ending: Ending = "blocked" if valid is False else "error"
    else:
        ending = _timed(found, validator, raw)
    found.ended[ending] += 1
    if valid is not None and (ending == "accepted") is not valid:
        found.disagreements.append(number)


def _validator(found: _Figures, schema: Any) -> JSONSchemaValidator | None:
    try:
        text = json.dumps(schema)
    except RecursionError:
        return None
    if text not in found.validators:
        try:
            found.validators[text] = JSONSchemaValidator(schema)
        except ConfigError:
            found.validators[text] = None
    return found.validators[text]


def _timed(found: _Figures, validator: JSONSchemaValidator, raw: str) -> Ending:
    ending: Ending = "blocked"
    took_ns: list[int] = []
    while len(took_ns) < REPEATS and max(took_ns, default=0) < SLOW_NS:
        began = time.perf_counter_ns()
        ending = _judge(validator, raw)
        took_ns.append(time.perf_counter_ns() - began)
    found.took_ns.append(min(took_ns))
    small = min(took_ns) <= MAX_BASELINE_NS and len(raw) <= MAX_BASELINE_CHARS
    if small and len(found.comparable) < MAX_COMPARABLE:
        found.comparable.append((validator.schema, raw))
    return ending


def _judge(validator: JSONSchemaValidator, raw: str) -> Ending:
    """What a worker does with a call before it runs, the answer to the model included."""
    try:
        problems = validator.problems(parse_arguments(raw, has_required=validator.has_required))
    except InvalidArguments:
        return "blocked"
    if problems:
        explain(problems, validator.schema)
        return "blocked"
    return "accepted"


def _baseline_ns(comparable: list[tuple[JsonObject, str]]) -> Iterator[int]:
    """The plain way: decode, and `jsonschema.validate()`, for some of the same calls, evenly picked."""
    step = max(1, len(comparable) // MAX_BASELINE_CASES)
    for schema, raw in comparable[::step][:MAX_BASELINE_CASES]:
        began = time.perf_counter_ns()
        with suppress(Exception):  # an invalid call, or one that the library fails at: it took its time
            jsonschema.validate(json.loads(raw), schema)
        yield time.perf_counter_ns() - began


def _us(sorted_ns: list[int], percent: int) -> float | None:
    return round(percentile(sorted_ns, percent / 100) / 1e3, 1) if sorted_ns else None
