"""Measuring for benchmarks: CPU time of a process tree, commands and memory of a server, percentiles.

CPU time and commands are counters: read them before and after a run, and subtract. Both sides of a comparison use the same
functions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from midwatch.orchestration.errors import ConfigError

PROC = Path("/proc")


class _Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used here."""

    parent_pid: int
    ticks: int
    """User and system time of the process and of its finished children."""


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants, with those of finished children.

    The kernel counts in ticks of 10 ms, so measure over seconds. Needs /proc, which only Linux has.

    Raises:
        ConfigError: this system has no /proc.
        ProcessLookupError: there is no such process.

    """
    if not (PROC / "self/stat").exists():
        raise ConfigError("CPU time is read from /proc, which this system does not have: run the benchmarks on Linux")
    stats = dict(_stats())
    if pid not in stats:
        raise ProcessLookupError(f"no process {pid}: CPU time can be read only while a process runs")
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(stat.parent_pid, []).append(child)
    tree = [pid]
    for member in tree:  # the list grows during the loop; each process has one parent, so it is added once
        tree += children.get(member, [])
    return sum(stats[member].ticks for member in tree) / os.sysconf("SC_CLK_TCK")


def _stats() -> Iterator[tuple[int, _Stat]]:
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "stat").read_text(errors="replace")
        except OSError:  # the process has ended meanwhile
            continue
        fields = line[line.rindex(")") + 2 :].split()  # the program's name may contain spaces and brackets
        yield int(folder.name), _Stat(int(fields[1]), sum(map(int, fields[11:15])))


def redis_commands(client: redis.Redis, *, but: Collection[str] = ("info",)) -> int:
    """Return how many commands the server has run. Commands inside scripts and transactions count one by one.

    Args:
        client: any connection to the server.
        but: commands that are left out because only the measurement uses them, in lower case.

    """
    rows = client.info("commandstats")
    return sum(int(row["calls"]) for name, row in rows.items() if name.removeprefix("cmdstat_") not in but)


def kept_bytes(client: redis.Redis, match: str) -> int:
    """Return the memory of all keys that match a glob, with their names and table entries.

    The sizes of the keys are added up, because `used_memory` also changes with connections, buffers and scripts.
    """
    names = list(client.scan_iter(match=match, count=1_000))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.memory_usage(name, samples=0)
        return sum(int(size or 0) for size in pipe.execute())


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile for `share` (0 to 1), interpolated between neighbours.

    Raises:
        ValueError: there are no values.

    """
    if not values:
        raise ValueError("a percentile needs at least one value, got none")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))
