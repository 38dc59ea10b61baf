"""One process of a fleet, with its process group and its log. Fleets start it, and fault tests kill or freeze it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from midwatch.workers.process.die_with_parent import read_last_lines, signal_group, start_process


class Member:
    """A named member of a fleet. It runs one process at a time; `restart()` starts the next one. Made by `Fleet.start`."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log_path = log_path
        self.wanted = True
        """Should a watching fleet restart it? False after `terminate()`."""
        self.killed = False
        """Did `kill_group()` end the last process?"""
        self._env = dict(env)
        self._ended = False
        self._lock = threading.RLock()
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the current or last process. It is also the id of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Does the process run? A frozen process counts as running. If it has died, the rest of its group is killed."""
        with self._lock:
            if self._ended:
                return False
            if self._process.poll() is None:
                return True
            self._ended = True
            signal_group(self._process, signal.SIGKILL)
            return False

    @property
    def exit_code(self) -> int | None:
        """None while it runs. A negative number is the signal that killed it."""
        return None if self.alive else self._process.returncode

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started_s

    @property
    def log_tail(self) -> str:
        """The last lines of its log since its last start."""
        return read_last_lines(self.log_path, start_bytes=self._log_start_bytes)

    def has_logged(self, text: str) -> bool:
        """Does its log contain `text` since its last start?"""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start_bytes)
            return text.encode() in log.read()

    def kill_group(self) -> None:
        """Send SIGKILL to the process and its children. A watching fleet restarts it, and does not count this death."""
        with self._lock:
            if self.alive:
                self.killed = True
                signal_group(self._process, signal.SIGKILL)
                self._process.wait()
                self._ended = True

    def freeze(self) -> None:
        """Send SIGSTOP to the group. The processes keep their connections and leases, and do nothing."""
        with self._lock:
            if self.alive:
                signal_group(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT to the group. The processes go on as if no time had passed."""
        with self._lock:
            if self.alive:
                signal_group(self._process, signal.SIGCONT)

    def terminate(self, timeout_s: float = 10.0) -> bool:
        """Send SIGTERM, so that a worker finishes its steps, and kill the group after `timeout_s`. No restart follows.

        Returns:
            True if the process ended by itself.

        """
        self.ask_to_end()
        return self.await_end(timeout_s)

    def ask_to_end(self) -> None:
        """Send SIGTERM and allow no more restarts. Only the main process gets the signal; it ends its children itself."""
        with self._lock:
            self.wanted = False
            if self.alive:
                self._process.terminate()
                signal_group(self._process, signal.SIGCONT)  # a frozen process handles SIGTERM only after SIGCONT

    def await_end(self, timeout_s: float) -> bool:
        """Wait for the end, and kill the group after `timeout_s`. Returns True if the process ended by itself."""
        try:
            self._process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self.kill_group()
            return False
        return not self.alive

    def restart(self, timeout_s: float = 10.0) -> None:
        """Stop the process if it runs, and start its command line again."""
        with self._lock:
            if self.alive:
                self.terminate(timeout_s)
            self._start()

    def revive(self) -> bool:
        """Start the process again if it died unexpectedly. A watching fleet calls this. Returns False if nothing was done."""
        with self._lock:
            if self.alive or not self.wanted:
                return False
            self._start()
            return True

    def _start(self) -> None:
        self._log_start_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._process = start_process(self.argv, log_path=self.log_path, env=self._env)
        self._started_s = time.monotonic()
        self._ended = self.killed = False
        self.wanted = True
