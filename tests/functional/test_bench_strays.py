"""`bench strays` in small: what a fleet uses of a downstream that refuses by chance, or above a hidden limit."""

from __future__ import annotations

import pytest

from midwatch.workers.bench.strays import Cell, make_cells, simulate


def test_most_of_what_is_offered_is_answered_beside_strays(server):
    """Three calls in a hundred are refused at any rate, and nothing is known of a limit."""
    row = simulate(Cell(600, 0.03), 0, server.url, 120)
    assert row["used"] >= 0.9


def test_a_hidden_limit_is_used_and_kept(server):
    """Twice as many calls are offered as the limit allows, which no header names."""
    row = simulate(Cell(1_200, limit=600), 0, server.url, 60)
    assert row["used"] >= 0.85
    assert row["refused"] <= 0.08
    assert row["guess"] == pytest.approx(600, rel=0.25)


def test_the_cells_cover_every_rate_and_share():
    """60, 600 and 6,000 calls a minute; strays of 0.5, 1, 3 and 10 %; hidden limits with a small and a large bucket."""
    cells = make_cells()
    strays = {(cell.offered, cell.share) for cell in cells if cell.limit is None and cell.told is None}
    assert strays == {(rate, share) for rate in (60, 600, 6_000) for share in (0.005, 0.01, 0.03, 0.1)}
    assert {(cell.limit, cell.burst_s) for cell in cells if cell.limit and not cell.share} == {
        (rate, burst_s) for rate in (60, 600, 6_000) for burst_s in (1.0, 60.0)
    }
