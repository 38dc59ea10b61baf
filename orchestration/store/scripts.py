"""Send script calls by their digest, and load scripts that the server does not know."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions as redis_errors

from midwatch.orchestration.errors import StoreUnavailable, WrongSession
from midwatch.orchestration.ports import Piggyback
from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.orchestration.store.script_calls.script_call import Arg, Reply, ScriptCall
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
class ScriptPiggyback:
    """A `ports.Piggyback` that is a script. It is sent together with another script if both go to the same server."""

    client: redis.Redis
    library: Library
    call: ScriptCall[Any]
    alone: Piggyback
    """Sends the script alone."""
    lost: Callable[[Exception], object]
    """Called with the error if the server refuses the script. The script that carried it still takes effect."""

    def __call__(self) -> object:
        """Send the script alone, now."""
        return self.alone()


class Scripts:
    """Calls the scripts of one library on one client."""

    def __init__(self, client: redis.Redis, library: Library = STEP_MACHINE) -> None:
        self.client = client
        self._library = library
        self._execute: Callable[..., Any] = client.execute_command

    def piggyback(
        self, call: ScriptCall[Any], *, alone: Piggyback, lost: Callable[[Exception], object]
    ) -> ScriptPiggyback:
        """Make a piggyback of this call. Another call may carry it."""
        return ScriptPiggyback(self.client, self._library, call, alone, lost)

    def run(self, call: ScriptCall[Reply], *, patience_ms: int = 0, piggyback: Piggyback | None = None) -> Reply:
        """Run a script and return its typed reply. Try again for `patience_ms` while the server can't be reached.

        It is safe to send a script twice after a lost reply: the second one finds a newer fence, the same nonce, or an
        existing job. This is also true for the `piggyback`, which shares the round trip if it goes to the same server.

        Raises:
            StoreUnavailable: the server could not be reached, or refused to write, for `patience_ms`.
            UnreadableRecord: a record in the reply is of a newer version, or damaged.
            WrongSession: the job belongs to another session.

        """
        carried = piggyback if isinstance(piggyback, ScriptPiggyback) and piggyback.client is self.client else None
        if piggyback and not carried:
            piggyback()
        give_up = time.monotonic() + patience_ms / 1000
        pause_s, is_certain = 0.05, True
        while True:
            try:
                return call.typed(self._with(carried, call) if carried else self._once(call))
            except UNAVAILABLE as error:
                is_certain = is_certain and was_refused(error)
                if time.monotonic() >= give_up:
                    raise unavailable(error, is_certain=is_certain) from error
            except redis_errors.ResponseError as error:
                if "WRONG_SESSION" in str(error):
                    raise WrongSession("the job belongs to another session; nothing was read or written") from error
                raise
            time.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(1.0, pause_s * 2)

    def run_each(self, calls: Sequence[ScriptCall[Reply]]) -> list[Reply | Exception]:
        """Run several scripts in one round trip (no transaction: each is atomic by itself). Errors come back as values.

        Raises:
            StoreUnavailable: the server can't be reached.

        """
        try:
            replies = self._together([(self._library, call) for call in calls])
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        pairs = zip(calls, replies, strict=True)
        return [reply if isinstance(reply, Exception) else call.typed(reply) for call, reply in pairs]

    def run_all(self, calls: Sequence[ScriptCall[Reply]]) -> list[Reply]:
        """Run several scripts in one round trip. The first error is raised, after all have run.

        Raises:
            StoreUnavailable: a call failed, or the server can't be reached.

        """
        replies: list[Reply] = []
        for reply in self.run_each(calls):
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
            replies.append(reply)
        return replies

    def _once(self, call: ScriptCall[Any]) -> Any:
        try:
            return self._execute(*_command(self._library, call))
        except redis_errors.ResponseError as error:
            if not self._library.unknown(error):
                raise
        (reply,) = self._together([(self._library, call)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _with(self, carried: ScriptPiggyback, call: ScriptCall[Any]) -> Any:
        carried_reply, reply = self._together([(carried.library, carried.call), (self._library, call)])
        if isinstance(reply, Exception):
            raise reply
        if isinstance(carried_reply, Exception):
            carried.lost(carried_reply)
        return reply

    def _together(self, calls: Sequence[tuple[Library, ScriptCall[Any]]]) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        missing = list(range(len(calls)))
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
                pipe.execute_command(*_command(*calls[n]))
            answers = pipe.execute(raise_on_error=False)[-len(missing) :]
            for n, reply in zip(missing, answers, strict=True):
                replies[n] = reply  # those that ran are not run again: a second reply may differ
            missing = [n for n in missing if calls[n][0].unknown(replies[n])]
            unknown = {(calls[n][0], calls[n][1].script) for n in missing}
        return replies


def _command(library: Library, call: ScriptCall[Any]) -> tuple[Arg, ...]:
    """The command for the server."""
    return (*library.command(call.script), len(call.keys), *call.keys, *call.args)


def was_refused(error: Exception) -> bool:
    """Is it certain that the server did nothing? It refused the command, or there was no connection to send it on."""
    refusals = (
        redis_errors.OutOfMemoryError,
        redis_errors.ReadOnlyError,
        redis_errors.ClusterDownError,
        redis_errors.BusyLoadingError,
        redis_errors.AuthenticationError,
        redis_errors.MaxConnectionsError,
    )
    return isinstance(error, refusals) or "connecting to" in str(error)


def unavailable(error: Exception, *, is_certain: bool | None = None) -> StoreUnavailable:
    """Make the error for an unreachable Redis. It says what failed, what was recorded, and what to check.

    `is_certain`: nothing was recorded. By default the error decides, see `was_refused`.
    """
    is_certain = was_refused(error) if is_certain is None else is_certain
    recorded = (
        "nothing was recorded"
        if is_certain
        else "the connection broke, so it is not known whether anything was recorded; a repetition with the same id or "
        "idempotency key is safe"
    )
    return StoreUnavailable(
        f"Redis did not take the command ({type(error).__name__}: {hide_passwords(str(error))[:200]}); {recorded}. "
        "Check MIDWATCH_REDIS_URL, the server's memory and its persistence"
    )


def unread(error: Exception) -> StoreUnavailable:
    """Make the error for a read that Redis did not answer."""
    return StoreUnavailable(
        f"Redis did not answer ({type(error).__name__}: {hide_passwords(str(error))[:200]}). "
        "Check MIDWATCH_REDIS_URL, and whether the server runs"
    )
