"""A Redis inside this process, for tests: fakeredis runs Midwatch's own scripts, and a manual clock gives the time.

This module adds three things that fakeredis lacks. Scripts may begin with a shebang line. `redis.sha1hex` exists. All times
(`TIME`, and when keys expire) come from the given clock.
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha1
from typing import Any

import redis
from fakeredis import FakeRedis, FakeServer
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._core import Database
from fakeredis._helpers import SimpleError
from fakeredis._msgs import FLAG_LEAVE_EMPTY_VAL
from fakeredis._socket import FakeSocket
from fakeredis.commands_mixins.scripting_mixin import _convert_redis_arg as convert_argument

from midwatch.orchestration.ports import Clock

SHEBANG = b"#!lua"
"""The first line of a script: it tells a server the engine and the flags. Lua itself can't parse it."""


class _Database(Database):
    """One database, whose keys expire by the given clock."""

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
    """One Valkey 8 server. Two servers share no data."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(version=(8,), server_type="valkey")
        self.clock = clock
        self.dbs = defaultdict(lambda: _Database(self.lock, clock))


class _Lua:
    """The Lua runtime of one server. It compiles a script once. Fakeredis compiles it and collects garbage at each call."""

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
    """One connection, with the commands that differ from those of fakeredis."""

    _server: _Server

    def _lua_redis_call(self, runtime: Any, expected_globals: set[Any], op: bytes, *args: Any) -> Any:
        """Run a command of a script, and return its reply for Lua.

        Fakeredis does more for each command. It publishes subkey events, which have no subscribers here. It also looks for
        global variables that the script has set; here they are found when the script ends.
        """
        run, signature = self._name_to_func(op.decode().lower())
        try:
            ready = signature.apply([convert_argument(each) for each in args], self._db, self.version)
            reply = ready[0] if len(ready) == 1 else run(*ready[0])  # type: ignore[misc]
            for item in ready[1] if len(ready) == 2 else ():
                item.writeback(remove_empty_val=FLAG_LEAVE_EMPTY_VAL not in signature.flags)
        except SimpleError as error:
            reply = error
        self._subkey_events.clear()
        return reply if type(reply) is bytes or type(reply) is int else self._convert_redis_result(runtime, reply)

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
    """A connection that hands a command to its socket as it is. Fakeredis encodes it, and reads it again."""

    def send_command(self, *args: Any, **options: Any) -> None:
        """Run a command. Its reply waits in the socket."""
        if not self._sock:
            self.connect()
        name, *rest = args
        encode: Any = self.encoder.encode
        socket: Any = self._sock
        socket._process_command([encode(each) for each in (*name.split(), *rest)])

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
