"""Real input: fifty recorded support tickets, through producer, broker, worker processes and two vendors' formats."""

from __future__ import annotations

from pathlib import Path

from tests.tickets.record import tickets
from tests.tickets.stage import Stage


def test_fifty_recorded_tickets_in_two_formats_equal_the_record(tmp_path: Path, data_dir: Path) -> None:
    """A hundred sessions of several user turns: every transcript equals the record, and every effect happened once."""
    with Stage(tmp_path, prefix="tau") as stage:
        stage.start_workers([("model,maintenance", "threads", 16), ("tools", "prefork", 2)])
        stage.play(tickets())
        stage.wait()
        report = stage.check()
    assert report.clean, report
    assert report.completed == report.attempted
