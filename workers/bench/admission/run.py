"""`midwatch bench admission`: the cost of a decision of the coordinator, compared with a PING and other rate limiters."""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.admission.clients import Clients
from midwatch.workers.bench.admission.peers import CONTENDERS, FLOOR, Contender
from midwatch.workers.bench.measure import percentile, redis_commands
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.redis_connection import connect_redis

MOST_PROCESSES = 64

MEASURING = ("info", "flushdb")
"""Commands that only the measurement uses."""


@dataclass(frozen=True)
class Cell:
    """The figures per decision of one contender, with one number of clients, in one round."""

    ops_per_s: float
    p50_us: float
    p99_us: float
    """Time as a client sees it, with the round trip to the server."""
    server_cpu_us: float
    redis_commands: float
    """Commands inside a script count one by one."""
    round_trips: float
    unexpected: float
    """Share of decisions with another result than expected, or with an error."""


@dataclass(frozen=True)
class _Reading:
    """The server's counters at one moment."""

    cpu_s: float
    commands: int
    reads: int
    """Reads of sockets. There is one for each request, because a client waits for an answer before the next request."""


def run(
    *,
    processes: Sequence[int] = (1, 4, 16),
    seconds: float = 2.0,
    rounds: int = 3,
    say: Callable[[str], None] = lambda _: None,
    contenders: Sequence[Contender] = CONTENDERS,
) -> dict[str, Any]:
    """Run all contenders in turn on one server without persistence. Every figure is the median of its rounds.

    Args:
        processes: numbers of concurrent clients. Each gives one row.
        seconds: duration of one measurement.
        rounds: number of rounds.
        say: called with progress messages, and with contenders that are not installed.
        contenders: the rate limiters to measure.

    Returns:
        `rows`: one for each contender and number of clients, with figures per decision. `cpu_to_floor` is the server CPU
        divided by that of a PING in the same round. Compare this figure across machines, for four or more clients. With one
        client the server sleeps between two PINGs, and the cost of waking up distorts the figure.

    Raises:
        ConfigError: the arguments leave nothing to measure.
        MidwatchError: a client failed.

    """
    _check(processes, seconds, rounds)
    load_1m = os.getloadavg()[0]
    present = [contender for contender in contenders if _is_installed(contender, say)]
    cells: dict[tuple[str, int], list[Cell]] = {(c.name, n): [] for c in present for n in processes}
    with (
        EmbeddedServer(append_only=None) as server,
        connect_redis(server.url) as reading,
        Clients(server.url, max(processes)) as clients,
    ):
        for n in range(rounds):
            for count in processes:
                say(f"round {n + 1} of {rounds}, {count} client{'s' if count > 1 else ''}")
                for contender in present:
                    cells[contender.name, count].append(_measure_cell(reading, clients, contender, count, seconds, say))
        version = reading.info("server").get("valkey_version")
    rows = [_make_row(contender, count, cells) for contender in present for count in processes]
    setting = {"seconds": seconds, "rounds": rounds, "server": f"Valkey {version}, no persistence"}
    return {"rows": rows, **setting, "load_1m": load_1m, "cpus": os.cpu_count()}


def _check(processes: Sequence[int], seconds: float, rounds: int) -> None:
    if not processes or not all(1 <= count <= MOST_PROCESSES for count in processes):
        raise ConfigError(f"processes={tuple(processes)}: expected one or more numbers between 1 and {MOST_PROCESSES}")
    if seconds <= 0 or rounds < 1:
        raise ConfigError(f"seconds={seconds:g}, rounds={rounds}: nothing would be measured; expected both above 0")


def _is_installed(contender: Contender, say: Callable[[str], None]) -> bool:
    if not contender.library or importlib.util.find_spec(contender.library):
        return True
    say(f"{contender.name} is left out: {contender.library} is not installed (pip install 'midwatch[bench]')")
    return False


def _measure_cell(
    reading: redis.Redis,
    clients: Clients,
    contender: Contender,
    processes: int,
    seconds: float,
    say: Callable[[str], None],
) -> Cell:
    reading.flushdb(asynchronous=False)  # in a background thread it would add CPU to the next cell
    clients.prepare(contender, processes)
    before = _read(reading)
    tally = clients.decide(processes, seconds)
    after = _read(reading)
    took_us = list(tally.took_us.elements())
    if tally.unexpected:
        why = tally.error or ("refused" if contender.admits else "admitted")
        say(f"{contender.name}, {processes} clients: {tally.unexpected} of {tally.decisions} not as expected: {why}")
    return Cell(
        ops_per_s=tally.decisions / seconds,
        p50_us=percentile(took_us, 0.50),
        p99_us=percentile(took_us, 0.99),
        server_cpu_us=(after.cpu_s - before.cpu_s) * 1e6 / tally.decisions,
        redis_commands=(after.commands - before.commands) / tally.decisions,
        round_trips=(after.reads - before.reads) / tally.decisions,
        unexpected=tally.unexpected / tally.decisions,
    )


def _read(client: redis.Redis) -> _Reading:
    cpu: dict[str, float] = client.info("cpu")
    reads = int(client.info("stats")["total_reads_processed"])
    return _Reading(cpu["used_cpu_user"] + cpu["used_cpu_sys"], redis_commands(client, but=MEASURING), reads)


def _make_row(contender: Contender, processes: int, cells: dict[tuple[str, int], list[Cell]]) -> dict[str, Any]:
    mine, floor = cells[contender.name, processes], cells.get((FLOOR.name, processes))
    median = Cell(**{name: statistics.median(getattr(cell, name) for cell in mine) for name in asdict(mine[0])})
    ratios = [cell.server_cpu_us / least.server_cpu_us for cell, least in zip(mine, floor or (), strict=False)]
    return {
        "name": contender.name,
        "processes": processes,
        "ops_per_s": round(median.ops_per_s),
        "p50_us": round(median.p50_us),
        "p99_us": round(median.p99_us),
        "server_cpu_us": round(median.server_cpu_us, 1),
        "cpu_to_floor": round(statistics.median(ratios), 1) if ratios else None,
        "redis_commands": round(median.redis_commands, 2),
        "round_trips": round(median.round_trips, 2),
        "unexpected": round(median.unexpected, 4),
        "decides": contender.decides,
    }
