"""A Redis inside this process, for tests: fakeredis runs the step machine's own scripts, and its time is a clock moved by hand.

Three things that fakeredis does not do are added here: the shebang line of a script is accepted, `redis.sha1hex` exists,
and every moment (`TIME`, and when keys expire) is that of the given clock.
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha1
from typing import Any

import redis
from fakeredis import FakeRedis, FakeServer
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._core import Database
from fakeredis._socket import FakeSocket

from midwatch.orchestration.ports import Clock

SHEBANG = b"#!lua"
"""It tells a server the script's engine and flags. Lua itself does not understand it."""


class _Database(Database):
    """Keys that expire by the given clock."""

    def __init__(self, lock: Any, clock: Clock) -> None:
        self._clock = clock
        super().__init__(lock)

    @property
    def time(self) -> float:
        """Now, in seconds."""
        return self._clock.monotonic_ms() / 1_000

    @time.setter
    def time(self, now_s: float) -> None:
        """Ignore the system's time: the server sets it before each command."""


class _Server(FakeServer):
    """A Valkey 8 of its own: two of them share nothing."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(version=(8,), server_type="valkey")
        self.clock = clock
        self.dbs = defaultdict(lambda: _Database(self.lock, clock))


class _Lua:
    """The Lua of one server. A script is compiled once; fakeredis compiles it, and collects all garbage, at each call."""

    def __init__(self, runtime: Any) -> None:
        self.table_from, self.globals = runtime.table_from, runtime.globals
        self._compile = runtime.compile
        self._compiled: dict[bytes, Any] = {}
        runtime.eval("function(sha1hex) redis.sha1hex = sha1hex end")(_sha1hex)

    def execute(self, script: bytes | str) -> Any:
        """Run a script and return its reply."""
        if isinstance(script, str):  # "collectgarbage()": Lua collects by itself
            return None
        if script not in self._compiled:
            self._compiled[script] = self._compile(script.removeprefix(SHEBANG))
        return self._compiled[script]()


class _Socket(FakeSocket):
    """Commands that differ."""

    _server: _Server

    def time(self) -> list[bytes]:
        """TIME, by the given clock."""
        seconds, ms = divmod(self._server.clock.monotonic_ms(), 1_000)
        return [str(seconds).encode(), str(ms * 1_000).encode()]

    def _get_server_runtime(self, server: Any) -> Any:
        runtime = super()._get_server_runtime(server)
        if not isinstance(runtime, _Lua):
            runtime = server._lua_runtime = _Lua(runtime)
        return runtime


class _Connection(FakeRedisConnection):
    def _connect(self) -> FakeSocket:
        return _Socket(
            self._server,  # type: ignore[arg-type]
            client_class=self._client_class,
            db=self.db,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )


def connect(clock: Clock) -> redis.Redis:
    """A client of a new, empty server in this process."""
    return FakeRedis(server=_Server(clock), server_type="valkey", version=(8,), connection_class=_Connection)


def _sha1hex(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).hexdigest().encode()
