"""How many letters of one cause may be replayed now: a few probes first, then more and more, and none if they fail again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from midwatch.orchestration.client.letters.replays import Replayed, Verdict

PROBES = 5
"""Letters in the first batch."""
MOST_UNDER_WAY = 500
"""The largest batch. 500 jobs keep a downstream of 100 calls a second busy for five seconds."""


@dataclass
class ReplayWindow:
    """The replay of the letters of one cause. `size` letters may be under way at once.

    When half of a batch is known, the window doubles if more of them passed than failed, and closes otherwise. So a cause that
    is still there costs one batch of probes.
    """

    size: int = PROBES
    under_way: list[Replayed] = field(default_factory=list)
    passed: int = 0
    """Letters of this batch that got past the step that had failed."""
    failed: int = 0
    """Letters of this batch that failed again."""
    closed: bool = False
    """Most of a batch failed again. No more letters are replayed."""

    @property
    def is_probing(self) -> bool:
        """Is the first batch still under way?"""
        return self.size == PROBES

    def count_free(self) -> int:
        """How many letters may be replayed now. Probes are not replaced before they are known."""
        if self.closed:
            return 0
        known = self.passed + self.failed if self.is_probing else 0
        return max(0, self.size - len(self.under_way) - known)

    def add(self, letters: Iterable[Replayed]) -> None:
        """Letters were replayed."""
        self.under_way += letters

    def learn(self, verdicts: list[Verdict], *, no_more: bool = False) -> tuple[int, int]:
        """Take the results of `under_way`, in its order. Returns how many passed and how many failed since the last time.

        With `no_more` letters to replay, a batch may be smaller than `size`.
        """
        passed, failed = verdicts.count(Verdict.PASSED), verdicts.count(Verdict.FAILED)
        pairs = zip(self.under_way, verdicts, strict=True)
        self.under_way = [letter for letter, verdict in pairs if verdict is Verdict.UNDER_WAY]
        self.passed += passed
        self.failed += failed
        if 2 * self.failed > self.size or (no_more and self.failed > self.passed and not self.under_way):
            self.closed = True
        elif 2 * self.passed > self.size:
            self.size = min(MOST_UNDER_WAY, 2 * self.size)
            self.passed = self.failed = 0
        return passed, failed
