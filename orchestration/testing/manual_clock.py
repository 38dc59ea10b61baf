"""ManualClock: a clock that moves only when a test moves it."""

from __future__ import annotations

NEW_YEAR_2026_MS = 1_767_225_600_000


class ManualClock:
    """`ports.Clock` for tests. A sleep takes no time: it moves the clock."""

    def __init__(self, now_ms: int = NEW_YEAR_2026_MS) -> None:
        self._now_ms = now_ms

    def monotonic_ms(self) -> int:
        """The clock's current time."""
        return self._now_ms

    def sleep_ms(self, ms: int) -> None:
        """Move the clock forward by `ms`."""
        self.advance(ms)

    def advance(self, ms: int) -> None:
        """Move the clock forward by `ms`.

        Raises:
            ValueError: `ms` is negative.

        """
        if ms < 0:
            raise ValueError(f"a clock does not go back: expected ms >= 0, got {ms}")
        self._now_ms += ms
