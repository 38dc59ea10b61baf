"""Printing: safe on a terminal, unchanged in a pipe, times in short form and in ISO 8601."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord, Try
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Holder, Job, Waiting
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.views.output import (
    TIMES,
    count,
    document,
    duration,
    iso,
    pluralize,
    print_json,
    print_json_line,
    printable,
    printable_lines,
)

HOSTILE = "ok\x1b]0;title\x07 \x9b31m red \u202egnp.exe \ud800 end\r\x08"


def test_control_characters_are_made_visible():
    """Escape sequences, one-byte controls, backspaces and reordering marks are printed as visible text."""
    shown = printable_lines(HOSTILE)
    assert shown == "ok\\x1b]0;title\\x07 \\x9b31m red \\x202egnp.exe \\xd800 end\\x0d\\x08"


def test_lines_and_tabs_of_a_text_stay():
    """Harmless characters are not changed. A Windows line end becomes a newline."""
    assert printable_lines("a\tb\r\nc") == "a\tb\nc"


def test_a_cell_is_one_line_and_cut_with_an_ellipsis():
    """A row of a listing is one line, even if its text has line breaks."""
    assert printable("first\n\n second   third") == "first second third"
    assert printable("abcdef", 4) == "abc…"


def test_json_escapes_unsafe_characters(capsys):
    """They are escaped inside strings, so a parser reads the original text."""
    print_json({"said": HOSTILE, "nested": [HOSTILE]})
    out = capsys.readouterr().out
    assert not any(char in out for char in "\x1b\x9b\u202e\ud800")
    assert json.loads(out) == {"said": HOSTILE, "nested": [HOSTILE]}


def test_json_lines_are_lines(capsys):
    """One document is one line, even if its text has line breaks."""
    print_json_line({"said": "a\nb\u2028c"})
    print_json_line([1])
    first, second = capsys.readouterr().out.rstrip("\n").split("\n")
    assert (json.loads(first), json.loads(second)) == ({"said": "a\nb\u2028c"}, [1])


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_240, "1.24 s"),
        (75_300, "75.3 s"),
        (200_000, "3m 20s"),
        (3_599_700, "1h 00m"),
        (7_500_000, "2h 05m"),
        (4 * 86_400_000 + 3 * 3_600_000, "4d 03h"),
    ],
)
def test_durations_are_short(ms, words):
    """A duration has at most two units. Rounding never gives `59m 60s`."""
    assert duration(ms) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (999, "999"), (12_345, "12.3k"), (999_960, "1.0M"), (1_250_000, "1.2M")]
)
def test_counts_are_short(number, words):
    """A count has at most five characters."""
    assert count(number) == words


def test_one_thing_is_singular():
    """It never prints `1 tool calls`."""
    assert [pluralize(1, "tool call"), pluralize(2, "tool call"), pluralize(2, "retry", "retries")] == [
        "1 tool call",
        "2 tool calls",
        "2 retries",
    ]


def test_times_are_iso_8601_in_utc():
    """A time has milliseconds and ends with Z."""
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"


def test_a_record_shows_iso_times_and_keeps_its_durations():
    """Times in `_ms` become `_at`, also nested ones. A duration such as retry_after_ms stays."""
    failure = Failure(kind="rate_limited", detail="429", retry_after_ms=2_000)
    tries = (Try(at_ms=1_700_000_000_000, worker="w", attempt=0, failure=failure),)
    letter = DeadLetterRecord(
        job_id="j", session_id="s", agent="a", step="1", kind="model", failure=failure, dead_ms=1, tries=tries
    )
    shown = document(letter)
    assert shown["dead_at"] == "1970-01-01T00:00:00.001Z"
    assert shown["tries"][0]["at"] == "2023-11-14T22:13:20.000Z"
    assert shown["tries"][0]["failure"]["retry_after_ms"] == 2_000
    assert "dead_ms" not in shown


def test_every_time_of_a_stored_record_is_known():
    """A new `_ms` field is either a time listed in TIMES, or a duration listed here."""
    durations = {"held_ms", "max_held_ms", "max_worked_ms", "retry_after_ms", "time_left_ms", "total_left_ms"}
    shapes: list[type[BaseModel]] = [Job, Waiting, Holder, TraceRecord, DeadLetterRecord, PoisonRecord, Try, Failure]
    fields = {name for shape in shapes for name in shape.model_fields if name.endswith("_ms")}
    assert fields - durations == set(TIMES)
