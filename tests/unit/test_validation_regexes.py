"""Patterns follow ECMA-262 and are matched in bounded time. The price of a pattern that backtracks depends on its
shape."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.orchestration.validation.effort import MAX_EFFORT, EffortExceeded
from midwatch.orchestration.validation.pattern_shape import read_shape
from midwatch.orchestration.validation.patterns import BACKTRACKS, BadPattern, Pattern, compile_pattern
from midwatch.validators import JSONSchemaValidator, SchemaRefused

EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
"""The pattern that a well-known schema library writes for an address. It looks ahead."""

ONCE_EXPONENTIAL = [
    r"^(a+)+$",
    r"^(a*)*$",
    r"(a|a)*b",
    r"(a|aa)+$",
    r"(\w+\s?)*$",
    r"^(\s*\w+)*$",
    r"(x+x+)+y",
    r"(.*a){12}",
    r"(a{2,}){5,}",
    r"^(\d+)*[.]$",
    r'(?:[^"\\]+|\\.)*"',
    r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
]
"""A backtracking engine needs exponential time for these."""

USUAL = [
    "",
    ".*",
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
    r"^[\w.-]+@[\w-]+(\.[\w-]+)+$",
    r"^\d{4}-\d{2}-\d{2}$",
    r"^#W\d{7}$",
    r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    r"^\p{L}[\p{L}\p{N} .'-]*$",
    r"^{{\w+}}$",
    r"^(?P<year>\d+)$",
    r"(?i)^abc$",
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$",
    "^(" + "|".join(f"word{number}" for number in range(500)) + ")$",
]
LOOKING = [
    (EMAIL, "someone@example.com", "someone..x@example.com"),
    (r"^(?=.*[A-Z])(?=.*\d).{8,}$", "Passw0rdPassw0rd", "password"),
    (r"^(?:(?!ab).)*$", "ba" + "cba" * 5, "xxab"),
    (r"^(a+)-\1$", "aaa-aaa", "aaa-aa"),
    (r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$", "10.0.255.1", "10.0.256.1"),
    (
        r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$",
        "P1Y2DT3H",
        "P1W2D",
    ),
    (r"(?<=\d)x", "ab3x", "abx"),
]


def never(_units: int) -> None:
    raise AssertionError("a usual match needs no higher limit")


def free(_units: int) -> None:
    pass


@pytest.mark.parametrize("pattern", ONCE_EXPONENTIAL, ids=lambda value: value[:24])
def test_a_pattern_of_nested_loops_is_matched_in_linear_time(pattern: str) -> None:
    """`^(a+)+$` and 29 characters stopped a worker for 37 seconds. Now 3,000 take less than a millisecond."""
    made = Pattern(pattern)
    assert made.is_linear
    for unit in ("a", "1", "x", "a "):
        began = time.thread_time()
        made.matches(unit * 3_000 + "\n!", never)
        assert time.thread_time() - began < 0.2
    assert made.price(3_000) <= MAX_EFFORT


@pytest.mark.parametrize("pattern", USUAL, ids=lambda value: value[:24])
def test_a_usual_pattern_is_linear_and_cheap(pattern: str) -> None:
    """Fifty characters cost a small part of a call's budget."""
    assert Pattern(pattern).is_linear
    assert Pattern(pattern).price(50) <= MAX_EFFORT // 80


@pytest.mark.parametrize(("pattern", "good", "bad"), LOOKING, ids=lambda value: value[:24])
def test_lookarounds_and_references_are_served(pattern: str, good: str, bad: str) -> None:
    """They are in real schemas. They backtrack, and a usual text needs few of the units."""
    made = Pattern(pattern)
    assert not made.is_linear
    assert made.price(len(good)) < MAX_EFFORT // 10
    assert made.matches(good, free)
    assert not made.matches(bad, free)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^\d$", "٣", False),
        (r"^\w$", "é", False),
        (r"^\p{L}$", "é", True),
        (r"^\p{Letter}+$", "été", True),
        (r"^\s$", "\ufeff", True),
        (r"^a$", "a\n", False),
        (r"^\S$", "\u2003", False),
        (r"^\cA$", "\x01", True),
        (r"^\0$", "\0", True),
        (r"^{a}$", "{a}", True),
        (r"^a{,2}$", "a{,2}", True),
        (r"^[\d-]+$", "1-2", True),
        (r"^.$", "😀", True),
    ],
)
def test_patterns_follow_ecma_262(pattern: str, text: str, found: bool) -> None:
    """The standard recommends this dialect. `re` reads Arabic digits as `\\d`, and knows no `\\p`."""
    assert Pattern(pattern).matches(text, never) is found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not a regular expression of ECMA-262"),
        (r"^\Z", "not a regular expression of ECMA-262"),
        ("a{99999999999999999999}", "not a regular expression of ECMA-262"),
        ("(?=(?=a))*", "not a regular expression of ECMA-262"),
        ("(" * 5_000 + ")" * 5_000, "not a regular expression of ECMA-262"),
        (r"(\p{L}{10}x)", "too large: over 262,144 bytes"),
        ("a" * 10_001, "10,001 characters, at most 10,000"),
        (r"(?:(?:(?:(?=a)|b){0,1000}){0,1000}){0,1000}c", "make any match too expensive"),
    ],
    ids=lambda value: value[:24],
)
def test_a_pattern_that_can_not_be_used_is_refused(pattern: str, why: str) -> None:
    """An invalid or too expensive pattern gives a reason at declaration."""
    with pytest.raises(BadPattern) as refused:
        Pattern(pattern)
    assert why in str(refused.value)
    with pytest.raises(SchemaRefused) as unusable:
        JSONSchemaValidator({"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}})
    assert unusable.value.reason == "pattern"


@pytest.mark.parametrize("pattern", [r"^(a|a)*\1?$", r"(a*)\1b", r"^(?=(a+)+\1$)b"])
def test_a_match_that_backtracks_for_long_exceeds_its_budget(pattern: str) -> None:
    """The limit on backtracks grows, and each higher limit is paid. Then the call is refused, not the worker stopped."""
    left = MAX_EFFORT

    def spend(units: int) -> None:
        nonlocal left
        left -= units
        if left < 0:
            raise EffortExceeded

    began = time.thread_time()
    with pytest.raises(EffortExceeded):
        compile_pattern(pattern).matches("a" * 2_000 + "!", spend)
    assert time.thread_time() - began < 0.5
    (problem,) = JSONSchemaValidator({"properties": {"x": {"pattern": pattern}}}).problems({"x": "a" * 2_000 + "!"})
    assert problem.keyword == "size"


@pytest.mark.parametrize(
    ("pattern", "hard", "least"),
    [
        (r"a+b", (), 1),
        (r"^(?=ab)c", ((2, ()),), 1),
        (r"^(?:(?!ab).)*$", ((2, (None,)),), 1),
        (r"(?:(?:(?=a|bcd)x){0,9}){3}", ((3, (9, 3)),), 3),
        (r"(?<!x*)y", ((None, ()),), 1),
        (r"(a)\1{2}", ((None, (2,)),), 2),
        (r"[(?=a)](\(?=)", (), 1),
        (r"(?<name>a)(?i:b)\k<name>", ((None, ()),), 1),
        (r"((x{5}){6})(?=y)", ((1, ()),), 30),
    ],
)
def test_a_shape_holds_what_is_repeated(pattern: str, hard: Any, least: int) -> None:
    """Each lookaround and reference has its width, and the counts of the repetitions around it."""
    shape = read_shape(pattern)
    assert (shape.hard, shape.least) == (hard, least)
    assert shape.text == pattern


@settings(max_examples=400, deadline=None)
@given(
    pattern=st.text(alphabet="ab()[]|*+?{}0123,\\^$.-:<>=!pLk", max_size=24),
    text=st.sampled_from(["a" * 40, "ab" * 500 + "!", "0-1" * 30, ""]),
)
def test_any_pattern_is_refused_or_matched_in_bounded_time(pattern: str, text: str) -> None:
    """A match takes no longer than its price allows, for any pattern."""
    try:
        made = Pattern(pattern)
    except BadPattern:
        return
    assert made.price(len(text)) >= 0
    began = time.thread_time()
    with suppress(EffortExceeded):
        made.matches(text, _stop_at_the_budget())
    assert time.thread_time() - began < 0.5


def _stop_at_the_budget() -> Any:
    paid = [0]

    def spend(units: int) -> None:
        paid[0] += units
        if paid[0] > MAX_EFFORT:
            raise EffortExceeded

    return spend


def test_a_schema_with_too_many_large_patterns_is_refused() -> None:
    """3,000 patterns with letters of all languages took 13 seconds to compile. The same pattern counts once."""
    large = {f"p{n}": {"pattern": rf"\p{{L}}\p{{N}}{n}"} for n in range(200)}
    with pytest.raises(SchemaRefused, match="its patterns have over 8,000,000 bytes when compiled") as refused:
        JSONSchemaValidator({"properties": large})
    assert refused.value.reason == "size"
    JSONSchemaValidator({"properties": {f"p{n}": {"pattern": r"\p{L}"} for n in range(1_000)}})
    JSONSchemaValidator({"properties": {f"p{n}": {"pattern": f"^[a-z]+-{n}$"} for n in range(200)}})


@pytest.mark.process
def test_the_engine_is_loaded_only_for_a_pattern_or_a_format() -> None:
    """It takes 35 ms and 9 MB. Most producers declare neither."""
    program = """if True:
        import sys
        from midwatch import Agent, tool
        from midwatch.validators import JSONSchemaValidator

        @tool
        def find(query: str, limit: int = 3) -> str:
            "Find orders."
            return query

        Agent("clerk", "claude-sonnet-4-6", "You help.", tools=[find])
        print("jsonschema_rs" in sys.modules)
        JSONSchemaValidator({"properties": {"day": {"format": "date"}}})
        print("jsonschema_rs" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_higher_limit_costs_more() -> None:
    """So a call can't buy unlimited work with many texts."""
    prices = [compile_pattern(EMAIL).price(30, limit) for limit in BACKTRACKS]
    assert prices == sorted(prices)
    assert prices[0] * 10 < prices[1]
