"""The recorded tickets during constant crashes: transcripts must equal the record, and every effect must happen once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.patience import wait_for
from tests.tickets.chaos import Chaos
from tests.tickets.record import tickets
from tests.tickets.stage import Report, Stage

WORKERS = [
    ("model,maintenance", "threads", 8),
    ("model,maintenance", "threads", 8),
    ("tools", "prefork", 2),
    ("tools", "prefork", 2),
]
KILLS = 6
"""The crashes end after this many, not after a time: a slow machine gets little done if a worker is killed every 3 s."""


def play_under_fire(folder: Path, share: slice, *, seed: int, kills: int) -> tuple[Report, list[str]]:
    """Play some tickets while workers are killed and frozen, messages tripled and the server killed.

    Kills are random, so a step may lose its worker several times. This ends no job.
    """
    with Stage(folder, prefix="fire", env={"TICKETS_TOOL_MS": "60"}, latency_ms=80) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        with Chaos(stage, seed, kills) as chaos:
            # Workers are killed from the first ticket on: on a slow machine many jobs end while others are enqueued. The last
            # tickets wait for kills: on a fast machine all jobs would end before the third.
            chaos.deliver_thrice().kill_workers(every_s=3.0).freeze_worker(every_s=9.0, for_s=6.0)
            *first, second_last, last = tickets()[share]
            for kills_before, chosen in enumerate([first, [second_last], [last]]):
                stage.play(chosen)
                wait_for(lambda least=kills_before: chaos.count_kills() > least, "a worker to be killed")
            chaos.kill_server(every_s=13.0)
            stage.wait(or_letter=True)
        return stage.check(), chaos.log


def test_transcripts_equal_the_record_during_constant_crashes(tmp_path: Path, data_dir: Path) -> None:
    """A worker is killed every 3 s, one is frozen past its leases, the server is killed, and each message comes three times."""
    report, log = play_under_fire(tmp_path, slice(0, 50, 4), seed=1, kills=KILLS)
    assert report.clean, f"{report}\n{[line for line in log if not line.startswith('tripled')]}"
    assert report.completed == report.attempted
    assert sum("killed worker" in line for line in log) >= 3


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_fifty_tickets_under_fire(tmp_path: Path, data_dir: Path, seed: int) -> None:
    """All fifty tickets in two formats survive the same crashes."""
    report, log = play_under_fire(tmp_path, slice(None), seed=seed, kills=200)
    print(f"seed {seed}: {report.attempted} jobs, {len(log)} faults")
    assert report.clean, f"{report}\n{[line for line in log if not line.startswith('tripled')]}"
    assert report.completed == report.attempted
