"""The process fleet with real processes: who is restarted, who is given up, and how all of them stop."""

from __future__ import annotations

import signal
import sys

import pytest

from midwatch.orchestration.errors import ConfigError, MidwatchError
from midwatch.workers.local import fleet as fleet_module
from midwatch.workers.local.fleet import Death, Fleet, restart_delay_s, wait_ready
from tests.patience import PATIENCE_S

IDLE = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"]
POLITE = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(15, lambda *_: sys.exit('finished')); print('up'); signal.pause()",
]


@pytest.fixture
def fleet(tmp_path):
    """A fleet that collects its members' deaths in `.deaths`."""
    deaths: list[Death] = []
    with Fleet({"GREETING": "ahoy"}, tmp_path / "logs", on_death=deaths.append) as started:
        started.deaths = deaths
        yield started


def test_a_watched_fleet_restarts_dead_members_but_not_terminated_ones(fleet, wait_for):
    """A killed member is restarted at once. A terminated one stays down. The death is reported with its cause."""
    killed, ended = fleet.start("killed", IDLE), fleet.start("ended", IDLE)
    wait_ready(killed, "up", PATIENCE_S)
    fleet.watch()
    first = killed.pid
    ended.terminate()
    killed.kill_group()
    wait_for(lambda: killed.pid != first and killed.alive, "the killed member to be back")
    assert not ended.alive
    assert [(death.name, death.pid, death.exit_code, death.restart_in_s) for death in fleet.deaths] == [
        ("killed", first, -signal.SIGKILL, 0.0)
    ]
    assert fleet.deaths[0].log_tail == "up"


def test_a_member_that_is_killed_often_is_not_given_up(fleet, monkeypatch, wait_for):
    """Deaths by `kill_group()` don't count against a member, so a fault run may last any time."""
    monkeypatch.setattr(fleet_module, "FREE_DEATHS", 0)
    monkeypatch.setattr(fleet_module, "MOST_DEATHS", 1)
    member = fleet.start("idle", IDLE)
    fleet.watch()
    for _ in range(4):
        pid = member.pid
        member.kill_group()
        wait_for(lambda pid=pid: member.pid != pid and member.alive, "the member to be back")
    assert [death.restart_in_s for death in fleet.deaths] == [0.0] * 4


def test_a_member_that_always_dies_is_given_up(fleet, monkeypatch, wait_for):
    """After quick deaths the first restarts are immediate, then waits grow, then no restart follows. The error has the log."""
    monkeypatch.setattr(fleet_module, "FREE_DEATHS", 1)
    monkeypatch.setattr(fleet_module, "MOST_DEATHS", 3)
    fleet.watch()
    fleet.start("broken", [sys.executable, "-c", "raise SystemExit('no such queue')"])
    wait_for(lambda: fleet.deaths and fleet.deaths[-1].restart_in_s is None, "the member to be given up")
    assert len(fleet.deaths) == 3
    assert fleet.deaths[0].restart_in_s == 0.0
    assert 0.5 <= fleet.deaths[1].restart_in_s <= 1.0
    assert fleet.deaths[2].log_tail == "no such queue"


def test_the_wait_before_a_restart_doubles_up_to_its_cap():
    """Five quick deaths have no wait. Then the wait is 1, 2, 4 ... up to 30 s, less jitter. The twelfth death is the last."""
    assert [restart_delay_s(deaths) for deaths in range(6)] == [0.0] * 6
    for deaths, most_s in zip(range(6, 12), (1, 2, 4, 8, 16, 30), strict=True):
        assert most_s / 2 <= restart_delay_s(deaths) <= most_s
    assert restart_delay_s(12) is None


def test_waiting_for_an_ended_member_raises_its_exit_code(fleet):
    """The error has the exit code and the end of the log. It is raised at once and not after the timeout."""
    member = fleet.start("broken", [sys.executable, "-c", "raise SystemExit('no such queue')"])
    with pytest.raises(MidwatchError, match=r"broken ended with 1 before it was ready:\nno such queue"):
        wait_ready(member, "ready", PATIENCE_S)


def test_an_unknown_program_is_an_error_at_the_start(fleet):
    """A misspelt command line raises an error, and no member is added."""
    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        fleet.start("typo", ["/no/such/program"])
    assert fleet.members == ()


def test_a_watch_survives_a_program_that_disappears(fleet, tmp_path, wait_for):
    """A failed restart counts as a death and is tried again, so the watch goes on and the member returns."""
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    member = fleet.start("moved", [str(program), *IDLE[1:]])
    program.unlink()
    fleet.watch()
    member.kill_group()
    wait_for(lambda: len(fleet.deaths) >= 2, "a restart to fail")
    assert "could not be started" in fleet.deaths[1].log_tail
    program.symlink_to(sys.executable)
    wait_for(lambda: member.alive, "the member to be back")


def test_waiting_takes_a_condition_and_a_timeout(fleet):
    """Any function may be the condition. The wait ends at the timeout, and the error names it."""
    member = fleet.start("idle", IDLE)
    wait_ready(member, lambda: member.has_logged("up"), PATIENCE_S)
    with pytest.raises(MidwatchError, match=r"idle was not ready within 0\.1 s"):
        wait_ready(member, lambda: False, 0.1)


@pytest.mark.parametrize("name", ["../escape", "", "two words", ".hidden"])
def test_a_name_that_can_not_be_a_file_name_is_refused(fleet, name):
    """A member's name is part of a path. A second member with the same name is refused too."""
    with pytest.raises(ConfigError, match="becomes a file name"):
        fleet.start(name, IDLE)


def test_a_name_is_used_once(fleet):
    """Two members can't share a log file."""
    fleet.start("idle", IDLE)
    with pytest.raises(ConfigError, match="has a member 'idle' already"):
        fleet.start("idle", IDLE)


def test_stopping_the_fleet_ends_all_members_within_one_timeout(tmp_path):
    """A polite and a stubborn member get the signal together and share the timeout. The watch restarts neither."""
    fleet = Fleet({}, tmp_path)
    fleet.watch()
    members = [fleet.start("polite", POLITE), fleet.start("stubborn", STUBBORN), fleet.start("late", STUBBORN)]
    for member in members:
        wait_ready(member, "up", PATIENCE_S)
    fleet.stop(timeout_s=1.5)
    assert [member.alive for member in fleet.members] == [False, False, False]
    assert [member.exit_code for member in members] == [1, -signal.SIGKILL, -signal.SIGKILL]
