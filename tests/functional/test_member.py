"""One process of a fleet: its group, its log, what kills, freezes and ends it, and what it dies with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from midwatch.workers.local.fleet import Fleet, wait_ready
from midwatch.workers.local.process import Member
from tests.patience import PATIENCE_S

linux = pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends a process with its parent")

IDLE = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"]
POLITE = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(15, lambda *_: sys.exit('finished')); print('up'); signal.pause()",
]
PARENT = [
    sys.executable,
    "-c",
    "import os, signal; child = os.fork()\nif child: print('child', child, flush=True)\nsignal.pause()",
]


@pytest.fixture
def fleet(tmp_path):
    """A fleet that nobody watches."""
    with Fleet({"GREETING": "ahoy"}, tmp_path / "logs") as started:
        yield started


def status(pid: int) -> str:
    """State of a process; one that nobody has waited for yet is dead."""
    try:
        found = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "dead"
    return "dead" if found == psutil.STATUS_ZOMBIE else found


def start_parent(fleet: Fleet) -> tuple[Member, int]:
    """A member that has forked a child, and the child's pid."""
    member = fleet.start("parent", PARENT)
    wait_ready(member, "child ", PATIENCE_S)
    return member, int(member.log_tail.split()[1])


def test_a_member_has_a_group_a_log_and_the_fleets_environment(fleet, tmp_path):
    """Its own process group, a file `NAME.log`, its own variables on the fleet's on those of this process."""
    show = "import os; print(os.environ['GREETING'], os.environ['WHO'], 'PATH' in os.environ)"
    member = fleet.start("greeter", [sys.executable, "-c", show], env={"WHO": "mate"})
    wait_ready(member, "ahoy mate True", PATIENCE_S)
    assert "ahoy mate True" in (tmp_path / "logs" / "greeter.log").read_text()
    idle = fleet.start("idle", IDLE)
    assert idle.alive
    assert os.getpgid(idle.pid) == idle.pid != os.getpgid(0)


def test_killing_a_member_kills_all_it_started(fleet, wait_for):
    """`kill_group()` leaves neither the process nor its children; the exit code tells the signal."""
    member, child = start_parent(fleet)
    member.kill_group()
    assert not member.alive
    assert member.exit_code == -signal.SIGKILL
    wait_for(lambda: status(child) == "dead", "the child to die with its group")


def test_what_a_dead_member_left_behind_is_killed(fleet, wait_for):
    """The process alone dies, as when the kernel is out of memory: its orphans go as soon as somebody looks."""
    member, child = start_parent(fleet)
    os.kill(member.pid, signal.SIGKILL)
    wait_for(lambda: not member.alive, "the member to be dead")
    wait_for(lambda: status(child) == "dead", "its orphan to be killed")


def test_a_frozen_group_does_nothing_and_goes_on_when_thawed(fleet, wait_for):
    """SIGSTOP reaches the children too; a frozen member is alive; thawed it goes on, in the same process."""
    member, child = start_parent(fleet)
    pid = member.pid
    member.freeze()
    wait_for(lambda: status(pid) == status(child) == psutil.STATUS_STOPPED, "the group to stop")
    assert member.alive
    member.thaw()
    wait_for(lambda: status(pid) == status(child) == psutil.STATUS_SLEEPING, "the group to go on")
    assert member.pid == pid


def test_asked_to_end_it_finishes_by_itself(fleet):
    """SIGTERM lets a worker finish what it does, even one that was frozen."""
    member = fleet.start("polite", POLITE)
    wait_ready(member, "up", PATIENCE_S)
    member.freeze()
    assert member.terminate(timeout_s=PATIENCE_S)
    assert member.has_logged("finished")


def test_one_that_does_not_end_in_time_is_killed(fleet):
    """`terminate(timeout_s)` returns False when it had to kill."""
    member = fleet.start("stubborn", STUBBORN)
    wait_ready(member, "up", PATIENCE_S)
    assert not member.terminate(timeout_s=0.1)
    assert member.exit_code == -signal.SIGKILL


def test_restart_gives_the_member_a_new_process_and_a_fresh_ear(fleet):
    """The same name, command line and log; `wait_ready` hears only what the new process says."""
    member = fleet.start("idle", IDLE)
    wait_ready(member, "up", PATIENCE_S)
    first = member.pid
    member.kill_group()
    member.restart()
    assert member.pid != first
    wait_ready(member, "up", PATIENCE_S)
    assert member.log_path.read_text().count("up") == 2


@linux
def test_members_die_with_their_parent_even_frozen(tmp_path, wait_for):
    """A killed demo leaves no worker behind, not even one that was stopped in its tracks."""
    program = (
        "import sys; from pathlib import Path; from midwatch.workers.local.fleet import Fleet;"
        "fleet = Fleet({}, Path(sys.argv[1]));"
        "members = [fleet.start(name, sys.argv[2:]) for name in ('one', 'two')]; members[1].freeze();"
        "print(*[member.pid for member in members], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *IDLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    wait_for(lambda: [status(pid) for pid in pids] == ["dead", "dead"], "the members to die with their parent")


@linux
def test_a_member_outlives_the_thread_that_started_it(fleet):
    """The kernel ties a child to the thread that forked it; ours is tied to the process."""
    passing = threading.Thread(target=fleet.start, args=("idle", IDLE))
    passing.start()
    passing.join()
    (member,) = fleet.members
    wait_ready(member, "up", PATIENCE_S)
    assert member.alive


@linux
def test_a_forked_process_can_start_members_of_its_own(tmp_path: Path):
    """The starting thread is not inherited by a fork: the child makes its own instead of waiting for ever."""
    program = (
        "import os, sys; from pathlib import Path; from midwatch.workers.local.fleet import Fleet, wait_ready\n"
        "Fleet({}, Path(sys.argv[1])).start('one', sys.argv[2:]).terminate()\n"
        "child = os.fork()\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "with Fleet({}, Path(sys.argv[1])) as fleet: wait_ready(fleet.start('two', sys.argv[2:]), 'up', 10)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path), *IDLE]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0
