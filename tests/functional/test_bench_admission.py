"""`bench admission` on a real server with real client processes. Runs are small and figures are checked."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat

import pytest
import redis as redis_py

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.errors import ConfigError, MidwatchError
from midwatch.schemas.limits import DownstreamStatus
from midwatch.workers.bench.admission import clients as admission_clients
from midwatch.workers.bench.admission.clients import Clients, hammer
from midwatch.workers.bench.admission.peers import CONTENDERS, DOWNSTREAM, FLOOR, KEYS, REFUSED, WHOLE_CALL, Contender
from midwatch.workers.bench.admission.run import run
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.patience import PATIENCE_S, wait_for


@pytest.fixture(scope="module")
def idle() -> Iterator[EmbeddedServer]:
    """A server that these tests may flush."""
    with EmbeddedServer(append_only=None) as server:
        yield server


@pytest.fixture
def empty(idle, connect_redis) -> redis_py.Redis:
    """A client of that server, which has no keys."""
    client = connect_redis(idle.url)
    client.flushdb()
    return client


def standing(client: redis_py.Redis) -> DownstreamStatus:
    return Board(client, KEYS).show(DOWNSTREAM)


def test_every_contender_is_measured_with_every_number_of_clients():
    """Each has a row with plausible figures and without unexpected decisions. A whole call is two round trips."""
    said: list[str] = []
    figures = run(processes=(1, 2), seconds=0.2, rounds=1, say=said.append)
    rows = {(row["name"], row["processes"]): row for row in figures["rows"]}
    present = [c for c in CONTENDERS if not c.library or importlib.util.find_spec(c.library)]
    assert list(rows) == [(contender.name, processes) for contender in present for processes in (1, 2)]
    assert len([line for line in said if "is left out" in line]) == len(CONTENDERS) - len(present)
    for row in rows.values():
        assert row["unexpected"] == 0, (row, said)
        assert row["ops_per_s"] > 0
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["server_cpu_us"] > 0
        assert row["decides"]
    for processes in (1, 2):
        floor = rows[FLOOR.name, processes]
        assert (floor["cpu_to_floor"], floor["redis_commands"]) == (1.0, 1.0)
        for name, trips in ((FLOOR.name, 1), (WHOLE_CALL.name, 2), (REFUSED.name, 1)):
            assert rows[name, processes]["round_trips"] == pytest.approx(trips, rel=0.1), (
                "one round trip for each script"
            )
    assert figures["cpus"] == os.cpu_count()
    assert figures["load_1m"] >= 0
    assert figures["server"].startswith("Valkey 9")


def test_a_whole_call_gives_back_what_it_reserved(idle, empty):
    """Every call is admitted, settled and counted, in jobs of ten steps. No call stays in flight."""
    with WHOLE_CALL.connect(idle.url) as decisions:
        assert all(next(decisions)() for _ in range(30))
    status = standing(empty)
    assert (status.admitted, status.ok, status.live, status.waiters) == (30, 30, 0, 0)
    assert status.expected_output > 0
    assert len(list(empty.scan_iter(match="*lineage:*"))) == 3


def test_a_refused_call_waits_in_line(idle, empty):
    """One call fits. Every later one is refused and waits in the server."""
    with REFUSED.connect(idle.url) as decisions:
        assert [next(decisions)() for _ in range(30)] == [True] + 29 * [False]
    status = standing(empty)
    assert (status.admitted, status.waiters, status.denied) == (1, 29, 0)


def test_a_library_that_is_not_installed_is_left_out_with_a_message():
    """A missing library is not an error: the table has one row less, and a message says what to install."""
    absent = Contender("absent", "nothing", FLOOR.connect, library="no_such_library")
    said: list[str] = []
    figures = run(processes=(1,), seconds=0.05, rounds=1, say=said.append, contenders=(FLOOR, absent))
    assert [row["name"] for row in figures["rows"]] == [FLOOR.name]
    assert "absent is left out: no_such_library is not installed (pip install 'midwatch[bench]')" in said


def test_failed_and_unexpected_decisions_are_counted():
    """A library that raises under load is not retried, not hidden, and does not end the benchmark."""

    def fails() -> bool:
        raise ConnectionError("too many of us")

    def hammer_once(decide, admits):
        """Hammer for 20 ms. Repeat it if the machine was too busy for a single decision."""

        def tally():
            now_s = time.monotonic()
            found = hammer(repeat(decide), admits, now_s, now_s + 0.02)
            return found if found.decisions else None

        return wait_for(tally, "a decision")

    failed = hammer_once(fails, True)
    assert failed.unexpected == failed.decisions == failed.took_us.total() > 0
    assert failed.error == "ConnectionError: too many of us"
    surprised = hammer_once(lambda: True, False)
    assert surprised.unexpected == surprised.decisions > 0
    assert surprised.error == ""


def test_a_client_that_dies_or_can_not_connect_is_reported(idle):
    """The benchmark ends with the reason. It does not hang, and prints no incomplete table."""
    with Clients(idle.url, 1) as clients:
        clients.prepare(FLOOR, 1)
        os.kill(clients.pids[0], signal.SIGKILL)
        with pytest.raises(MidwatchError, match="ended with -9"):
            clients.decide(1, 0.05)
    with Clients("redis://127.0.0.1:1/0", 1) as clients, pytest.raises(MidwatchError, match="ConnectionError"):
        clients.prepare(FLOOR, 1)


def test_a_client_ends_with_its_benchmark(idle):
    """If the benchmark is killed, its clients read the end of their input and exit."""
    argv = [sys.executable, "-m", admission_clients.__name__, idle.url]
    ended = subprocess.run(argv, input=b"", capture_output=True, timeout=PATIENCE_S, check=True)
    assert ended.stdout == b""


@pytest.mark.parametrize(
    "nothing", [{"processes": ()}, {"processes": (0,)}, {"processes": (1, 65)}, {"seconds": 0.0}, {"rounds": 0}]
)
def test_a_run_that_measures_nothing_is_refused(nothing):
    """The run is refused before it starts, with the wrong value in the message."""
    with pytest.raises(ConfigError, match=r"expected one or more numbers|nothing would be measured"):
        run(**nothing)
