"""`midwatch bench validation`: validate the calls of a file as a worker does, and measure the time of each.

A case is blocked if its text is not a JSON object, or if the schema refuses it. Some schemas are already refused at
declaration, so no worker could get such a call. Then the case is blocked if it is marked invalid, and an error otherwise. A
line that is not a case is also an error. Refused schemas and wrong verdicts are counted apart: a refusal has a documented
reason, and a wrong verdict is a defect.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonschema

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.arguments import InvalidArguments, parse_arguments
from midwatch.orchestration.validation.problems import explain
from midwatch.orchestration.validation.schema_refused import SchemaRefused
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.workers.bench.measure import percentile
from midwatch.workers.bench.standard_suite import read_suite

REPEATS = 3
"""Each case is timed this often, and the shortest time counts. So other work of the machine has less influence."""

SLOW_NS = 20_000_000
"""A case that takes longer is timed only once."""

MAX_COMPARABLE = 20_000
MAX_BASELINE_CASES = 300
MAX_BASELINE_NS = 2_000_000
MAX_BASELINE_CHARS = 50_000
"""Bounds for the baseline. `jsonschema` alone has no bounds, so large or expensive cases are not tried with it."""

Ending = Literal["accepted", "blocked", "error"]


@dataclass
class _Figures:
    ended: dict[Ending, int] = field(default_factory=lambda: {"accepted": 0, "blocked": 0, "error": 0})
    took_ns: list[int] = field(default_factory=list)
    disagreements: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """Cases whose schema is refused at declaration, by reason."""
    comparable: list[tuple[JsonObject, str]] = field(default_factory=list)
    """Schema and arguments of the cases for the baseline."""
    validators: dict[str, JSONSchemaValidator | str] = field(default_factory=dict)
    """Schema's text -> its validator, or the reason why the schema is refused at declaration."""


def run(cases: Path | None, say: Callable[[str], None], suites: Iterable[Path] = ()) -> dict[str, Any]:
    """Validate every line of a JSON Lines file: `{"schema", "arguments" (the raw text), "valid"?}`.

    Args:
        cases: the file.
        say: gets a line of progress now and then.
        suites: folders or files of the JSON Schema Test Suite, whose tests follow the lines of the file.

    Returns:
        `cases` is `blocked` + `accepted` + `errors`. `p50_us`, `p99_us` and `max_ms` are the time of a call, with parsing
        and explaining, without building the validator. `disagreements` are the numbers of the lines (from 1) whose result
        differs from their `valid`. `refused` counts the cases whose schema is refused at declaration, and `refusals` has
        their reasons. `wrong_verdicts` are the lines whose schema is accepted, and whose result differs from their `valid`.
        `baseline_p50_us` is the time of `jsonschema.validate()` for the same calls.

    """
    suites = tuple(suites)
    if cases is None and not suites:
        raise ConfigError("bench validation: expected --cases FILE, --suite PATH, or both")
    found = _Figures()
    for number, line in enumerate(_read_all(cases, suites), 1):
        if not line.strip():
            continue
        _judge_line(found, number, line)
        if number % 10_000 == 0:
            say(f"{number:,} lines")
    took = sorted(found.took_ns)
    baseline = sorted(_measure_baseline(found.comparable))
    return {
        "cases": sum(found.ended.values()),
        "blocked": found.ended["blocked"],
        "accepted": found.ended["accepted"],
        "errors": found.ended["error"],
        "max_ms": round(took[-1] / 1e6, 3) if took else None,
        "p50_us": _us(took, 50),
        "p99_us": _us(took, 99),
        "disagreements": found.disagreements,
        "refused": found.refusals.total(),
        "refusals": dict(found.refusals.most_common()),
        "wrong_verdicts": found.wrong,
        "schemas": len(found.validators),
        "baseline_cases": len(baseline),
        "baseline_p50_us": _us(baseline, 50),
        "baseline_p99_us": _us(baseline, 99),
    }


def _read_all(cases: Path | None, suites: Iterable[Path]) -> Iterator[str]:
    if cases is not None:
        yield from _read_lines(cases)
    for suite in suites:
        yield from (json.dumps(case._asdict()) for case in read_suite(suite))


def _read_lines(cases: Path) -> Iterator[str]:
    try:
        with cases.open(encoding="utf-8", errors="surrogateescape") as lines:
            yield from lines
    except OSError as error:
        raise ConfigError(f"--cases {cases}: expected a JSON Lines file; {error.strerror}") from error


def _judge_line(found: _Figures, number: int, line: str) -> None:
    try:
        case = json.loads(line)
        schema, raw, valid = case["schema"], case["arguments"], case.get("valid")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        schema = raw = valid = None
    if not isinstance(raw, str) or valid not in (None, True, False):
        found.ended["error"] += 1
        return
    validator = _get_validator(found, schema)
    if isinstance(validator, str):
        found.refusals[validator] += 1
        ending: Ending = "blocked" if valid is False else "error"
    else:
        ending = _time_case(found, validator, raw)
    found.ended[ending] += 1
    if valid is not None and (ending == "accepted") is not valid:
        found.disagreements.append(number)
        if not isinstance(validator, str):
            found.wrong.append(number)


def _get_validator(found: _Figures, schema: Any) -> JSONSchemaValidator | str:
    try:
        text = json.dumps(schema)
    except RecursionError:
        return "size"
    if text not in found.validators:
        try:
            found.validators[text] = JSONSchemaValidator(schema)
        except SchemaRefused as refused:
            found.validators[text] = refused.reason
    return found.validators[text]


def _time_case(found: _Figures, validator: JSONSchemaValidator, raw: str) -> Ending:
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
    """Validate a call as a worker does before it runs, with the explanation for the model."""
    try:
        problems = validator.problems(parse_arguments(raw, has_required=validator.has_required))
    except InvalidArguments:
        return "blocked"
    if problems:
        explain(problems, validator.schema)
        return "blocked"
    return "accepted"


def _measure_baseline(comparable: list[tuple[JsonObject, str]]) -> Iterator[int]:
    """Time `json.loads` and `jsonschema.validate()` for an even sample of the same calls."""
    step = max(1, len(comparable) // MAX_BASELINE_CASES)
    for schema, raw in comparable[::step][:MAX_BASELINE_CASES]:
        began = time.perf_counter_ns()
        with suppress(Exception):  # an invalid call, or an error of the library, still took its time
            jsonschema.validate(json.loads(raw), schema)
        yield time.perf_counter_ns() - began


def _us(sorted_ns: list[int], percent: int) -> float | None:
    return round(percentile(sorted_ns, percent / 100) / 1e3, 1) if sorted_ns else None
