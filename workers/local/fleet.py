"""Worker processes on this machine: start them, watch them, stop them.

For `midwatch demo`, `dev`, `bench` and the fault tests; in production this is systemd's or Kubernetes' work.
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
"""A member that lived shorter than this died quickly: its command line, its settings or its server may be wrong."""

FREE_DEATHS = 5
"""Quick deaths in a row that are answered by a restart at once: faults come in bursts, and recovery should not wait."""

MOST_DEATHS = 12
"""Quick deaths in a row after which a member is given up: a minute or two after the first."""

_BACKOFF_CAP_S = 30.0
_POLL_S = 0.05
_READY_POLL_S = 0.02


@dataclass(frozen=True)
class Death:
    """A member ended under watch, and nobody had asked it to."""

    name: str
    pid: int
    exit_code: int | None
    """Negative: the signal that killed it."""
    lived_s: float
    restart_in_s: float | None
    """None: given up."""
    said: str
    """The end of its log."""


@dataclass
class _Trouble:
    """What the watch knows of a member that died."""

    pid: int = 0
    quick_deaths: int = 0
    restart_at_s: float | None = None


class Fleet:
    """Members that start, are watched and stop together.

    Args:
        env: what the members' environment has besides that of this process.
        log_dir: one log file for each member, `NAME.log`; made when missing.
        on_death: told of every death under watch, on the watching thread; by default a line is logged.

    """

    def __init__(
        self, env: Mapping[str, str], log_dir: Path, *, on_death: Callable[[Death], None] | None = None
    ) -> None:
        self._env = {"PYTHONUNBUFFERED": "1", **env}
        self._log_dir = log_dir
        self._on_death = on_death or _log_death
        self._members: dict[str, Member] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        log_dir.mkdir(parents=True, exist_ok=True)

    @property
    def members(self) -> tuple[Member, ...]:
        """All that were started, in that order; some may have ended."""
        return tuple(self._members.values())

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Member:
        """Start one process, with `env` on top of the fleet's.

        Raises:
            ConfigError: the name is taken, or can't be part of a file name.
            OSError: the program can't be started, for example because there is none of that name.

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
        """From now on restart members that die, until `stop()`. Those that were asked to end stay ended.

        The first five quick deaths of a member in a row are answered at once, the next ones after a wait that doubles
        up to 30 s; at the twelfth it is given up.
        """
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="fleet-watch", daemon=True)
            self._watcher.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask all to end at once, wait, and kill the groups of those that need longer than `timeout_s`."""
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
                    self._mend(member)

    def _mend(self, member: Member) -> None:
        trouble = self._troubles.setdefault(member.name, _Trouble())
        if trouble.pid != member.pid:
            trouble.pid = member.pid
            # A fault test may kill as often as it likes: such a death is no evidence against the member.
            self._note(member, trouble, member.lived_s, member.said, blame=not member.killed)
        if trouble.restart_at_s is not None and time.monotonic() >= trouble.restart_at_s:
            try:
                member.revive()
            except OSError as error:  # no memory, no process left, no interpreter: perhaps later
                self._note(member, trouble, 0.0, f"could not be started: {error}", blame=True)

    def _note(self, member: Member, trouble: _Trouble, lived_s: float, said: str, *, blame: bool) -> None:
        if blame:
            trouble.quick_deaths = trouble.quick_deaths + 1 if lived_s < QUICK_S else 0
        wait_s = restart_in_s(trouble.quick_deaths)
        trouble.restart_at_s = None if wait_s is None else time.monotonic() + wait_s
        self._on_death(Death(member.name, member.pid, member.exit_code, lived_s, wait_s, said))


def restart_in_s(quick_deaths: int) -> float | None:
    """How long a member that died quickly so many times in a row waits for its restart. None: it is given up."""
    if quick_deaths >= MOST_DEATHS:
        return None
    if quick_deaths <= FREE_DEATHS:
        return 0.0
    return float(min(2 ** (quick_deaths - FREE_DEATHS - 1), _BACKOFF_CAP_S)) * random.uniform(0.5, 1.0)


def wait_ready(member: Member, ready: str | Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a member is ready: its log holds a text, or a predicate holds.

    Raises:
        MidwatchError: it ended, or `timeout_s` passed; the end of its log is in the message.

    """
    deadline_s = time.monotonic() + timeout_s
    is_ready = ready if callable(ready) else lambda: member.has_said(ready)
    while time.monotonic() < deadline_s:
        ended = not member.alive  # before the question: what it said last still counts
        if is_ready():
            return
        if ended:
            raise MidwatchError(f"{member.name} ended with {member.exit_code} before it was ready:\n{member.said}")
        time.sleep(_READY_POLL_S)
    raise MidwatchError(f"{member.name} was not ready within {timeout_s:g} s; the end of its log:\n{member.said}")


def worker_argv(queues: str, pool: str, concurrency: int, name: str = "") -> list[str]:
    """The command line of one `midwatch worker`."""
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
