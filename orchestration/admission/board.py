"""Board: what an operator sees of the coordinator, and does to it. `client.gate`; `midwatch gate` shows the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis
from pydantic import ValidationError

from midwatch.orchestration.admission.configuration import configuration, defaults
from midwatch.orchestration.admission.redis_gate import COORDINATOR, WAKE_MS, call_id
from midwatch.orchestration.errors import ConfigError, NotFound
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.records import ref_of
from midwatch.orchestration.store.scripts import UNAVAILABLE, Library, Scripts, unavailable
from midwatch.schemas.limits import DownstreamStatus, Limits
from midwatch.schemas.step import StepRef

RESOURCES = {"q": "requests", "i": "input_tokens", "o": "output_tokens", "t": "tokens"}
"""The scripts' short names."""

AT_MOST = 100
"""Steps that one release wakes of one downstream; more wait for the next."""


class Board:
    """Every downstream that was configured or called, by name."""

    def __init__(self, client: redis.Redis, keys: Keyspace, library: Library = COORDINATOR) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, library)

    def names(self) -> list[str]:
        """All of them, sorted."""
        try:
            found: list[bytes] = self._client.zrange(self._keys.gate_index(), 0, -1)  # type: ignore[assignment]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        return sorted(name.decode() for name in found)

    def status(self) -> list[DownstreamStatus]:
        """How they stand."""
        names = self.names()
        replies = self._scripts.pipeline([("status", self._keys.downstream(name), ()) for name in names])
        return [_status(reply) for reply in replies if isinstance(reply, bytes)]

    def show(self, name: str) -> DownstreamStatus:
        """How one stands. Raises NotFound."""
        reply = self._scripts.call("status", self._keys.downstream(name), ())
        if not reply:
            raise self._unknown(name)
        return _status(reply)

    def limits(self, name: str) -> Limits:
        """The limits in force, as they were configured. Raises NotFound."""
        return Limits.model_validate(self._said(name))

    def set(self, name: str, **changes: Any) -> Limits:
        """Change some limits (fields of `Limits`, or rpm, itpm, otpm, tpm; None takes one away); all workers obey at once.

        A name that nobody has called yet is made known, so that its first call finds its limits.

        Raises:
            ConfigError: no such field, or a value out of its range.

        """
        if "*" in name and name not in self.names():
            raise ConfigError(f"{name!r} is a pattern, and patterns are set in midwatch.toml; known: {self._known()}")
        said = self._said(name, missing_ok=True)
        try:
            new = Limits.model_validate(changes).model_dump(mode="json", exclude_unset=True)
            limits = Limits.model_validate({**said, **new})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            fields = ", ".join(Limits.model_fields)
            raise ConfigError(f"{where}: {first['msg']}; limits are: {fields} (or rpm, itpm, otpm, tpm)") from None
        self._scripts.call("configure", self._keys.downstream(name), (configuration(name, limits, None), 0))
        return limits

    def pause(self, name: str, seconds: float = 600.0) -> None:
        """Admit nothing for a while; calls wait. Raises NotFound."""
        self._control(name, "pause", seconds)

    def resume(self, name: str) -> None:
        """End a pause, an operator's or a provider's. Raises NotFound."""
        self._control(name, "resume")

    def open(self, name: str, seconds: float = 600.0) -> None:
        """Open the breaker; after `seconds` it probes. Raises NotFound."""
        self._control(name, "open", seconds)

    def close(self, name: str) -> None:
        """Close the breaker: calls go, slowly at first. Raises NotFound."""
        self._control(name, "close")

    def block(self, name: str, reason: str, seconds: float = 86_400.0) -> None:
        """Deny every call: its job becomes a dead letter that can be replayed. Raises NotFound."""
        self._control(name, "block", seconds, reason)

    def unblock(self, name: str) -> None:
        """Lift a block, an operator's or a spend cap's. Raises NotFound."""
        self._control(name, "unblock")

    def release(self, wake: Callable[[Sequence[StepRef]], Sequence[StepRef]] = tuple) -> tuple[list[StepRef], int]:
        """A steward's part: the steps that may start now, and in how many ms there may be more (-1: none waits).

        `wake` makes them owed and says which of them still wait: a step that does not is taken out of its line.

        Raises StoreUnavailable.
        """
        wait_ms, *due = self._scripts.call("due", [self._keys.gate_index()], (AT_MOST,))
        waits_ms = [wait_ms] if wait_ms >= 0 else []
        refs: list[StepRef] = []
        names = [name.decode() for name in due]
        calls = [("release", self._keys.downstream(name), (AT_MOST, WAKE_MS)) for name in names]
        for name, reply in zip(names, self._scripts.pipeline(calls), strict=True):
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
            released = [ref_of(member) for member in reply[1:]]
            woken = wake(released) if released else ()
            refs += woken
            if gone := [call_id(ref) for ref in released if ref not in set(woken)]:
                self._scripts.call("gone", self._keys.downstream(name), gone)
                reply[0] = 0  # they made room
            waits_ms += [reply[0]] if reply[0] >= 0 else []
        return refs, min(waits_ms, default=-1)

    def _control(self, name: str, operation: str, seconds: float = 0.0, reason: str = "") -> None:
        if seconds < 0:
            raise ConfigError(f"seconds={seconds}: a time is not below 0")
        reply = self._scripts.call("control", self._keys.downstream(name), (operation, int(seconds * 1_000), reason))
        if reply != 1:
            raise self._unknown(name)

    def _said(self, name: str, *, missing_ok: bool = False) -> dict[str, Any]:
        try:
            raw: bytes | None = self._client.hget(self._keys.downstream(name)[0], "json")  # type: ignore[assignment]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        if raw is None:
            if missing_ok:
                return defaults(name).model_dump(mode="json", exclude_defaults=True)
            raise self._unknown(name)
        said: dict[str, Any] = json.loads(raw)["said"]
        return said

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"no downstream {name!r} was called or configured; known: {self._known()}")

    def _known(self) -> str:
        return ", ".join(self.names()) or "none yet"


def _status(raw: bytes) -> DownstreamStatus:
    said = json.loads(raw)
    for part in ("limits", "levels", "depths"):
        said[part] = {RESOURCES[short]: value for short, value in dict(said[part]).items()}
    return DownstreamStatus.model_validate(said)
