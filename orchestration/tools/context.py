"""ToolContext: what a tool can know about its call, and what it can do in addition to returning a result."""

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
    """The argument for a parameter annotated `ToolContext`. The runtime makes it; a test can make its own."""

    job_id: str
    step_id: str
    """`3.0`: the first call of the third model turn."""
    session_id: str
    tenant: str | None = None
    idempotency_key: str
    """The same for every attempt at this call, and different for every other call. Pass it to the downstream."""
    attempt: int = 0
    """Number of failed attempts before this one."""
    timeout_s: float = 30.0
    is_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    keep: Callable[[str, bytes], str] | None = field(default=None, repr=False)
    """Stores an artifact with the session and returns its handle."""
    monotonic_s: Callable[[], float] = field(default=time.monotonic, repr=False)
    deadline: float = field(init=False, repr=False)
    """When the call times out, in seconds on `monotonic_s`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", self.monotonic_s() + self.timeout_s)

    def remaining_s(self) -> float:
        """Seconds until the call times out; never below zero. Use it as the timeout of your own calls."""
        return max(0.0, self.deadline - self.monotonic_s())

    def cancelled(self) -> bool:
        """True if the result is no longer needed: the job was cancelled, or another worker has the step now.

        A long-running tool should check this regularly, since a thread can't be stopped from outside.
        """
        return self.is_cancelled()

    def artifact(self, name: str, body: bytes | str) -> str:
        """Store something large with the session instead of returning it.

        Args:
            name: letters, digits, `.`, `_`, `-`. An artifact of the same name is replaced.
            body: at most 64 MB.

        Returns:
            The handle under which `read_result` and the command line find it.

        Raises:
            ConfigError: the name or size is out of bounds, or this context can't store artifacts.

        """
        if not _ARTIFACT_NAME.fullmatch(name):
            raise ConfigError(f"artifact name: expected at most 64 letters, digits, '.', '_' or '-', got {name[:80]!r}")
        data = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
        if len(data) > MAX_ARTIFACT_BYTES:
            raise ConfigError(
                f"artifact {name!r}: {len(data):,} bytes; at most {MAX_ARTIFACT_BYTES:,}; store it elsewhere"
            )
        if self.keep is None:
            raise ConfigError("this ToolContext can't store artifacts; in a test, give it keep=...")
        return self.keep(name, data)
