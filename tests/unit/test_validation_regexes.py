"""Patterns of exponential time are refused, and similar harmless ones are accepted."""

from __future__ import annotations

import re

import pytest

from midwatch.orchestration.validation.regex_safety import find_hazard

EXPONENTIAL = [
    r"^(a+)+$",
    r"^(a*)*$",
    r"(a|a)*b",
    r"(a|aa)+$",
    r"(\w+\s?)*$",
    r"^(\s*\w+)*$",
    r"^(a?b?)*$",
    r"(a*b*)*c",
    r"(x+x+)+y",
    r"(.*a){12}",
    r"(a{2,}){5,}",
    r"((b*?){1,3}){1,3}",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"^(\d+)*[.]$",
    r"(?=(a+)+$)b",
    r"(.+)+\1",
    r'(?:[^"\\]+|\\.)*"',
    r"(?i)(?:ab|AB)*c",
    r"(?i:(?:ab|AB)*)c",
    r"([\u4e00-\u5000]x|[\u4f00-\u5100]x)*y",
    r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
]
SAFE = [
    "",
    ".*",
    r"(?s).+",
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
    r"^[\w.-]+@[\w-]+(\.[\w-]+)+$",
    r"^\d{4}-\d{2}-\d{2}$",
    r'^(?:[^"\\]|\\.)*$',
    r"^(foo|far|bar)+$",
    r"^#W\d{7}$",
    r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    r"^(/[^/]+)*/?$",
    r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
    r"^(\d{4}){1,5}$",
    r"^([a-z]{1,64}\.)+[a-z]{2,}$",
    r"^(\+\d{1,3}[ -]?)?\d{3,14}$",
    r"^(a|b)*$",
    r"(?>a+)b",
    r"^(?P<year>\d+)-(?P=year)$",
    # Semantic versioning's own pattern: nested quantifiers and overlapping alternatives, but unambiguous.
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$",
    "^(" + "|".join(f"word{number}" for number in range(500)) + ")$",
]


@pytest.mark.parametrize("pattern", EXPONENTIAL)
def test_an_ambiguous_loop_is_refused(pattern: str) -> None:
    """A loop that can read one text in two ways is refused, with or without nested quantifiers."""
    assert "exponential" in (find_hazard(pattern) or "")


@pytest.mark.parametrize("pattern", SAFE, ids=lambda value: value[:24])
def test_an_unambiguous_pattern_is_accepted_and_fast(pattern: str) -> None:
    """Usual patterns pass, and a hostile text of 3,000 characters is matched at once."""
    assert find_hazard(pattern) is None
    for unit in ("a", "1", "a-", "a.", "/a", "foo", '\\"', "0.", "word"):
        re.search(pattern, unit * (3_000 // len(unit)) + "\n!")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not a regular expression"),
        (r"\p{L}", "bad escape"),
        ("a{99999999999999999999}", "not a regular expression"),
        ("(" * 5_000 + ")" * 5_000, "too large to be analysed"),
        ("(" + "|".join(f"{chr(97 + n % 26)}{n}" for n in range(1_000)) + ")*", "too large to be analysed"),
    ],
    ids=lambda value: value[:24],
)
def test_a_pattern_that_can_not_be_analysed_is_refused(pattern: str, why: str) -> None:
    """An invalid or too large pattern gives a reason, and no exception."""
    assert why in (find_hazard(pattern) or "")
