"""ManualClock: time that moves when it is told to."""

from __future__ import annotations

NEW_YEAR_2026_MS = 1_767_225_600_000


class ManualClock:
    """`ports.Clock` for tests: sleeping takes no time, it moves the clock."""

    def __init__(self, now_ms: int = NEW_YEAR_2026_MS) -> None:
        self._now_ms = now_ms

    def monotonic_ms(self) -> int:
        """The moment it stands at."""
        return self._now_ms

    def sleep_ms(self, ms: int) -> None:
        """Move on."""
        self.advance(ms)

    def advance(self, ms: int) -> None:
        """Move on by `ms`; never back.

        Raises:
            ValueError: `ms` is negative.

        """
        if ms < 0:
            raise ValueError(f"a clock does not go back: expected ms >= 0, got {ms}")
        self._now_ms += ms
