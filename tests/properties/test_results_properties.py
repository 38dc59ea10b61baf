"""Results of any shape: rendering, limiting and paging lose nothing and never exceed their limits."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.errors import ToolFailed
from midwatch.orchestration.tools.result_pages import BLOCK_CHARS, pack, read_page
from midwatch.orchestration.tools.results import BYTES_PER_TOKEN, bound, render

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.decimals(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner)
        | st.frozensets(st.text())
    ),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=2_000)
NOTE_BYTES = 400


@given(ANYTHING)
def test_rendering_gives_text_or_the_typed_error(value: Any) -> None:
    """The result is text that can be encoded, or a ToolFailed. Nothing else is raised."""
    try:
        text = render(value)
    except ToolFailed as error:
        text = error.failure.detail
    assert text.encode() or value in ("", b"")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_rendered_json_decodes_to_the_value(value: Any) -> None:
    """A JSON value is unchanged after rendering and decoding."""
    text = render(value)
    assert value == text if isinstance(value, str) else json.loads(text) == value


@given(text=ANY_TEXT, times=st.integers(1, 50), most=st.integers(1, 2_000))
def test_a_bounded_result_is_within_its_limit(text: str, times: int, most: int) -> None:
    """A cut result has at most the limit in bytes, plus one line of known size. A short one is unchanged and not stored."""
    whole = render(text * times)
    result = bound(text * times, most, "res-0123456789ab")
    limit_bytes = most * BYTES_PER_TOKEN
    assert len(result.content.encode()) <= limit_bytes + NOTE_BYTES
    assert result.handle_needed is (result.body is not None)
    assert result.handle_needed is (len(whole.encode()) > limit_bytes)
    if not result.handle_needed:
        assert result.content == whole


@given(text=ANY_TEXT, times=st.integers(1, 60), length=st.integers(1, 9_000), data=st.data())
def test_all_pages_together_are_the_text(text: str, times: int, length: int, data: st.DataObject) -> None:
    """Reading on at the offset that each page names gives the whole text."""
    whole = data.draw(st.just("ä" * (BLOCK_CHARS - 1_000)) | st.just("")) + render(text * times)
    body = pack(whole)
    offset: int | None = 0
    read = ""
    while offset is not None and whole:
        part, _, note = read_page(body, offset, max(length, len(whole) // 50)).rpartition("\n")
        read += part
        following = re.search(r"go on with offset=(\d+)", note)
        offset = int(following[1]) if following else None
    assert read == whole


@given(text=ANY_TEXT, offset=st.integers(-10, 5_000), length=st.integers(-10, 20_000))
def test_any_offset_and_length_give_a_limited_page(text: str, offset: int, length: int) -> None:
    """No offset or length raises an error."""
    assert len(read_page(pack(text), offset, length)) < 8_200
