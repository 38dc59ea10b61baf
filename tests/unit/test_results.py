"""Results as text: rendered, limited, stored as a whole, and read page by page."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from midwatch.orchestration.errors import ToolFailed
from midwatch.orchestration.tools.result_pages import READ_RESULT, pack, read_page
from midwatch.orchestration.tools.results import MAX_RESULT_CHARS, bound, count_tokens_at_most, new_handle, render
from midwatch.schemas.failure import FailureKind


class Status(Enum):
    OPEN = "open"


class Ticket(BaseModel):
    id: int
    opened: date


@dataclass
class Order:
    number: str
    ticket: Ticket
    secret: str = field(default="hidden", repr=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        ("", ""),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        (memoryview(b"view"), "view"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ([1, "ä", None], '[1,"ä",null]'),
        ({"b": 1, "a": (2, 3)}, '{"b":1,"a":[2,3]}'),
        ({1: "x", None: "y"}, '{"1":"x","null":"y"}'),
        (Ticket(id=1, opened=date(2026, 11, 24)), '{"id":1,"opened":"2026-11-24"}'),
        (
            Order("A1", Ticket(id=1, opened=date(2026, 11, 24))),
            '{"number":"A1","ticket":{"id":1,"opened":"2026-11-24"}}',
        ),
        ([Status.OPEN, Decimal("1.10")], '["open","1.10"]'),
        (datetime(2026, 11, 24, 10, tzinfo=UTC), '"2026-11-24T10:00:00Z"'),
        ({"p": PurePosixPath("/a"), "u": UUID(int=1)}, '{"p":"/a","u":"00000000-0000-0000-0000-000000000001"}'),
        ({"s": {3}}, '{"s":[3]}'),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:24],
)
def test_values_become_text(value: object, text: str) -> None:
    """Text stays text. Everything else is compact JSON, with dates, models and similar values in their usual form."""
    assert render(value) == text


def test_a_field_without_repr_is_not_shown_to_the_model() -> None:
    """`field(repr=False)` means that a field is not shown. A result is shown to a model and stored."""
    assert "hidden" not in render(Order("A1", Ticket(id=1, opened=date(2026, 11, 24))))


@pytest.mark.parametrize("value", [math.nan, [1, math.inf], {"deep": [{"er": -math.inf}]}, {math.nan: 1}], ids=repr)
def test_nan_and_infinity_are_refused(value: object) -> None:
    """JSON does not have them, and a model would read `NaN` as text. The message tells the author what to return instead."""
    with pytest.raises(ToolFailed, match="None or a string") as refused:
        render(value)
    assert refused.value.failure.kind is FailureKind.FORMAT_ERROR


def test_half_a_surrogate_pair_is_escaped() -> None:
    """It is not a character. Unescaped, it would break the commit of the whole turn."""
    assert render("a\ud800b") == "a\\ud800b"
    assert render({"k": "\udfff"}) == '{"k":"\\udfff"}'
    render("é" * 1_500_000 + "\ud800").encode()


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Plain:
    def __repr__(self) -> str:
        return "<Plain " + "x" * 10_000 + ">"


def test_a_value_that_is_not_json_is_shown_as_repr() -> None:
    """A repr of limited length, marked as such, is enough to see the mistake."""
    text = render({"ok": 1, "bad": Plain()})
    assert text.startswith('{"ok":1,"bad":"[not JSON: a Plain: <Plain xxx')
    assert len(text) < 2_200
    assert render(Unprintable()) == '"[not JSON: a Unprintable: its repr raises RuntimeError]"'
    assert render({(1, 2): "x"}) == "[not JSON: a dict: {(1, 2): 'x'}]"
    assert render(iter([1])).startswith('"[not JSON: a list_iterator')
    loop: list[Any] = []
    loop.append(loop)
    assert render(loop) == "[not JSON: a list: [[...]]]"


def test_nesting_without_end_is_a_failure_not_a_crash() -> None:
    """A hundred thousand levels of nesting give a failure with a message."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ToolFailed, match="nested too deep"):
        render(deep)
    while deep:
        deep = deep.pop()


def test_a_number_too_long_to_print_is_a_failure() -> None:
    """Python refuses to print 5,000 digits. The failure has a message."""
    with pytest.raises(ToolFailed, match="can't be written as JSON"):
        render([10**5_000])


def test_rendering_stops_at_a_limit() -> None:
    """A tool that returns its whole database must not crash the worker. The text says that it was cut."""
    rows = ["x" * 1_000_000] * 100
    text = render(rows)
    assert len(text) < MAX_RESULT_CHARS + 200
    assert text.endswith(f"[cut: the tool returned more; only the first {MAX_RESULT_CHARS} characters are kept]")
    long = render("y" * (MAX_RESULT_CHARS + 1))
    assert f"returned {MAX_RESULT_CHARS + 1} characters" in long[-120:]


def test_large_and_small_values_are_written_alike() -> None:
    """The piecewise encoder of large values gives the same text as the fast one of small ones."""
    row = {"id": 1, "name": "ä", "tags": ["a", None, True], "at": date(2026, 11, 24)}
    text = render(row)
    assert render([row] * 20_000) == "[" + ",".join([text] * 20_000) + "]"


def test_a_result_within_the_limit_is_unchanged() -> None:
    """The limit is 2.5 bytes a token, counted in UTF-8."""
    assert bound("x" * 250, 100, "res-1").content == "x" * 250
    assert bound("ä" * 125, 100, "res-1") == bound("ä" * 125, 100, "res-2")
    assert bound("ä" * 126, 100, "res-1").handle_needed


def test_a_long_result_keeps_head_and_tail_with_a_handle() -> None:
    """The line in between names the tool, the handle and the offset from which to read on."""
    text = "HEAD" + "." * 10_000 + "TAIL"
    result = bound(text, 100, "res-ab12")
    head, note, tail = result.content.split("\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert note == (
        f"[{len(text) - 250} of {len(text)} characters are left out here. The whole result is kept: "
        f'read on with read_result(handle="res-ab12", offset={len(head)}, length=8000)]'
    )
    assert count_tokens_at_most(head + tail) <= 100
    assert result.body is not None
    assert zlib.decompressobj().decompress(result.body).decode() == text


def test_a_page_names_the_offset_of_the_next() -> None:
    """A page says which characters it has and which offset comes next. The last page says that it is the end."""
    body = pack("abcdefghij")
    assert read_page(body, 0, 4) == "abcd\n[characters 0 to 4 of 10; 6 remain: go on with offset=4]"
    assert read_page(body, 4, 100) == "efghij\n[characters 4 to 10 of 10; this is the end]"
    assert read_page(body, 10, 5) == "[nothing at 10: the result has 10 characters]"
    assert read_page(pack(""), 0, 5) == "[nothing at 0: the result has 0 characters]"


def test_a_page_has_at_most_8000_characters() -> None:
    """This holds for any request, also with negative numbers."""
    body = pack("x" * 100_000)
    assert len(read_page(body, 0, 10**9)) < 8_100
    assert read_page(body, -5, -5).startswith("x\n[characters 0 to 1 of 100000")


def test_pages_across_blocks_of_any_alphabet() -> None:
    """Blocks are cut between characters, so an emoji is never split. A page at the end needs only its own block."""
    text = "".join(chr(0x1F600 + number % 40) + "ä1" for number in range(100_000))
    body = pack(text)
    for offset in (0, 65_530, 65_536, 131_070, 299_990):
        assert read_page(body, offset, 50).rpartition("\n")[0] == text[offset : offset + 50]


def test_an_artifact_of_a_tool_can_be_paged() -> None:
    """An artifact may be plain or compressed bytes. Both can be paged."""
    assert read_page(b"plain text", 6, 4).startswith("text\n")
    assert read_page(zlib.compress(b"compressed"), 0, 10).startswith("compressed\n")
    assert read_page(b"\xff\xfe", 0, 10).startswith("\ufffd\ufffd\n")


def test_every_attempt_at_a_step_has_the_same_handle() -> None:
    """A second attempt replaces the first one's result. Another step has another handle."""
    assert new_handle("job-1", "3.0") == new_handle("job-1", "3.0")
    assert new_handle("job-1", "3.0") != new_handle("job-1", "3.1")
    assert len(new_handle("job-1", "3.0")) == 16


def test_read_result_has_a_closed_and_described_schema() -> None:
    """The model gets the schema of `read_result`, as of any other tool."""
    assert READ_RESULT.input_schema["required"] == ["handle", "offset"]
    assert READ_RESULT.input_schema["additionalProperties"] is False
