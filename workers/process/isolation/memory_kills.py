"""How many processes the kernel has killed for memory, in this container and on this machine.

The counter is `oom_kill` in cgroup v2's `memory.events`, in cgroup v1's `memory.oom_control`, and in `/proc/vmstat`
(Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and filesystems/proc.rst of the kernel). A process that the kernel
kills and one that a person kills both die of SIGKILL. Only this counter tells them apart. The cgroup counts its own processes,
whichever limit was exceeded. `/proc/vmstat` counts all processes of the machine, and is read only if no cgroup has a
counter.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def count_memory_kills(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Count them. None: no counter can be read here, for example on macOS."""
    counts = (_read(path) for path in [*_own_counters(proc, cgroup), proc / "vmstat"])
    return next((count for count in counts if count is not None), None)


def _own_counters(proc: Path, cgroup: Path) -> list[Path]:
    """The counters of this process's cgroup, the nearest first. In a container its own cgroup may be mounted as the root."""
    found = []
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(cgroup / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(cgroup / "memory" / path.lstrip("/") / "memory.oom_control")
    return [*found, cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"]


def _read(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return None
