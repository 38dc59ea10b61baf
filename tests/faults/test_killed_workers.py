"""Fifty tickets while a worker is killed every few seconds: no job ends because of it, and no effect happens twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tickets.chaos import Chaos
from tests.tickets.record import tickets
from tests.tickets.stage import Report, Stage

WORKERS = [("model,tools,maintenance", "threads", 16)] * 4
"""A fresh worker claims sixteen steps, then imports the provider's SDK. If it is killed meanwhile, all of them are lost."""


@contextmanager
def load(loops: int) -> Iterator[None]:
    """Keep the machine busy with this many loops, which end with the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def play(folder: Path, share: slice, *, every_s: float, loops: int = 0, seed: int = 1) -> tuple[Report, Counter[str]]:
    """Play some tickets while one of four workers is killed every `every_s`. Return the report and the losses by kind."""
    with Stage(folder, prefix="kills", env={"TICKETS_TOOL_MS": "60"}, latency_ms=300) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        with load(loops), Chaos(stage, seed) as chaos:
            chaos.kill_workers(every_s)
            stage.play(tickets()[share], wires=("anthropic",))
            await_end(stage)
        losses = read_losses(folder / "logs")
        print(
            f"{len(chaos.log)} workers killed; losses by kind {dict(losses)}; most of one step {most_losses(folder / 'logs')}"
        )
        assert not stage.client().dead_letters.list()
        return stage.check(), losses


def await_end(stage: Stage, longest_s: float = 3_000.0) -> None:
    """Wait until all jobs have ended, or one is a dead letter. This takes longer than a test usually waits."""
    give_up_s = time.monotonic() + longest_s
    while stage.ended() < stage.wanted and not stage.has_letter():
        assert time.monotonic() < give_up_s, f"{stage.ended()} of {stage.wanted} jobs have ended"
        time.sleep(1.0)


def read_losses(logs: Path) -> Counter[str]:
    """Count the losses in the workers' logs, by kind."""
    return Counter(line["kind"] for line in lost_lines(logs))


def most_losses(logs: Path) -> list[tuple[int, int]]:
    """How many steps had how many losses."""
    steps = Counter((line["job_id"], line["step"]) for line in lost_lines(logs))
    return sorted(Counter(steps.values()).items())


def lost_lines(logs: Path) -> Iterator[dict[str, str]]:
    """Read the log lines of losses."""
    for path in logs.glob("worker-*.log"):
        for line in path.read_text().splitlines():
            if '"step.lost"' in line:
                yield json.loads(line)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("loops", [0, 4])
def test_fifty_tickets_lose_no_job_to_killed_workers(tmp_path: Path, data_dir: Path, loops: int) -> None:
    """Every 3 s a worker is killed, also on a machine with four busy loops. There is no dead letter and no double effect."""
    report, losses = play(tmp_path, slice(None), every_s=3.0, loops=loops)
    assert report.clean, report
    assert report.completed == report.attempted
    assert losses.total() > 0
