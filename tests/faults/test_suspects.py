"""A step that kills its worker is found, and the steps that ran in the same worker go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from midwatch import JobHandle
from midwatch.orchestration.store.script_calls.begin_work import MAX_LOSSES_ALONE
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.loss import Loss, LossKind
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.faults.crashes import WAYS
from tests.faults.crew import LEASE_MS, ROOT, Crew, ready
from tests.faults.plan import calls
from tests.patience import PATIENCE_S, wait_for

ALONE = [way for way in WAYS if way not in ("late", "both")]
SLOTS = 16


@pytest.fixture
def crew(server: EmbeddedServer, prefix: str, tmp_path: Path) -> Iterator[Crew]:
    """A fleet without workers."""
    with Crew(tmp_path, server, prefix) as made:
        yield made


def start_workers(crew: Crew, count: int = 1, pool: str = "threads", **env: str) -> None:
    """Start workers that are restarted when they die."""
    ready(*(crew.start(f"worker-{n}", pool, SLOTS if pool == "threads" else 3, **env) for n in range(count)))
    crew.fleet.watch()


def innocents(crew: Crew, count: int, think_s: float) -> list[JobHandle]:
    """Enqueue jobs that wait for their model, call two tools, and wait for their model again."""
    think = ("think", f"{think_s}")
    plan = calls(("note", "a"), ("note", "b"), at0=think, at1=think, at2=think)
    return [crew.enqueue(plan) for _ in range(count)]


def killer(crew: Crew, way: str, tool: str = "crash") -> JobHandle:
    """Enqueue a job whose only tool ends its process."""
    return crew.enqueue(calls((tool, f"{way}-{tool}")))


def check_letters(crew: Crew, killers: Sequence[JobHandle], others: Sequence[JobHandle]) -> None:
    """Wait for all jobs. The killers, and no other job, are dead letters."""
    ends = [job.result(PATIENCE_S) for job in killers]
    assert {end.failure.kind for end in ends if end.failure} == {FailureKind.WORKER_LOST}
    assert {job.result(PATIENCE_S).output for job in others} == {"done after 2 turns"}
    assert {letter.job_id for letter in crew.client.dead_letters.list()} == {job.id for job in killers}


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_killers_are_dead_letters_and_all_other_jobs_complete(crew: Crew, pool: str) -> None:
    """One killer of each kind among twelve jobs that wait for their model. Each killer runs three times.

    Its letter names the processes in which it ran, and says how they ended.
    """
    start_workers(crew, pool=pool)
    others = innocents(crew, 12, think_s=2.0)
    wait_for(lambda: crew.journal.of("2.0", "model"), "a job to wait for its model")
    killers = [killer(crew, way) for way in ALONE]
    check_letters(crew, killers, others)
    for way, job in zip(ALONE, killers, strict=True):
        tries = crew.client.dead_letters.show(job.id).tries
        runs = crew.journal.of(f"{way}-crash")
        kinds = [one.loss.kind for one in tries if one.loss]
        alone = [one for one in tries if one.loss and one.loss.kind is LossKind.DIED_ALONE]
        assert len(alone) == 2
        assert [one.worker.rpartition(".")[2] for one in alone] == [str(run.pid) for run in runs[-2:]]
        assert all(WAYS[way][1] in one.failure.detail for one in alone if one.failure)
        assert len(runs) <= len(tries) <= 3 + len(killers), "another killer may have ended its worker before it ran"
        together = kinds.count(LossKind.DIED_TOGETHER)
        assert len(runs) <= 3 + together, "while it ran alone, another killer may have ended the worker"


def test_an_inline_tool_that_kills_its_worker_is_found(crew: Crew) -> None:
    """It runs in the task of the model turn. After the loss it runs as a separate step, alone."""
    start_workers(crew)
    others = innocents(crew, 12, think_s=2.0)
    wait_for(lambda: crew.journal.of("2.0", "model"), "a job to wait for its model")
    job = killer(crew, "segfault", "crash_inline")
    check_letters(crew, [job], others)
    runs = crew.journal.of("segfault-crash_inline")
    letter = crew.client.dead_letters.show(job.id)
    assert (letter.step, letter.tool) == ("1.0", "crash_inline")
    assert [one.worker.rpartition(".")[2] for one in letter.tries] == [str(run.pid) for run in runs]
    assert len(runs) == 3
    shown = " ".join(show_letter(crew, job).split())
    assert all(f".{run.pid} worker_lost: " in shown for run in runs), shown
    assert "its worker was killed, hung, was suspended or was cut off" in shown
    assert shown.count("it ran alone in a process, which was killed by SIGSEGV (a crash in native code)") >= 2


def show_letter(crew: Crew, job: JobHandle) -> str:
    """Return what `midwatch dlq show` prints."""
    argv = [sys.executable, "-m", "midwatch.workers.cli", "dlq", "show", job.id]
    server = {"MIDWATCH_REDIS_URL": crew.server.url, "MIDWATCH_PREFIX": crew.prefix, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env={**os.environ, **server}, capture_output=True, text=True, check=True).stdout


def test_a_killer_is_found_in_a_solo_pool(crew: Crew) -> None:
    """The worker waits for the separate process in its only slot, then goes on."""
    ready(crew.start("worker", "solo", 1))
    crew.fleet.watch()
    job, other = killer(crew, "segfault"), crew.enqueue(calls(("note", "a"), ("note", "b")))
    check_letters(crew, [job], [other])
    assert len(crew.journal.of("segfault-crash")) == 3


def test_a_separate_process_goes_on_without_its_frozen_worker(crew: Crew) -> None:
    """It renews the lease and commits by itself. SIGTERM for all processes of a service does not end it either."""
    worker = crew.worker("worker", "threads", 4)
    crew.fleet.watch()
    job = crew.enqueue(calls(("hold", "gate")))
    crew.began("gate")
    worker.kill_group()
    alone = psutil.Process(crew.began("gate", times=2))
    assert alone.ppid() == worker.pid
    alone.terminate()
    worker.freeze()
    time.sleep(3 * LEASE_MS / 1000)
    crew.journal.open_gate("gate")
    wait_for(lambda: crew.results(job), "the result to be committed")
    worker.thaw()
    assert job.result(PATIENCE_S).output == "done after 1 turns"
    assert len(crew.journal.of("gate")) == 2, "no other process ran it meanwhile"
    wait_for(lambda: not alone.is_running(), "the process to end")


def test_a_separate_process_dies_with_its_worker(crew: Crew) -> None:
    """Both are killed at once: nothing is proven, and the step runs again."""
    worker = crew.worker("worker", "threads", 4)
    crew.fleet.watch()
    job = crew.enqueue(calls(("hold", "gate")))
    crew.began("gate")
    worker.kill_group()
    alone = psutil.Process(crew.began("gate", times=2))
    worker.kill_group()
    wait_for(lambda: not alone.is_running() or alone.status() == psutil.STATUS_ZOMBIE, "the process to die")
    crew.began("gate", times=3)
    losses = crew.client.store.client.hget(crew.client.operations.keys.steps(job.session_id, job.id), "1.0:losses")
    kinds = [Loss.model_validate_json(line).kind for line in losses.splitlines()]
    assert kinds == [LossKind.LEASE_ENDED, LossKind.DIED_TOGETHER]
    crew.journal.open_gate("gate")
    assert job.result(PATIENCE_S).output == "done after 1 turns"


def test_without_isolation_a_killer_is_not_found(crew: Crew) -> None:
    """The negative control: the killer kills one worker after the other, and no proof is ever made."""
    start_workers(crew, FAULTS_WITHOUT="isolation")
    job = killer(crew, "kill")
    crew.began("kill-crash", times=5)
    assert job.job().status is JobStatus.RUNNING


def test_without_suspects_the_innocent_are_sentenced(crew: Crew) -> None:
    """The negative control: when every loss counts against every step, most of the twelve become dead letters."""
    start_workers(crew, FAULTS_WITHOUT="suspects")
    innocents(crew, 12, think_s=30.0)
    wait_for(lambda: len(crew.journal.of("30.0", "model")) >= 12, "all jobs to wait for their model")
    job = killer(crew, "late")
    job.result(PATIENCE_S)
    wait_for(lambda: len(crew.client.dead_letters.list()) > 9, "nine innocent jobs to be sentenced")


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_step_that_kills_its_worker_too_is_a_dead_letter_in_the_end(crew: Crew) -> None:
    """Nothing is ever proven, because both die together. The step ends after ten such losses, and no other job does."""
    start_workers(crew)
    others = innocents(crew, 12, think_s=1.0)
    wait_for(lambda: crew.journal.of("1.0", "model"), "a job to wait for its model")
    job = killer(crew, "both")
    check_letters(crew, [job], others)
    assert len(crew.journal.of("both-crash")) == 1 + MAX_LOSSES_ALONE


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("think_s", [0.1, 2.5], ids=["fast", "slow"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [12, 24, 100])
def test_one_killer_among_many_is_the_only_dead_letter(crew: Crew, count: int, workers: int, think_s: float) -> None:
    """However many jobs and workers there are, and however long their models think."""
    start_workers(crew, workers)
    others = innocents(crew, count, think_s)
    wait_for(lambda: crew.journal.of(f"{think_s}", "model"), "a job to wait for its model")
    check_letters(crew, [killer(crew, "kill")], others)
    assert len(crew.journal.of("kill-crash")) <= 3
