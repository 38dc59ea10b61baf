"""The plan of a run of `bench backlog`."""

from __future__ import annotations

from typing import ClassVar

from midwatch.schemas.contract import Contract


class Plan(Contract):
    """What a run does. Workers read it from the environment."""

    VARIABLE: ClassVar[str] = "BENCH_BACKLOG"

    jobs: int = 240
    turns: int = 10
    slots: int = 8
    """Model calls that run at once."""
    call_s: float = 0.2
    """Time of a model call."""
    tool_s: float = 0.0
    """Time of a tool call. 0: the tool is inline and takes no time. Otherwise it is a task, and runs in as many slots."""
    limit_per_s: float | None = None
    """Limit of the downstream. None: it has none."""
    session_timeout_s: float = 30.0
    others: int = 0
    """Jobs of a second tenant. They are enqueued behind all others."""
    bill: str = ""
    """File that gets one byte for each model call."""

    @property
    def calls(self) -> int:
        """Model calls that the jobs need."""
        return (self.jobs + self.others) * self.turns
