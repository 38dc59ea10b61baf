"""Call Lua scripts by their digest, and load them again when the server does not know them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions as redis_errors

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.ports import Piggyback
from midwatch.orchestration.store.script_calls.script_call import Arg as Arg
from midwatch.orchestration.store.script_calls.script_call import Reply, ScriptCall
from midwatch.orchestration.store.script_library import STEP_MACHINE, Library

UNAVAILABLE = (
    redis_errors.ConnectionError,  # BusyLoadingError is one of them
    redis_errors.TimeoutError,
    redis_errors.OutOfMemoryError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
)
"""Errors of a server that can't take a write now. All of them are transient."""

LOADS = 3
"""How often a script is loaded for one call. A server that is replaced during the call does not know it either."""


@dataclass(frozen=True)
class Prepared:
    """One call of a script of one library."""

    library: Library
    name: str
    keys: Sequence[str]
    args: Sequence[Arg]

    @property
    def command(self) -> tuple[Arg, ...]:
        """The command that goes to the server."""
        return (*self.library.command(self.name), len(self.keys), *self.keys, *self.args)


@dataclass(frozen=True)
class ScriptPiggyback:
    """A `ports.Piggyback` that is a script too: sent with another script when both go to the same server."""

    client: redis.Redis
    script: Prepared
    alone: Piggyback
    """Sends it by itself."""
    lost: Callable[[Exception], object]
    """Called with the error when the server refused it. The script that carried it counts nevertheless."""

    def __call__(self) -> object:
        """Send it by itself, now."""
        return self.alone()


class Scripts:
    """Calls the scripts of one library on one client."""

    def __init__(self, client: redis.Redis, library: Library = STEP_MACHINE) -> None:
        self.client = client
        self._library = library
        self._execute: Callable[..., Any] = client.execute_command

    def prepared(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Prepared:
        """A call that another call may carry."""
        return Prepared(self._library, name, keys, args)

    def run(self, call: ScriptCall[Reply], *, patience_ms: int = 0, piggyback: Piggyback | None = None) -> Reply:
        """Run a typed call, and return its typed reply. See `call`.

        Raises:
            UnreadableRecord: a record in the reply is of a newer version, or damaged.

        """
        reply = self.call(call.script, call.keys, call.args, patience_ms=patience_ms, piggyback=piggyback)
        return call.typed(reply)

    def run_all(self, calls: Sequence[ScriptCall[Reply]]) -> list[Reply]:
        """Run typed calls in one round trip. The first error is raised, after all have run.

        Raises:
            StoreUnavailable: a call failed, or the server can't be reached.

        """
        replies = self.pipeline([(call.script, call.keys, call.args) for call in calls])
        for reply in replies:
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
        return [call.typed(reply) for call, reply in zip(calls, replies, strict=True)]

    def call(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[Arg],
        *,
        patience_ms: int = 0,
        piggyback: Piggyback | None = None,
    ) -> Any:
        """Run a script; keep trying for `patience_ms` while the server can't be reached.

        Every script may be sent twice (its reply may be lost): the second finds the fence moved, the nonce known or the
        job present. So trying again is safe, also for the `piggyback`, which shares the round trip if it goes to this server.

        Raises:
            StoreUnavailable: the server can't be reached, or refuses to write, and patience is over.

        """
        script = self.prepared(name, keys, args)
        carried = piggyback if isinstance(piggyback, ScriptPiggyback) and piggyback.client is self.client else None
        if piggyback and not carried:
            piggyback()
        give_up = time.monotonic() + patience_ms / 1000
        pause_s = 0.05
        while True:
            try:
                return self._with(carried, script) if carried else self._once(script)
            except UNAVAILABLE as error:
                if time.monotonic() >= give_up:
                    raise unavailable(error) from error
            time.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(1.0, pause_s * 2)

    def _once(self, script: Prepared) -> Any:
        try:
            return self._execute(*script.command)
        except redis_errors.ResponseError as error:
            if not script.library.unknown(error):
                raise
        (reply,) = self._together((script,))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _with(self, carried: ScriptPiggyback, script: Prepared) -> Any:
        carried_reply, reply = self._together((carried.script, script))
        if isinstance(reply, Exception):
            raise reply
        if isinstance(carried_reply, Exception):
            carried.lost(carried_reply)
        return reply

    def pipeline(self, calls: Sequence[tuple[str, Sequence[str], Sequence[Arg]]]) -> list[Any]:
        """Run several scripts in one round trip (no transaction: each is atomic by itself). Errors come back as values.

        Raises:
            StoreUnavailable: the server can't be reached.

        """
        try:
            return self._together([self.prepared(*call) for call in calls])
        except UNAVAILABLE as error:
            raise unavailable(error) from error

    def _together(self, scripts: Sequence[Prepared]) -> list[Any]:
        replies: list[Any] = [None] * len(scripts)
        missing = list(range(len(scripts)))
        unknown: set[tuple[Library, str]] = set()
        for _ in range(1 + LOADS):
            if not missing:
                break
            pipe: Any = self.client.pipeline(transaction=False)
            # In the same pipeline as the calls, so that no flush comes between. But a cluster's pipeline can't load scripts.
            loader = self.client if isinstance(self.client, redis.RedisCluster) else pipe
            for library, name in unknown:
                library.load(loader, name)
            for n in missing:
                pipe.execute_command(*scripts[n].command)
            answers = pipe.execute(raise_on_error=False)[-len(missing) :]
            for n, reply in zip(missing, answers, strict=True):
                replies[n] = reply  # those that ran are not run again: a second reply may differ
            missing = [n for n in missing if scripts[n].library.unknown(replies[n])]
            unknown = {(scripts[n].library, scripts[n].name) for n in missing}
        return replies


def unavailable(error: Exception) -> StoreUnavailable:
    """The error for producers and workers when Redis is away: what failed, and what to check."""
    return StoreUnavailable(
        f"Redis did not take the command ({type(error).__name__}: {str(error)[:200]}); nothing was recorded. "
        "Check MIDWATCH_REDIS_URL, the server's memory and its persistence"
    )
