"""Board: shows and changes the coordinator's state, for operators. It is `client.gate` in Python, and `midwatch gate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis
from pydantic import ValidationError

from midwatch.orchestration.admission import script_calls
from midwatch.orchestration.admission.configuration import configuration, defaults
from midwatch.orchestration.admission.functions import COORDINATOR
from midwatch.orchestration.admission.legend_of_configuration import CONFIG
from midwatch.orchestration.admission.names import is_name
from midwatch.orchestration.admission.redis_gate import WAKE_MS, call_id
from midwatch.orchestration.admission.script_calls import Operation
from midwatch.orchestration.errors import ConfigError, NotFound
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.records import ref_of
from midwatch.orchestration.store.script_library import Library
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable
from midwatch.schemas.limits import DownstreamStatus, Limits
from midwatch.schemas.step import StepRef

AT_MOST = 100
"""The most steps of one downstream that one release wakes. The others wait for the next release."""


class Board:
    """The state and the limits of every downstream that was configured or called."""

    def __init__(self, client: redis.Redis, keys: Keyspace, library: Library = COORDINATOR) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, library)

    def names(self) -> list[str]:
        """The names of all downstreams, sorted."""
        try:
            found: list[bytes] = self._client.zrange(self._keys.gate_index(), 0, -1)  # type: ignore[assignment]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        return sorted(name.decode() for name in found)

    def status(self) -> list[DownstreamStatus]:
        """The state of every downstream."""
        calls = [script_calls.status(self._keys.downstream(name)) for name in self.names()]
        return [reply for reply in self._scripts.run_each(calls) if isinstance(reply, DownstreamStatus)]

    def show(self, name: str) -> DownstreamStatus:
        """The state of one downstream. Raises NotFound."""
        status = self._scripts.run(script_calls.status(self._keys.downstream(name))) if is_name(name) else None
        if status is None:
            raise self._unknown(name)
        return status

    def limits(self, name: str) -> Limits:
        """The limits in force, as they were configured. Raises NotFound."""
        configured = self._configured(name)
        if configured is None:
            raise self._unknown(name)
        return Limits.model_validate(configured)

    def set(self, name: str, **changes: Any) -> Limits:
        """Change some limits (fields of `Limits`, or rpm, itpm, otpm, tpm; None takes one away); all workers obey at once.

        A name that no worker has called yet is made known, so that its first call finds its limits.

        Raises:
            ConfigError: no such field, or a value out of its range.

        """
        if not is_name(name):
            raise ConfigError(f"downstream {name!r:.260}: expected 1 to 240 printable characters without spaces")
        if "*" in name and name not in self.names():
            raise ConfigError(f"{name!r} is a pattern, and patterns are set in midwatch.toml; known: {self._known()}")
        before = self._configured(name)
        if before is None:
            before = defaults(name).model_dump(mode="json", exclude_defaults=True)
        try:
            new = Limits.model_validate(changes).model_dump(mode="json", exclude_unset=True)
            limits = Limits.model_validate({**before, **new})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            fields = ", ".join(Limits.model_fields)
            raise ConfigError(f"{where}: {first['msg']}; limits are: {fields} (or rpm, itpm, otpm, tpm)") from None
        text = configuration(name, limits, None)
        keys = self._keys.downstream(name)
        self._scripts.run(script_calls.configure(keys, configuration=text, only_if_absent=False))
        return limits

    def pause(self, name: str, seconds: float = 600.0) -> None:
        """Admit no call for a while. Calls wait. Raises NotFound."""
        self._control(name, "pause", seconds)

    def resume(self, name: str) -> None:
        """End a pause, whether an operator or a provider caused it. Raises NotFound."""
        self._control(name, "resume")

    def open(self, name: str, seconds: float = 600.0) -> None:
        """Open the breaker. After `seconds`, probes are admitted. Raises NotFound."""
        self._control(name, "open", seconds)

    def close(self, name: str) -> None:
        """Close the breaker. Calls are admitted, slowly at first. Raises NotFound."""
        self._control(name, "close")

    def block(self, name: str, reason: str, seconds: float = 86_400.0) -> None:
        """Deny every call: its job becomes a dead letter that can be replayed. Raises NotFound."""
        self._control(name, "block", seconds, reason)

    def unblock(self, name: str) -> None:
        """End a block, whether an operator or a spend cap caused it. Raises NotFound."""
        self._control(name, "unblock")

    def release(self, wake: Callable[[Sequence[StepRef]], Sequence[StepRef]] = tuple) -> tuple[list[StepRef], int]:
        """Wake the steps that may start now. Returns them, and the time until more may start, in ms (-1 if none waits).

        `wake` marks these steps as owed, and returns those that still wait. A step that no longer waits leaves its line.

        Raises StoreUnavailable.
        """
        due = self._scripts.run(script_calls.due(self._keys.gate_index(), at_most=AT_MOST))
        waits_ms = [due.next_ms]
        refs: list[StepRef] = []
        keys = [self._keys.downstream(name) for name in due.downstreams]
        calls = [script_calls.release(each, at_most=AT_MOST, wake_ms=WAKE_MS) for each in keys]
        replies = self._scripts.run_each(calls)
        for own_keys, reply in zip(keys, replies, strict=True):
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
            released = [ref_of(member) for member in reply.members]
            woken = wake(released) if released else ()
            refs += woken
            gone = [call_id(ref) for ref in released if ref not in set(woken)]
            if gone:
                self._scripts.run(script_calls.gone(own_keys, call_ids=gone, in_line=False))
            waits_ms.append(0 if gone else reply.next_ms)  # the steps that left the line made room for others
        return refs, min((ms for ms in waits_ms if ms is not None), default=-1)

    def _control(self, name: str, operation: Operation, seconds: float = 0.0, reason: str = "") -> None:
        if seconds < 0:
            raise ConfigError(f"seconds={seconds}: expected at least 0")
        if not is_name(name):
            raise self._unknown(name)
        keys = self._keys.downstream(name)
        call = script_calls.control(keys, operation=operation, length_ms=int(seconds * 1_000), reason=reason)
        if not self._scripts.run(call):
            raise self._unknown(name)

    def _configured(self, name: str) -> dict[str, Any] | None:
        """The limits as they were set. None if the downstream was never called or configured."""
        if not is_name(name):
            return None
        try:
            raw: bytes | None = self._client.hget(self._keys.downstream(name)[0], "json")  # type: ignore[assignment]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        if raw is None:
            return None
        limits: dict[str, Any] = json.loads(raw)[CONFIG["as_set"].stored]
        return limits

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"no downstream {name!r:.260} was called or configured; known: {self._known()}")

    def _known(self) -> str:
        return ", ".join(self.names()) or "none yet"
