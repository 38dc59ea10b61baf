"""ToolContext: what a tool may know of the call it serves, and do beside returning a result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from midwatch.orchestration.errors import ConfigError

_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

MAX_ARTIFACT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """Handed to a tool that has a parameter annotated `ToolContext`. Made by the runtime, or by hand in a test."""

    job_id: str
    step_id: str
    """`3.0`: the first call of the third model turn."""
    session_id: str
    tenant: str | None = None
    idempotency_key: str
    """The same for every try at this call, and for no other call: hand it to the downstream."""
    attempt: int = 0
    """Failed attempts before this one."""
    timeout_s: float = 30.0
    is_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    keep: Callable[[str, bytes], str] | None = field(default=None, repr=False)
    """Stores an artifact beside the session and gives its handle."""
    monotonic_s: Callable[[], float] = field(default=time.monotonic, repr=False)
    deadline: float = field(init=False, repr=False)
    """When the call is given up: seconds on `monotonic_s`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", self.monotonic_s() + self.timeout_s)

    def remaining_s(self) -> float:
        """Seconds until the call is given up; never below zero. Pass it on as the timeout of what you call."""
        return max(0.0, self.deadline - self.monotonic_s())

    def cancelled(self) -> bool:
        """True when the result is not wanted any more: the job was cancelled, or another worker has the step now.

        A tool that works long looks here between its pieces; a thread can't be stopped from outside.
        """
        return self.is_cancelled()

    def artifact(self, name: str, body: bytes | str) -> str:
        """Keep something large beside the session instead of returning it.

        Args:
            name: letters, digits, `.`, `_`, `-`; the same name again replaces it.
            body: at most 64 MB.

        Returns:
            The handle by which `read_result` and the command line find it.

        Raises:
            ConfigError: name or size is out of bounds, or this context keeps nothing.

        """
        if not _ARTIFACT_NAME.fullmatch(name):
            raise ConfigError(f"artifact name: expected at most 64 letters, digits, '.', '_' or '-', got {name[:80]!r}")
        data = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
        if len(data) > MAX_ARTIFACT_BYTES:
            raise ConfigError(
                f"artifact {name!r}: {len(data):,} bytes; at most {MAX_ARTIFACT_BYTES:,}: store it elsewhere"
            )
        if self.keep is None:
            raise ConfigError("this ToolContext keeps no artifacts; give it keep=... in a test")
        return self.keep(name, data)
