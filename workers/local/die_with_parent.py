"""Start processes that die with this one, however it dies: a killed demo or test run leaves nothing running.

On Linux the kernel sees to it (PR_SET_PDEATHSIG); elsewhere a process ends when its owner stops it. Three traps:

- `preexec_fn` could ask the kernel, but it runs Python between fork and exec, where a process with threads may
  deadlock. So a wrapper asks (22 ms, once) and then becomes the program: same pid, same group.
- To the kernel the parent is the *thread* that forked: a child started by a passing thread would die with that thread.
  So one thread, which lives as long as the process, starts them all.
- A process that forks later (prefork) does not inherit that thread: the child makes its own when it first needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
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
"""1 is PR_SET_PDEATHSIG. A parent that died before the call shows in its pid: we are someone else's child by then.
`report` is a pipe that closes when the program begins: a start returns when the leash is on, or raises what went wrong.
Without it a member frozen in its first milliseconds stayed behind when its parent was killed."""

Process = subprocess.Popen[bytes]


class _Starter:
    """The one thread of this process that starts children. A daemon: it waits for nothing when the process ends."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._requests: SimpleQueue[tuple[Callable[[], Process], Future[Process]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="leash", daemon=True).start()

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


def _on_lasting_thread(start: Callable[[], Process]) -> Process:
    global _starter
    with _starter_lock:
        if _starter is None or _starter.owner_pid != os.getpid():
            _starter = _Starter()
        starter = _starter
    return starter.run(start)


def start_leashed(
    argv: Sequence[str],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a program in a session and process group of its own, its output appended to a file.

    The group can be killed or frozen as a whole; the session keeps the terminal's Ctrl-C away from it, so that this
    process decides in which order things stop. File handles in `pass_fds` stay open in the program.

    Raises:
        OSError: the program or the log file can't be opened.

    """

    def start(command: Sequence[str], handles: Sequence[int]) -> Process:
        with log_path.open("ab") as log:
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
            process = _on_lasting_thread(lambda: start(wrapped, (*pass_fds, report)))
        finally:
            os.close(report)
        error = answer.read()
    if error:
        process.wait()
        raise OSError(int(error), os.strerror(int(error)), argv[0])
    return process


def signal_group(process: Process, signal_number: int) -> None:
    """Send a signal to a process and all it started. A group that is gone is no error."""
    try:
        os.killpg(process.pid, signal_number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of which only zombies are left
        return


def last_lines(path: Path, lines: int = 10, *, start_bytes: int = 0) -> str:
    """The end of a log file, for error messages."""
    try:
        with path.open("rb") as log:
            log.seek(max(start_bytes, path.stat().st_size - 8_192))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
