"""What benchmarks measure with: CPU of a process tree, commands and memory of a server, percentiles.

Everything is a reading: take one before and one after, and subtract. Both sides of a comparison use the same ones.
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
    """What one line of /proc/PID/stat says of a process."""

    parent_pid: int
    ticks: int
    """User and system time, its own and that of children it has waited for."""


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and everything below it, dead and waited-for children included.

    The kernel counts in ticks of 10 ms: measure over seconds. Needs Linux's /proc and no package.

    Raises:
        ConfigError: there is no /proc here.
        ProcessLookupError: there is no such process.

    """
    if not (PROC / "self/stat").exists():
        raise ConfigError("CPU figures are read from /proc, which this system has not: run the benchmarks on Linux")
    stats = dict(_stats())
    if pid not in stats:
        raise ProcessLookupError(f"no process {pid}: its CPU time must be read while it lives")
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(stat.parent_pid, []).append(child)
    tree = [pid]
    for member in tree:  # grows while it is walked: each process has one parent, so each is met once
        tree += children.get(member, [])
    return sum(stats[member].ticks for member in tree) / os.sysconf("SC_CLK_TCK")


def _stats() -> Iterator[tuple[int, _Stat]]:
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "stat").read_text(errors="replace")
        except OSError:  # it ended while we looked
            continue
        fields = line[line.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
        yield int(folder.name), _Stat(int(fields[1]), sum(map(int, fields[11:15])))


def redis_commands(client: redis.Redis, *, but: Collection[str] = ("info",)) -> int:
    """How many commands the server has run, those inside scripts and transactions counted one by one.

    Args:
        client: any connection to the server.
        but: commands that only the measuring itself uses, in lower case.

    """
    rows = client.info("commandstats")
    return sum(int(row["calls"]) for name, row in rows.items() if name.removeprefix("cmdstat_") not in but)


def kept_bytes(client: redis.Redis, match: str) -> int:
    """Memory that the keys matching a glob take in the server, names and table entries included.

    Summed key by key: `used_memory` also moves with connections, buffers and scripts.
    """
    names = list(client.scan_iter(match=match, count=1_000))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.memory_usage(name, samples=0)
        return sum(int(size or 0) for size in pipe.execute())


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated between neighbours.

    Raises:
        ValueError: there are no values.

    """
    if not values:
        raise ValueError("a percentile needs at least one value, got none")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))
