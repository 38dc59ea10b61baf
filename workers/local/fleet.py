"""A fleet of processes on this machine: start them, restart those that die, and stop them.

`midwatch demo`, `dev`, `bench` and the fault tests use it. In production systemd or Kubernetes does this.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from midwatch.orchestration.errors import ConfigError, MidwatchError
from midwatch.workers.local.process import Member

__all__ = ["Death", "Fleet", "Member", "wait_ready", "worker_argv"]

QUICK_S = 10.0
"""A death is quick if the member lived shorter than this. Its command line, settings or server may be wrong."""

FREE_DEATHS = 5
"""This many quick deaths in a row are followed by an immediate restart. Faults come in bursts, and recovery should be fast."""

MOST_DEATHS = 12
"""After this many quick deaths in a row a member is given up. This takes one or two minutes."""

_BACKOFF_CAP_S = 30.0
_POLL_S = 0.05
_READY_POLL_S = 0.02


@dataclass(frozen=True)
class Death:
    """The unexpected end of a watched member."""

    name: str
    pid: int
    exit_code: int | None
    """A negative number is the signal that killed it."""
    lived_s: float
    restart_in_s: float | None
    """None: the member is given up."""
    log_tail: str
    """The end of its log."""


@dataclass
class _RestartState:
    """What the watch remembers of a member that died."""

    pid: int = 0
    quick_deaths: int = 0
    restart_at_s: float | None = None


class Fleet:
    """A group of processes, its members.

    Args:
        env: variables of the members, added to the environment of this process.
        log_dir: folder for one log file per member, `NAME.log`. It is made if it does not exist.
        on_death: called on the watching thread for every unexpected death. By default a line is logged.

    """

    def __init__(
        self, env: Mapping[str, str], log_dir: Path, *, on_death: Callable[[Death], None] | None = None
    ) -> None:
        self._env = {"PYTHONUNBUFFERED": "1", **env}
        self._log_dir = log_dir
        self._on_death = on_death or _log_death
        self._members: dict[str, Member] = {}
        self._restart_states: dict[str, _RestartState] = {}
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        log_dir.mkdir(parents=True, exist_ok=True)

    @property
    def members(self) -> tuple[Member, ...]:
        """All members in the order of their start. Some may have ended."""
        return tuple(self._members.values())

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Member:
        """Start one process. `env` wins over the fleet's variables.

        Raises:
            ConfigError: the name is taken, or can't be part of a file name.
            OSError: the program can't be started, for example because it does not exist.

        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"a member's name becomes a file name: letters, digits, '.', '_' and '-', not {name!r}")
        if name in self._members:
            raise ConfigError(f"the fleet has a member {name!r} already: restart() it, or choose another name")
        merged = {**os.environ, **self._env, **(env or {})}
        member = Member(name, argv, merged, self._log_dir / f"{name}.log")
        self._members[name] = member
        return member

    def watch(self) -> None:
        """Restart members that die, until `stop()`. Members that were stopped on purpose are not restarted.

        After each of the first five quick deaths in a row a member restarts at once. After the next ones it restarts after
        a wait that doubles up to 30 s. After the twelfth it is given up.
        """
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="fleet-watch", daemon=True)
            self._watcher.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Send SIGTERM to all members, and kill the groups of those that need longer than `timeout_s`."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        for member in self.members:
            member.ask_to_end()
        deadline_s = time.monotonic() + timeout_s
        for member in self.members:
            member.await_end(deadline_s - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            for member in self.members:
                if member.wanted and not member.alive:
                    self._restart_when_due(member)

    def _restart_when_due(self, member: Member) -> None:
        state = self._restart_states.setdefault(member.name, _RestartState())
        if state.pid != member.pid:
            state.pid = member.pid
            # A death by `kill_group` does not count: a fault test may kill a member any number of times.
            self._record_death(member, state, member.lived_s, member.log_tail, counts=not member.killed)
        if state.restart_at_s is not None and time.monotonic() >= state.restart_at_s:
            try:
                member.revive()
            except OSError as error:  # for example out of memory: try again later
                self._record_death(member, state, 0.0, f"could not be started: {error}", counts=True)

    def _record_death(
        self, member: Member, state: _RestartState, lived_s: float, log_tail: str, *, counts: bool
    ) -> None:
        if counts:
            state.quick_deaths = state.quick_deaths + 1 if lived_s < QUICK_S else 0
        wait_s = restart_delay_s(state.quick_deaths)
        state.restart_at_s = None if wait_s is None else time.monotonic() + wait_s
        self._on_death(Death(member.name, member.pid, member.exit_code, lived_s, wait_s, log_tail))


def restart_delay_s(quick_deaths: int) -> float | None:
    """Return the wait before a restart, after this many quick deaths in a row. None: the member is given up."""
    if quick_deaths >= MOST_DEATHS:
        return None
    if quick_deaths <= FREE_DEATHS:
        return 0.0
    return float(min(2 ** (quick_deaths - FREE_DEATHS - 1), _BACKOFF_CAP_S)) * random.uniform(0.5, 1.0)


def wait_ready(member: Member, ready: str | Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a member is ready: its log contains a text, or a predicate is true.

    Raises:
        MidwatchError: the member ended, or `timeout_s` passed; the message holds the end of its log.

    """
    deadline_s = time.monotonic() + timeout_s
    is_ready = ready if callable(ready) else lambda: member.has_logged(ready)
    while time.monotonic() < deadline_s:
        ended = not member.alive  # read before the check, so that the last log lines still count
        if is_ready():
            return
        if ended:
            raise MidwatchError(f"{member.name} ended with {member.exit_code} before it was ready:\n{member.log_tail}")
        time.sleep(_READY_POLL_S)
    raise MidwatchError(f"{member.name} was not ready within {timeout_s:g} s; the end of its log:\n{member.log_tail}")


def worker_argv(queues: str, pool: str, concurrency: int, name: str = "") -> list[str]:
    """Return the command line of one `midwatch worker`."""
    argv = [sys.executable, "-m", "midwatch.workers.cli", "worker", "--queues", queues, "--pool", pool]
    return [*argv, "--concurrency", str(concurrency), *(["--name", name] if name else [])]


def _log_death(death: Death) -> None:
    structlog.get_logger("midwatch.fleet").warning(
        "fleet.member_died",
        member=death.name,
        pid=death.pid,
        exit_code=death.exit_code,
        lived_s=round(death.lived_s, 1),
        restart_in_s=death.restart_in_s,
    )
