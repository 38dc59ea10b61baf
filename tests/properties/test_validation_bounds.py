"""Validating any call takes at most 250 milliseconds of work, and opens no file or connection."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch import tool
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.toolbox import CheckedCall, Toolbox
from midwatch.orchestration.validation.arguments import parse_arguments
from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.effort import MAX_EFFORT, EffortExceeded
from midwatch.orchestration.validation.formats import NAMES
from midwatch.orchestration.validation.patterns import compile_pattern
from midwatch.orchestration.validation.problems import explain
from midwatch.schemas.message import ToolCall
from midwatch.validators import InvalidArguments, JSONSchemaValidator

MAX_S = 0.25
KNOWN_WORK_S = 0.05
"""Seconds for a million remainders on the machine on which MAX_S was set."""
OPENED: list[str] = []
_watching = False


def _watch(event: str, _arguments: tuple[object, ...]) -> None:
    if _watching and (event == "open" or event.partition(".")[0] in ("socket", "subprocess", "os", "urllib")):
        OPENED.append(event)


sys.addaudithook(_watch)


def validate_timed(schema: dict[str, Any], raw: str) -> tuple[str, float]:
    """Return the message to the model ('' if the call may run) and the seconds of work. Opening anything fails the test."""
    global _watching
    validator = JSONSchemaValidator(schema)
    OPENED.clear()
    _watching = True
    began = time.thread_time()
    try:
        problems = validator.problems(parse_arguments(raw, has_required=True))
        said = explain(problems, validator.schema) if problems else ""
    except InvalidArguments as error:
        said = str(error)
    finally:
        took = time.thread_time() - began
        _watching = False
    assert not OPENED
    return said, took


def slowness() -> float:
    """Return how many times slower this machine is now than the one on which MAX_S was set."""
    began = time.thread_time()
    sum(n % 7 for n in range(1_000_000))
    return max(1.0, (time.thread_time() - began) / KNOWN_WORK_S)


def of(part: object, **more: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": part}, **more}


def x(value: object) -> str:
    return json.dumps({"x": value}, separators=(",", ":"))


def many(count: int, name: str = "property") -> dict[str, Any]:
    return {f"{name}_{n:05}": {"type": "string"} for n in range(count)}


PRIME = 2**61 - 1
"""Numbers that differ by this have the same hash."""
BLOCKS = [{"type": "object", "properties": {"k": {"const": n}}, "required": ["k"]} for n in range(20)]
TREE = {"uniqueItems": True, "items": {"$ref": "#/$defs/tree"}}


def nest(depth: int, leaf: object) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


BOMBS: dict[str, tuple[dict[str, Any], Callable[[], str]]] = {
    "5,000 unique objects": (of({"uniqueItems": True}), lambda: x([{"a": n} for n in range(5_000)])),
    "numbers of one hash": (of({"uniqueItems": True}), lambda: x([n * PRIME + 1 for n in range(15_000)])),
    "unique all the way down": (of(TREE, **{"$defs": {"tree": TREE}}), lambda: x(nest(60, list(range(40_000))))),
    "990 levels": (of({}), lambda: '{"x":' + "[" * 990 + "]" * 990 + "}"),
    "990 objects, cut off": (of({}), lambda: '{"x":' * 990),
    "NaN below a minimum": (of({"minimum": 0, "maximum": 1}), lambda: '{"x":NaN}'),
    "a number of 5,000 digits": (of({"type": "integer"}), lambda: '{"x":' + "9" * 5_000 + "}"),
    "1e400": (of({"type": "number"}), lambda: '{"x":1e400}'),
    "300,000 numbers": (of({"items": {"type": "integer", "minimum": 0}}), lambda: x([1] * 300_000)),
    "49,000 numbers": (of({"items": {"type": "integer", "minimum": 0}}), lambda: x([1] * 49_000)),
    "49,000 wrong numbers": (of({"items": {"type": "string"}}), lambda: x([1] * 49_000)),
    "49,000 of anything": (of({"items": {}}), lambda: x([1] * 49_000)),
    "300,000 objects": (of({"items": {"properties": many(3_000)}}), lambda: x([{}] * 300_000)),
    "49,000 objects": (of({"items": {"properties": many(3_000)}}), lambda: x([{}] * 49_000)),
    "4,000 names twice": (of({}), lambda: "{" + ",".join(f'"k{n}":1' for n in range(40_000)) + ',"z":1,"z":2}'),
    "digits looked for in digits": (of({"pattern": r"\d+$"}), lambda: x("1" * 900_000 + "x")),
    "digits as long as they may be": (of({"pattern": r"\d+$"}), lambda: x("1" * 3_900 + "x")),
    "exponential": (of({"pattern": r"^(a+)+$"}), lambda: x("a" * 100_000 + "!")),
    "exponential, 1,000 times": (of({"items": {"pattern": r"^(a|aa)+$"}}), lambda: x(["a" * 300 + "!"] * 1_000)),
    "states that double": (of({"pattern": r"1[01]{200}x"}), lambda: x("01" * 100_000)),
    "states that double, 100 times": (of({"items": {"pattern": r"1[01]{100}x"}}), lambda: x(["0110" * 500] * 100)),
    "looks ahead at each place": (of({"pattern": r"(?=.*x)y"}), lambda: x("a" * 100_000)),
    "looks ahead in a loop": (of({"pattern": r"^(?:(?=.*a).)*$"}), lambda: x("a" * 3_000)),
    "looks ahead in two loops": (of({"pattern": r"^(?:(?=(?:(?=.*a).)*).)*$"}), lambda: x("a" * 3_000)),
    "looks ahead a million times": (of({"pattern": r"(?:(?:(?=a)|b){0,1000}){0,9}c"}), lambda: x("a" * 1_000)),
    "looks behind": (of({"pattern": r"(?<!x)a+b"}), lambda: x("a" * 100_000)),
    "refers back": (of({"pattern": r"(a*)\1b"}), lambda: x("a" * 100_000)),
    "refers back, 1,000 times": (of({"items": {"pattern": r"^(a|a)*\1?$"}}), lambda: x(["a" * 45 + "!"] * 1_000)),
    "names that look ahead": (
        {"type": "object", "patternProperties": {r"^(?!.*xx).*z": {}}, "additionalProperties": False},
        lambda: json.dumps({f"{n}" + "y" * 50: 0 for n in range(10_000)}),
    ),
    "letters of all languages": (of({"items": {"pattern": r"^\p{L}+$"}}), lambda: x(["é" * 3_000] * 15)),
    "cubic": (of({"pattern": r"^.*.*.*x$"}), lambda: x("1" * 240)),
    "cubic, 1,000 times": (of({"items": {"pattern": r"^.*.*.*x$"}}), lambda: x(["1" * 240] * 1_000)),
    "a megabyte of words": (of({"pattern": r"^[a-z]+(-[a-z]+)*$"}), lambda: x("a-" * 450_000)),
    "near misses of 3,000 names": (
        of({"items": {"type": "object", "properties": many(3_000), "additionalProperties": False}}),
        lambda: x([{f"propertie_{n}{m}": 1 for n in range(10)} for m in range(100)]),
    ),
    "near misses of 9,000 choices": (
        of({"items": {"enum": [f"choice{n:05}" for n in range(9_000)]}}), lambda: x([f"choic{n}" for n in range(900)]),
    ),
    "200 branches refuse a megabyte": (
        of({"anyOf": [{"type": "string", "title": str(n)} for n in range(200)]}), lambda: x(["y" * 20] * 40_000),
    ),
    "20,000 blocks of 20 kinds": (of({"items": {"oneOf": BLOCKS}}), lambda: x([{"k": n % 25} for n in range(20_000)])),
    "a pattern of 100,000 characters": (of({"format": "regex"}), lambda: x("(a|b)" * 20_000)),
    "a name of 900,000 characters": (
        {"type": "object", "properties": many(90), "additionalProperties": False}, lambda: json.dumps({"y" * 900_000: 1}),
    ),
    "49,000 names, none known": (
        {"type": "object", "properties": many(3_000), "additionalProperties": False},
        lambda: json.dumps({f"k{n}": 0 for n in range(49_000)}),
    ),
    "49,000 names, 100 patterns": (
        {"type": "object", "patternProperties": {f"^k{n}": {} for n in range(100)}},
        lambda: json.dumps({f"k{n}": 0 for n in range(49_000)}),
    ),
    "49,000 fractions": (of({"items": {"multipleOf": 0.01}}), lambda: x([1.5] * 49_000)),
    "unevaluated": (
        {"type": "object", "allOf": [{"properties": many(300)}] * 5, "unevaluatedProperties": False},
        lambda: json.dumps({f"k{n}": 0 for n in range(20_000)}),
    ),
    "e-mail": (of({"format": "email"}), lambda: x("a." * 400_000 + "@")),
    "address": (of({"format": "uri"}), lambda: x("a:" + "%41" * 300_000 + " ")),
    **{
        f"{name}, {unit!r} repeated": (of({"format": name}), lambda unit=unit: x(unit * (900_000 // len(unit))))  # type: ignore[misc]
        for name in NAMES
        for unit in ("a.", "1:", "%41", "{a}", "P1Y")
    },
    "a regex of classes": (of({"items": {"format": "regex"}}), lambda: x([r"\p{L}{1,50}" * 20] * 100)),
}  # fmt: skip
"""Each of these once took more than a quarter of a second, or passed, or raised."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_call_is_validated_within_bounds(name: str) -> None:
    """Any result comes within a quarter of a second and has a few thousand characters."""
    schema, raw = BOMBS[name]
    said, took = validate_timed(schema, raw())
    if took > MAX_S:  # a garbage collection may have run meanwhile, so measure again
        said, took = validate_timed(schema, raw())
    assert took < MAX_S or took < MAX_S * slowness()
    assert len(said) < 10_000


def test_a_hostile_schema_is_refused_at_declaration() -> None:
    """This covers patterns without a bound, patterns of another language, and remote references. Nothing is fetched."""
    global _watching
    for part in (
        {"pattern": r"(?:(?:(?:(?=a)|b){0,1000}){0,1000}){0,1000}c"},
        {"pattern": "["},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "file:///x"},
    ):
        OPENED.clear()
        _watching = True
        try:
            with pytest.raises(ConfigError, match=r"^schema"):
                JSONSchemaValidator(of(part))
        finally:
            _watching = False
        assert not OPENED


WORDS = st.text(alphabet="ab1-.@ é", max_size=6)
PATTERNS = st.sampled_from(
    [r"\d+$", r"^[a-z]+(-[a-z]+)*$", r"\S+@\S+\.\S+", r"a.*b.*c", r"^(?!.*11).*$", r"(\w+\s?){1,40}$"]
)
LEAVES = st.one_of(
    st.sampled_from(["string", "integer", "object", "array"]).map(lambda kind: {"type": kind}),
    PATTERNS.filter(lambda pattern: _accepted(pattern)).map(lambda pattern: {"pattern": pattern}),
    st.sampled_from(["date-time", "email", "uri", "uuid", "regex", "ipv6"]).map(lambda name: {"format": name}),
    st.lists(WORDS, min_size=1, max_size=5).map(lambda words: {"enum": [word * 50 for word in words]}),
    st.just({"uniqueItems": True}),
    st.just({"multipleOf": 0.001}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda one: {"items": one}),
        st.lists(inner, min_size=1, max_size=6).map(lambda some: {"anyOf": some}),
        st.lists(inner, min_size=1, max_size=6).map(lambda some: {"oneOf": some}),
        inner.map(lambda one: {"not": one}),
        inner.map(lambda one: {"additionalProperties": one, "patternProperties": {"^a": one}}),
        inner.map(lambda one: {"contains": one, "uniqueItems": True, "unevaluatedItems": False}),
    ),
    max_leaves=8,
)
SEEDS = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def _accepted(pattern: str) -> bool:
    try:
        JSONSchemaValidator(of({"pattern": pattern}))
    except ConfigError:
        return False
    return True


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(part=SCHEMAS, seed=SEEDS, times=st.sampled_from([1, 50, 3_000, 40_000]), as_text=st.booleans())
def test_no_schema_with_any_arguments_exceeds_the_bound(
    part: dict[str, Any], seed: Any, times: int, as_text: bool
) -> None:
    """Nested unions, patterns and uniqueness, with thousands of copies of a value or a text of that length."""
    raw = x(json.dumps(seed) * times if as_text else [seed] * times)
    _, took = validate_timed(of(part), raw)
    assert took < MAX_S


@settings(max_examples=60, deadline=None)
@given(part=SCHEMAS, seed=SEEDS, times=st.sampled_from([1, 20, 3_000]))
def test_an_accepted_call_is_valid_for_the_library(part: dict[str, Any], seed: Any, times: int) -> None:
    """A call that exceeds its budget is refused. A call that passes would pass without a budget, too."""
    validator = JSONSchemaValidator(of(part))

    @tool("probe", "A probe.", validator)
    def probe(**arguments: Any) -> str:
        return "ran"

    found = Toolbox([probe]).check(ToolCall(id="1", name="probe", raw_arguments=x([seed] * times)))
    if isinstance(found, CheckedCall) and times < 100:
        assert validator._validator.is_valid(found.arguments)


@pytest.mark.parametrize("pattern", [r"^[a-z0-9]+(-[a-z0-9]+)*$", r"^\d{4}-\d+-\d+$", r"^(/[^/]+)+$", r"^.*.*$"])
def test_a_linear_pattern_matches_long_texts(pattern: str) -> None:
    """A slug of 50,000 characters is within the budget of a call."""
    assert compile_pattern(pattern).price(50_000) < MAX_EFFORT


def test_the_budget_is_counted_so_results_are_equal() -> None:
    """It does not use the clock, so slow and fast machines refuse the same calls."""
    effort = EffortBudget()
    effort.spend(MAX_EFFORT)
    with pytest.raises(EffortExceeded):
        effort.spend(1)
    said, _ = validate_timed(of({"items": {"pattern": r"^.*.*x$"}}), x(["1" * 900 + "x"] * 400))
    assert said.startswith("the arguments: expected less in one call: validating this takes too long")
