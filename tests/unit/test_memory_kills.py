"""Did a process die of SIGKILL because memory ran out, or because a person killed it?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.schemas.loss import LossCause
from midwatch.workers.process.isolation import run_alone
from midwatch.workers.process.isolation.memory_kills import count_memory_kills


def write(path: Path, text: str) -> None:
    """Write a file of the kernel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "counter"),
    [
        ("0::/pod/one\n", "pod/one/memory.events"),
        ("4:cpu,memory:/pod/one\n0::/\n", "memory/pod/one/memory.oom_control"),
        ("0::/pod/one\n", "memory.events"),
    ],
    ids=["cgroup v2", "cgroup v1", "own cgroup mounted as the root"],
)
def test_the_counter_of_the_own_cgroup_is_read(tmp_path: Path, membership: str, counter: str) -> None:
    """The machine's counter would also count the kills of other containers."""
    write(tmp_path / "proc/self/cgroup", membership)
    write(tmp_path / "proc/vmstat", "nr_free_pages 7\noom_kill 99\n")
    write(tmp_path / "cgroup" / counter, "low 0\noom 4\noom_kill 3\n")
    assert count_memory_kills(tmp_path / "proc", tmp_path / "cgroup") == 3


def test_without_a_cgroups_counter_that_of_the_machine_is_read(tmp_path: Path) -> None:
    """Without any, nothing is known."""
    assert count_memory_kills(tmp_path / "proc", tmp_path / "cgroup") is None
    write(tmp_path / "proc/vmstat", "oom_kill 99\n")
    assert count_memory_kills(tmp_path / "proc", tmp_path / "cgroup") == 99


class Ended:
    """A process that has ended."""

    pid = 1

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


@pytest.mark.parametrize(
    ("code", "before", "after", "cause", "words"),
    [
        (-signal.SIGKILL, 3, 4, LossCause.OUT_OF_MEMORY, "because memory ran out"),
        (-signal.SIGKILL, 3, 3, LossCause.KILLED, "SIGKILL from outside"),
        (-signal.SIGKILL, None, None, LossCause.KILLED_OR_OUT_OF_MEMORY, "out of memory, or from outside"),
        (-signal.SIGSEGV, 3, 3, LossCause.CRASHED, "SIGSEGV (a crash in native code)"),
        (-signal.SIGTERM, 3, 4, LossCause.SIGNALLED, "SIGTERM"),
        (7, 3, 3, LossCause.EXITED, "exit code 7"),
    ],
)
def test_the_cause_of_a_death_is_a_typed_field_and_its_words_follow(
    monkeypatch: pytest.MonkeyPatch, code: int, before: int | None, after: int | None, cause: LossCause, words: str
) -> None:
    """Killed from outside, out of memory, crashed, ended by the step's own code, or unknown."""
    monkeypatch.setattr(run_alone, "count_memory_kills", lambda: after)
    reading, writing = os.pipe()
    watch = run_alone._Watch(Ended(int(code)), reading, 1.0)  # type: ignore[arg-type]
    os.close(writing)
    os.close(reading)
    assert watch._find_cause(before) is cause
    assert words in watch._describe_end(cause)


@pytest.mark.process
def test_a_process_that_is_killed_here_was_not_out_of_memory() -> None:
    """The kernel's counters of this machine are read, if there are any."""
    before = count_memory_kills()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.kill()
    process.wait()
    assert count_memory_kills() == before
