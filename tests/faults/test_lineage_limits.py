"""Limits of a lineage in a real fleet, whose workers die between a reservation and the commit of what it was for."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from midwatch import JobHandle
from midwatch.schemas.job import JobStatus
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.process import Member
from tests.faults.crew import Crew, children, ready
from tests.faults.lineage_plan import LOADS, MAX_STEPS, MAX_TOOL_CALLS, PORTERS
from tests.patience import PATIENCE_S, wait_for

SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
DEATHS = 3
"""At each of the two places. A step must not lose too many workers."""


def kill_at_random(workers: list[Member], seed: int, over: threading.Event) -> None:
    """Kill a random process now and then."""
    rng = random.Random(seed)
    for _ in range(4):
        if over.wait(rng.uniform(0.5, 1.5)):
            return
        victims = sorted(pid for worker in workers for pid in children(worker))
        with suppress(ProcessLookupError, IndexError):
            os.kill(rng.choice(victims), signal.SIGKILL)


def lead(crew: Crew, agent: str, seed: int = 0) -> JobHandle:
    """Run a lineage to its end. With a seed, processes are killed at random times, too."""
    workers = [crew.start(f"worker-{n}", "prefork", 4) for n in range(2)]
    ready(*workers)
    crew.fleet.watch()
    job = crew.enqueue("lead", agent=agent)
    over = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(workers, seed, over))
    if seed:
        killer.start()
    try:
        job.result(PATIENCE_S)
        wait_for(lambda: all(one.status.ended for one in whole_lineage(crew, job)), "all jobs to end")
    finally:
        over.set()
        if seed:
            killer.join()
    return job


def whole_lineage(crew: Crew, root: JobHandle):  # type: ignore[no-untyped-def]
    return [job for job in crew.client.jobs.list(limit=100) if job.root_id == root.id]


def deaths(crew: Crew) -> int:
    return len(list(crew.journal.folder.glob("died-*")))


@pytest.fixture
def crew(server: EmbeddedServer, prefix: str, tmp_path: Path, request: pytest.FixtureRequest) -> Crew:
    return Crew(tmp_path, server, prefix, MIDWATCH_AGENTS="tests.faults.lineage_agents", **request.param)


DYING = {"LINEAGE_DEATHS": str(DEATHS)}
UNBOUND = {"LINEAGE_WITHOUT": "1"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("crew", [DYING], indirect=True, ids=["dying"])
def test_children_make_exactly_the_calls_that_their_parent_may(crew: Crew, seed: int) -> None:
    """Eight children want 24 calls, and nine are allowed. The tool's own ledger has nine, in spite of every death."""
    with crew:
        job = lead(crew, "by-calls", seed)
        assert job.status() is JobStatus.COMPLETED
        made = {line.key for line in crew.journal.lines() if line.event == "began"}
        assert len(made) == MAX_TOOL_CALLS
        assert deaths(crew) == 2 * DEATHS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("crew", [DYING], indirect=True, ids=["dying"])
def test_a_lineage_takes_exactly_the_turns_that_its_root_may(crew: Crew, seed: int) -> None:
    """The model's own ledger has as many different turns as max_steps. The letters name the limit and the root."""
    with crew:
        job = lead(crew, "by-steps", seed)
        turns = {line.word for line in crew.journal.lines() if line.event == "model"}
        assert len(turns) == MAX_STEPS
        assert deaths(crew) == 2 * DEATHS
        letters = [letter.failure for letter in crew.client.dead_letters.list()]
        assert {failure.limit for failure in letters} == {"max_steps"}
        assert all(f"job {job.id} and its descendants took {MAX_STEPS} model turns" in each.detail for each in letters)


@pytest.mark.parametrize("crew", [UNBOUND], indirect=True, ids=["negative control: reservation off"])
def test_without_the_reservation_both_limits_are_exceeded(crew: Crew) -> None:
    """Each job counts alone: 24 calls instead of nine, and more turns than twenty."""
    with crew:
        assert lead(crew, "by-steps").status() is JobStatus.COMPLETED
        made = {line.key for line in crew.journal.lines() if line.event == "began"}
        turns = {line.word for line in crew.journal.lines() if line.event == "model"}
        assert len(made) == PORTERS * LOADS > MAX_TOOL_CALLS
        assert len(turns) == PORTERS * (LOADS + 1) + 2 > MAX_STEPS
