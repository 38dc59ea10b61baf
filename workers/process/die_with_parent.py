"""Start processes that die with this process, even if it is killed. So a killed demo or test run leaves nothing running.

On Linux the kernel kills them (PR_SET_PDEATHSIG). On other systems a process ends when its owner stops it. Three problems
are solved here:

- `preexec_fn` could make the system call, but it runs Python between fork and exec, where a process with threads may
  deadlock. So a wrapper makes the call (22 ms, once) and then executes the program. Pid and group stay the same.
- The kernel treats the *thread* that forked as the parent. A child of a short-lived thread would die with that thread. So
  one thread starts all processes, and lives as long as this process.
- A forked child (prefork) does not inherit that thread. It makes a new one at its first start of a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue

_WRAPPER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
parent, report, *program = sys.argv[1:]
if os.getppid() != int(parent):
    os._exit(1)
os.set_inheritable(int(report), False)
try:
    os.execvp(program[0], program)
except OSError as error:
    os.write(int(report), str(error.errno).encode())
    os._exit(1)
"""
"""1 is PR_SET_PDEATHSIG. If the parent died before the call, the wrapper's parent pid has changed, and the wrapper ends.
`report` is a pipe that closes when the program begins. So `start_process` returns only after the call, or raises the error.
Without this pipe a member that was frozen in its first milliseconds survived its killed parent."""

Process = subprocess.Popen[bytes]


class _Starter:
    """The one thread of this process that starts children. It is a daemon, so the process can end at any time."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._requests: SimpleQueue[tuple[Callable[[], Process], Future[Process]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="process-starter", daemon=True).start()

    def run(self, start: Callable[[], Process]) -> Process:
        answer: Future[Process] = Future()
        self._requests.put((start, answer))
        return answer.result()

    def _serve(self) -> None:
        while True:
            start, answer = self._requests.get()
            try:
                answer.set_result(start())
            except Exception as error:
                answer.set_exception(error)


_starter: _Starter | None = None
_starter_lock = threading.Lock()


def _run_on_starter(start: Callable[[], Process]) -> Process:
    global _starter
    with _starter_lock:
        if _starter is None or _starter.owner_pid != os.getpid():
            _starter = _Starter()
        starter = _starter
    return starter.run(start)


def start_process(
    argv: Sequence[str],
    *,
    log_path: Path | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a program in a new session and process group. Its output is appended to a file, or goes to this process's stderr.

    The group can be killed or frozen as a whole. Because of the new session the program does not get the terminal's Ctrl-C,
    so this process decides the order in which processes stop. File descriptors in `pass_fds` stay open in the program.

    Raises:
        OSError: the program or the log file can't be opened.

    """

    def start(command: Sequence[str], handles: Sequence[int]) -> Process:
        with log_path.open("ab") if log_path else nullcontext(sys.__stderr__) as log:
            return subprocess.Popen(  # noqa: S603 - the command lines are this package's own
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=tuple(handles),
                start_new_session=True,
            )

    if sys.platform != "linux":
        return start(argv, pass_fds)
    reading, report = os.pipe()
    with open(reading, "rb") as answer:
        try:
            wrapped = [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), str(report), *argv]
            process = _run_on_starter(lambda: start(wrapped, (*pass_fds, report)))
        finally:
            os.close(report)
        error = answer.read()
    if error:
        process.wait()
        raise OSError(int(error), os.strerror(int(error)), argv[0])
    return process


def signal_group(process: Process, signal_number: int) -> None:
    """Send a signal to a process and its children. It is not an error if the group has ended."""
    try:
        os.killpg(process.pid, signal_number)
    except (ProcessLookupError, PermissionError):  # macOS returns EPERM for a group of zombies
        return


def read_last_lines(path: Path, lines: int = 10, *, start_bytes: int = 0) -> str:
    """Return the last lines of a log file, for error messages."""
    try:
        with path.open("rb") as log:
            log.seek(max(start_bytes, path.stat().st_size - 8_192))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
