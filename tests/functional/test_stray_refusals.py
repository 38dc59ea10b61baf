"""A real fleet at a provider that refuses calls by chance. `test_bench_strays.py` is the quick sibling."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.tickets.record import tickets
from tests.tickets.stage import Stage

LEAST_PER_MINUTE = 600
"""The old law ended near 11 calls a minute."""


@pytest.mark.slow
@pytest.mark.parametrize("retry_after_s", [0, 1])
def test_stray_429s_do_not_choke_fifty_tickets(tmp_path: Path, data_dir: Path, retry_after_s: int) -> None:
    """2.6 % of the calls get a 429, with and without a wait. All jobs complete, and a guess is no low limit."""
    with Stage(tmp_path, prefix="stray", append_only=None) as stage:
        faults = {"rate_limited": 0.026, "retry_after_s": retry_after_s, "seed": 7}
        request = urllib.request.Request(
            f"{stage.env['ANTHROPIC_BASE_URL']}/__midwatch__/faults",
            data=json.dumps(faults).encode(),
            headers={"content-type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        stage.start_workers([("model,maintenance", "threads", 16), ("tools", "prefork", 2)])
        stage.play(tickets(), ["anthropic"])
        stage.wait(or_letter=True)
        report, (state,) = stage.check(), stage.client().gate.status()
    assert report.clean, report
    assert state.throttled >= 10
    assert state.limits.get("requests", LEAST_PER_MINUTE) >= LEAST_PER_MINUTE
