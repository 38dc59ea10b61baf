"""One process of a fleet: its group, its log, its ends. Fleets start it, fault tests break it on purpose."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from midwatch.workers.local.die_with_parent import last_lines, signal_group, start_leashed


class Member:
    """Outlives its process: `restart()` gives it the next one. Made by `Fleet.start`."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log_path = log_path
        self.wanted = True
        """Whether a watching fleet should restart it: False once `terminate()` was called."""
        self.killed = False
        """Whether `kill_group()` ended the process that ran last."""
        self._env = dict(env)
        self._ended = False
        self._lock = threading.RLock()
        self._start()

    @property
    def pid(self) -> int:
        """Process id, and the id of its group, of the process that runs now or ran last."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; a frozen one does. What a dead one left in its group is killed at once."""
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
        """None while it runs; negative is the signal that killed it."""
        return None if self.alive else self._process.returncode

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started_s

    @property
    def said(self) -> str:
        """The end of its log, since its last start."""
        return last_lines(self.log_path, start_bytes=self._log_start_bytes)

    def has_said(self, text: str) -> bool:
        """Whether its log holds `text`, since its last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start_bytes)
            return text.encode() in log.read()

    def kill_group(self) -> None:
        """SIGKILL to it and all it started. A watching fleet restarts it, and does not hold the death against it."""
        with self._lock:
            if self.alive:
                self.killed = True
                signal_group(self._process, signal.SIGKILL)
                self._process.wait()
                self._ended = True

    def freeze(self) -> None:
        """SIGSTOP to the group: it keeps its connections and leases, and does nothing."""
        with self._lock:
            if self.alive:
                signal_group(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to the group: it goes on as if no time had passed."""
        with self._lock:
            if self.alive:
                signal_group(self._process, signal.SIGCONT)

    def terminate(self, timeout_s: float = 10.0) -> bool:
        """Ask it to end (SIGTERM: a worker finishes what it does) and kill the group after `timeout_s`. For good.

        Returns:
            Whether it ended by itself.

        """
        self.ask_to_end()
        return self.await_end(timeout_s)

    def ask_to_end(self) -> None:
        """SIGTERM, and no more restarts. To the process alone: its children end when it says so."""
        with self._lock:
            self.wanted = False
            if self.alive:
                self._process.terminate()
                signal_group(self._process, signal.SIGCONT)  # a frozen one hears SIGTERM only when it goes on

    def await_end(self, timeout_s: float) -> bool:
        """Wait for the end; kill the group when it has not come within `timeout_s`. True: it ended by itself."""
        try:
            self._process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self.kill_group()
            return False
        return not self.alive

    def restart(self, timeout_s: float = 10.0) -> None:
        """Start its command line again, after ending what still runs of it."""
        with self._lock:
            if self.alive:
                self.terminate(timeout_s)
            self._start()

    def revive(self) -> bool:
        """Start it again if it is dead and nobody asked it to end. For a watching fleet; false: nothing to do."""
        with self._lock:
            if self.alive or not self.wanted:
                return False
            self._start()
            return True

    def _start(self) -> None:
        self._log_start_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._process = start_leashed(self.argv, log_path=self.log_path, env=self._env)
        self._started_s = time.monotonic()
        self._ended = self.killed = False
        self.wanted = True
