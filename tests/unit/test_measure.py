"""The percentiles that the benchmarks report."""

from __future__ import annotations

import pytest

from midwatch.workers.bench.measure import percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([4.0, 1.0, 3.0, 2.0, 5.0], 0.0, 1.0),
        ([4.0, 1.0, 3.0, 2.0, 5.0], 1.0, 5.0),
        (list(range(101)), 0.99, 99.0),
    ],
)
def test_a_percentile_is_interpolated_between_neighbours(values, share, expected):
    """The order of the values does not matter. Shares 0 and 1 give the smallest and the largest value."""
    assert percentile(values, share) == pytest.approx(expected)


def test_a_percentile_of_nothing_is_an_error():
    """Without values there is no result. It is never a silent zero."""
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 0.5)
