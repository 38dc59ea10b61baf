"""Facts of a text of megabytes: only its two ends are read, and no piece is split."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.facts import facts_of
from midwatch.orchestration.context.scan import FIRST_CHARS, FIRST_ROWS, LAST_CHARS, LAST_ROWS
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import ToolMessage

LINES = (FIRST_CHARS + LAST_CHARS) // 4
"""More lines than are read, for any content."""


def result(content: str) -> ToolMessage:
    """A result."""
    return ToolMessage(group=2, ordinal=0, call_id="c", tool="look_up", content=content)


def values(content: str) -> set[str]:
    """All values found in the text."""
    return {fact.value for fact in facts_of([result(content)])}


def test_both_ends_of_a_long_list_are_walked():
    """The last row is often the newest, and the total often follows the rows."""
    rows = [{"id": f"u{n:06d}"} for n in range(2 * FIRST_ROWS)]
    found = values(json.dumps({"rows": rows, "next_cursor": "cur-77X"}))
    assert {"u000000", f"u{FIRST_ROWS - 1:06d}", "cur-77X"} <= found
    assert f"u{FIRST_ROWS + 7:06d}" not in found
    short = values(json.dumps([{"id": f"u{n:06d}", "n": n} for n in range(FIRST_ROWS - LAST_ROWS)]))
    assert {f"u{n:06d}" for n in range(FIRST_ROWS - LAST_ROWS)} <= short


@pytest.mark.parametrize("seam", [" ", "\n", ",", '"', ";"])
def test_a_long_text_is_never_cut_within_an_identifier(seam: str):
    """Half an identifier would be wrong, so every found value occurs in the text."""
    said = [f"order-{n:07d}" for n in range(LINES)]
    found = values(seam.join(said))
    assert len(found) > 1_000
    assert found <= set(said)


def test_the_end_of_a_long_text_is_read():
    """The end often has the outcome."""
    found = values("\n".join(["all quiet"] * LINES) + "\nbackup=BK-2026-77 stored under /var/backups/new.tar")
    assert {"BK-2026-77", "/var/backups/new.tar"} <= found


def rows() -> str:
    """JSON with rows of a database."""
    return json.dumps([{"id": f"u{n:06d}", "name": f"Ann Smith {n % 50}", "amount": n / 7} for n in range(45_000)])


def lines() -> Iterator[str]:
    """Lines of a log."""
    return (
        f"2026-03-01T10:{n % 60:02}:07Z worker-{n % 99} INFO order={n * 7919} took {n % 977} ms" for n in range(50_000)
    )


@pytest.mark.parametrize("text", [rows(), "\n".join(lines()), "12.75,9.5,-3.25,1044.5\n" * 140_000])
def test_megabytes_are_absorbed_quickly(text: str):
    """3 MB take under half a second of CPU. The limit is higher, for a busy machine."""
    assert len(text) > 3_000_000
    start = time.process_time()
    absorb_facts(Memory(), [result(text)], 20_000)
    assert time.process_time() - start < 1.5
