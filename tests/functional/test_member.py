"""One process of a fleet: its group and log, how it is killed, frozen and ended, and that it dies with its parent."""

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
    """A fleet without a watch."""
    with Fleet({"GREETING": "ahoy"}, tmp_path / "logs") as started:
        yield started


def status(pid: int) -> str:
    """Return the state of a process. A process that its parent has not waited for yet counts as dead."""
    try:
        found = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "dead"
    return "dead" if found == psutil.STATUS_ZOMBIE else found


def start_parent(fleet: Fleet) -> tuple[Member, int]:
    """Start a member that forks a child. Return both, the child as a pid."""
    member = fleet.start("parent", PARENT)
    wait_ready(member, "child ", PATIENCE_S)
    return member, int(member.log_tail.split()[1])


def test_a_member_has_a_group_a_log_and_the_fleets_environment(fleet, tmp_path):
    """A member has its own process group and a file `NAME.log`.

    Its variables override the fleet's, which override this process's.
    """
    show = "import os; print(os.environ['GREETING'], os.environ['WHO'], 'PATH' in os.environ)"
    member = fleet.start("greeter", [sys.executable, "-c", show], env={"WHO": "mate"})
    wait_ready(member, "ahoy mate True", PATIENCE_S)
    assert "ahoy mate True" in (tmp_path / "logs" / "greeter.log").read_text()
    idle = fleet.start("idle", IDLE)
    assert idle.alive
    assert os.getpgid(idle.pid) == idle.pid != os.getpgid(0)


def test_killing_a_member_kills_all_its_children(fleet, wait_for):
    """`kill_group()` kills the process and its children. The exit code has the signal."""
    member, child = start_parent(fleet)
    member.kill_group()
    assert not member.alive
    assert member.exit_code == -signal.SIGKILL
    wait_for(lambda: status(child) == "dead", "the child to die with its group")


def test_orphans_of_a_dead_member_are_killed(fleet, wait_for):
    """Only the process dies, as when memory runs out. Its orphans are killed at the next look at the member."""
    member, child = start_parent(fleet)
    os.kill(member.pid, signal.SIGKILL)
    wait_for(lambda: not member.alive, "the member to be dead")
    wait_for(lambda: status(child) == "dead", "its orphan to be killed")


def test_a_frozen_member_stops_and_continues_when_thawed(fleet, wait_for):
    """SIGSTOP reaches the children too. A frozen member counts as alive. After the thaw the same process goes on."""
    member, child = start_parent(fleet)
    pid = member.pid
    member.freeze()
    wait_for(lambda: status(pid) == status(child) == psutil.STATUS_STOPPED, "the group to stop")
    assert member.alive
    member.thaw()
    wait_for(lambda: status(pid) == status(child) == psutil.STATUS_SLEEPING, "the group to go on")
    assert member.pid == pid


def test_a_terminated_member_finishes_its_work(fleet):
    """SIGTERM lets a worker finish its current work, even if it was frozen."""
    member = fleet.start("polite", POLITE)
    wait_ready(member, "up", PATIENCE_S)
    member.freeze()
    assert member.terminate(timeout_s=PATIENCE_S)
    assert member.has_logged("finished")


def test_a_member_that_does_not_end_in_time_is_killed(fleet):
    """`terminate(timeout_s)` returns False if it had to kill."""
    member = fleet.start("stubborn", STUBBORN)
    wait_ready(member, "up", PATIENCE_S)
    assert not member.terminate(timeout_s=0.1)
    assert member.exit_code == -signal.SIGKILL


def test_restart_starts_a_new_process_and_ignores_old_output(fleet):
    """Name, command line and log stay the same. `wait_ready` looks at the new process's output only."""
    member = fleet.start("idle", IDLE)
    wait_ready(member, "up", PATIENCE_S)
    first = member.pid
    member.kill_group()
    member.restart()
    assert member.pid != first
    wait_ready(member, "up", PATIENCE_S)
    assert member.log_path.read_text().count("up") == 2


@linux
def test_members_die_with_their_parent_even_if_frozen(tmp_path, wait_for):
    """A demo that is killed leaves no worker running, not even a stopped one."""
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
    """The kernel ties a child to the thread that forked it. A member is tied to the whole process."""
    passing = threading.Thread(target=fleet.start, args=("idle", IDLE))
    passing.start()
    passing.join()
    (member,) = fleet.members
    wait_ready(member, "up", PATIENCE_S)
    assert member.alive


@linux
def test_a_forked_process_can_start_its_own_members(tmp_path: Path):
    """A fork does not inherit the starter thread. The child makes a new one, instead of waiting forever."""
    program = (
        "import os, sys; from pathlib import Path; from midwatch.workers.local.fleet import Fleet, wait_ready\n"
        "Fleet({}, Path(sys.argv[1])).start('one', sys.argv[2:]).terminate()\n"
        "child = os.fork()\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "with Fleet({}, Path(sys.argv[1])) as fleet: wait_ready(fleet.start('two', sys.argv[2:]), 'up', 10)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path), *IDLE]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0
