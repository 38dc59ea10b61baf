"""parse_arguments: strict JSON, and a clear message for everything else."""

from __future__ import annotations

import json

import pytest

from midwatch.orchestration.validation.arguments import parse_arguments
from midwatch.validators import InvalidArguments


def refused(raw: str, *, has_required: bool = True) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        parse_arguments(raw, has_required=has_required)
    return caught.value


def test_an_object_is_decoded() -> None:
    """Valid JSON is decoded, with whitespace, escapes and numbers of every kind."""
    raw = ' {"a": [1, -2.5e3, null, true], "b": {"c": "\\u00e9\\ud83d\\ude00"}}\n'
    assert parse_arguments(raw, has_required=True) == {"a": [1, -2500.0, None, True], "b": {"c": "é😀"}}


@pytest.mark.parametrize("raw", ["", " ", "\n\t"])
def test_an_empty_text_means_no_arguments_where_none_are_needed(raw: str) -> None:
    """Claude sends `""` to a tool without input in 4 % of its calls. For a tool with required input it is refused."""
    assert parse_arguments(raw, has_required=False) == {}
    error = refused(raw)
    assert error.kind == "empty"
    assert "empty" in str(error)


@pytest.mark.parametrize(
    ("raw", "kind", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "duplicate_key", '"a" is given more than once'),
        ('{"x": {"a": 1, "a": 1}}', "duplicate_key", '"a"'),
        ('{"a": NaN}', "number", "NaN is not JSON"),
        ('{"a": -Infinity}', "number", "-Infinity is not JSON"),
        ('{"a": 1e400}', "number", "out of range"),
        ('{"a": ' + "9" * 5_000 + "}", "number", "5,000 digits"),
        ('{"a": "\\ud800"}', "surrogate", "\\u escape"),
        ('{"\\udc00": 1}', "surrogate", "\\u escape"),
        ('{"a": "\ud800"}', "surrogate", "character 7"),
        ("[1, 2]", "not_object", "got an array"),
        ('"text"', "not_object", "got a string"),
        ('"{\\"a\\": 1}"', "not_object", "not its text in quotes"),
        ("null", "not_object", "got null"),
        ("true", "not_object", "got a boolean"),
        ("12", "not_object", "got a number"),
        ("{'a': 1}", "not_json", "at character 1"),
        ('{"a": 1,}', "not_json", "trailing commas"),
        ('{"code": processing_code}', "not_json", "at character 9"),
        ('{"a": 1} {"b": 2}', "not_json", "Extra data"),
        ('{"a": "line\nbreak"}', "not_json", "control character"),
        ('{"a": ' * 65 + "1" + "}" * 65, "too_deep", "64 levels"),
        ("[" * 100_000, "too_deep", "64 levels"),
        ('{"a": "' + "x" * 1_000_000 + '"}', "too_large", "1,000,000 bytes"),
        ('{"a": "' + "é" * 600_000 + '"}', "too_large", "bytes"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_any_other_text_is_refused_with_a_reason(raw: str, kind: str, says: str) -> None:
    """Nothing is repaired. Each kind of mistake has a name for the counters and a message for the model."""
    error = refused(raw)
    assert error.kind == kind
    assert says in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize("cut", range(1, len('{"query": "a \\u00e9 b", "limit": -12, "deep": [{"ok": true}, null]}')))
def test_a_text_that_ends_too_early_is_cut_off(cut: int) -> None:
    """For a cut at any place, the message says so and does not mention a missing comma."""
    whole = '{"query": "a \\u00e9 b", "limit": -12, "deep": [{"ok": true}, null]}'
    assert refused(whole[:cut]).kind == "cut_off"


def test_a_number_of_300_digits_still_passes() -> None:
    """The limit is that of floats, far above any useful number."""
    assert parse_arguments('{"a": ' + "9" * 300 + "}", has_required=True)["a"] == int("9" * 300)


def test_nesting_of_64_levels_passes() -> None:
    """The limit itself is allowed."""
    raw = '{"a": ' * 64 + "1" + "}" * 64
    assert json.dumps(parse_arguments(raw, has_required=True)) == raw
