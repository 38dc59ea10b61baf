"""`midwatch demo`: kills follow the progress, what did not complete is named with its reason, and the line fits 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from midwatch import JobResult
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus
from midwatch.workers.demo import killer as killer_module
from midwatch.workers.demo.account import Account
from midwatch.workers.demo.desk.tickets import CheckReport
from midwatch.workers.demo.killer import LEAST_STEPS, Killer
from midwatch.workers.demo.runner import find_not_completed, is_success
from midwatch.workers.demo.screen import Screen

FINE = CheckReport(2, (), (), ())
LOST = Failure(kind=FailureKind.WORKER_LOST, detail="3 workers died in this step")


class Worker:
    """A member of a fleet that is alive, and ready or not."""

    def __init__(self, pid: int, *, ready: bool = True) -> None:
        self.pid, self.alive, self.ready = pid, True, ready

    def has_logged(self, _text: str) -> bool:
        return self.ready


@pytest.fixture
def killed(monkeypatch) -> list[int]:
    """The groups that were killed."""
    found: list[int] = []
    monkeypatch.setattr(killer_module.os, "killpg", lambda pid, number: found.append(pid) or None)
    return found


def test_without_progress_no_worker_is_killed(killed):
    """Only committed steps lead to the next kill, however often a slow machine checks."""
    killer = Killer([Worker(1), Worker(2)], 20)
    assert [killer.kill_if_due(0) for _ in range(100)][-1] == 0
    assert killer.kill_if_due(LEAST_STEPS - 1) == 0
    assert killer.kill_if_due(LEAST_STEPS) == 1
    assert [killer.kill_if_due(LEAST_STEPS + 1) for _ in range(100)][-1] == 1
    assert killer.kill_if_due(2 * LEAST_STEPS) == 2
    assert len(killed) == 2


def test_a_kill_waits_until_every_worker_is_ready(killed):
    """While a killed worker restarts, neither it nor another worker is killed."""
    workers = [Worker(1), Worker(2, ready=False)]
    killer = Killer(workers, 20)
    assert killer.kill_if_due(1_000) == 0
    workers[1].ready = True
    assert killer.kill_if_due(1_000) == 1


def test_large_demos_have_as_many_kills(killed):
    """The gap grows with the number of jobs, so no step meets three kills by chance."""
    killer = Killer([Worker(1)], 60)
    assert [killer.kill_if_due(steps) for steps in range(420)][-1] == 6


def result(status: JobStatus, failure: Failure | None = None) -> JobResult:
    return JobResult(
        job_id="j1", session_id="s1", status=status, output="x" if failure is None else None, failure=failure
    )


def test_what_did_not_complete_is_named_with_its_reason():
    """A dead letter, a job that did not end, and a job without a record."""
    found = find_not_completed(
        {
            "T-1": result(JobStatus.COMPLETED),
            "T-2": result(JobStatus.DEAD_LETTERED, LOST),
            "T-3": None,
        }
    )
    assert [(entry["ticket"], entry["status"]) for entry in found] == [("T-2", "dead_lettered"), ("T-3", "lost")]
    assert found[0]["why"] == "worker_lost: 3 workers died in this step"


@pytest.mark.parametrize(
    ("completed", "dead", "report", "success"),
    [
        (2, 0, FINE, True),
        (1, 1, FINE, False),
        (0, 2, FINE, False),
        (1, 0, FINE, False),
        (2, 0, CheckReport(1, (), (), ("T-1: wrong",)), False),
    ],
)
def test_only_a_demo_whose_jobs_all_complete_succeeds(completed, dead, report, success):
    """Dead letters are not lost, but they are no success either: the exit code is 1."""
    account = Account(submitted=2, completed=completed, dead_lettered=dead)
    assert is_success(account, report) is success


def job(status: JobStatus) -> Job:
    return Job(
        job_id="j", agent="a", agent_version="1", session_id="s", root_id="j", status=status, max_steps=9, created_ms=0
    )


@pytest.mark.parametrize("dead", [0, 12])
def test_the_progress_fits_80_columns(dead):
    """Bar, n of N and time are on one line, the counts on the next. Nothing wraps."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, force_interactive=True, width=80, color_system=None)
    screen = Screen(console)
    account = Account(submitted=10_000, dead_lettered=dead, retries=1_234, invalid_calls_caught=140, worker_kills=16)
    with screen.progress(10_000):
        screen.update(account, [job(JobStatus.COMPLETED)] * 9_999 + [job(JobStatus.RUNNING)], 61.0)
    last = out.getvalue().replace("\x1b[?25h", "").rstrip().split("\r")[-1].splitlines()
    lines = [line.split("\x1b[2K")[-1] for line in last if line.strip()]
    bar = next(line for line in lines if "9999/10000" in line)
    assert "━" in bar
    assert "0:00:0" in bar
    assert all(len(line) <= 80 for line in lines), lines
    assert any("16 workers killed" in line for line in lines)


def test_in_a_pipe_a_line_is_printed_for_each_tenth():
    """Logs of CI show the progress too, without control characters."""
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80))
    account = Account(submitted=20)
    with screen.progress(20):
        for ended in range(21):
            states = [JobStatus.COMPLETED] * ended + [JobStatus.RUNNING] * (20 - ended)
            screen.update(account, [job(status) for status in states], float(ended))
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"{ended} of 20 jobs" for ended in range(2, 21, 2)]
    assert "\x1b" not in out.getvalue()


def test_the_summary_says_why_jobs_died():
    """A reader sees the cause without another command. Markup in a reason is printed as it is."""
    out = io.StringIO()
    account = Account(submitted=2, completed=1, dead_lettered=1)
    account.not_completed = find_not_completed(
        {"T-2": result(JobStatus.DEAD_LETTERED, Failure(kind=FailureKind.INTERNAL, detail="[red]"))}
    )
    Screen(Console(file=out, width=80)).print_summary(account, FINE, "")
    assert "T-2: job j1 is dead_lettered: internal: [red]" in out.getvalue()
