"""The context budget as weight: how much a call may hold, and how much of it stays after a compaction."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.policy import ContextBudget

MIN_REST_SHARE = 0.25
"""Least share of the room beside the prompt that messages and memory get. It counts only beside a prompt that nearly fills the
budget by itself."""


@dataclass(frozen=True)
class Room:
    """The context budget in units of weight (see `weight`)."""

    full: int
    """Most weight of a whole request."""
    target: int
    """Most weight of messages and memory after a compaction, if the prompt is short."""
    limit: int | None = None
    """Most weight of messages and memory in a call. Only above it the active prompt is cut. None: `full`."""

    @property
    def most(self) -> int:
        """Most weight of messages and memory in a call."""
        return self.full if self.limit is None else self.limit

    def beside(self, prompt: int, budget: ContextBudget) -> int:
        """Most weight of memory and other messages after a compaction, beside a prompt of this weight, which stays whole.

        A compaction can't shrink the prompt. So it shrinks the rest, by the ratio of `shrink_to` to `act_at`. Then a long prompt
        does not cause a compaction at each turn.
        """
        fixed = max(0, int(self.full * budget.shrink_to) - self.target)
        before_next = (int(self.full * budget.act_at) - fixed - prompt) * budget.shrink_to / budget.act_at
        return max(self.target - prompt, int(before_next), int((self.most - prompt) * MIN_REST_SHARE), 0)
