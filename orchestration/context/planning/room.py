"""The context budget as weight: how much a call may hold, and how much of it stays after a compaction."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.policy import ContextBudget

MIN_REST_SHARE = 0.25
"""Least share of the room beside the prompt that messages and memory get.

It counts only beside a prompt that nearly fills the budget by itself.
"""


FEW_TURNS = 2
"""If fewer turns than these fill the window again, a compaction is due so soon that it need not remove much."""

CLOSE_SHARE = 0.85
"""Then it leaves this share of the weight that fits below `act_at`."""


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

    def beside(self, prompt: int, budget: ContextBudget, growth: int) -> int:
        """Most weight of memory and other messages after a compaction, beside a prompt of this weight, which stays whole.

        A compaction can't shrink the prompt. So it shrinks the rest, by the ratio of `shrink_to` to `act_at`. Then a long prompt
        does not cause a compaction at each turn.

        `growth` is the weight that a turn adds. If the next turn or two fill the window again in any case, less is removed.
        """
        fixed = max(0, int(self.full * budget.shrink_to) - self.target)
        before_next = int(self.full * budget.act_at) - fixed - prompt
        usual = before_next * budget.shrink_to / budget.act_at
        if before_next - usual < FEW_TURNS * growth:
            usual = max(usual, before_next * CLOSE_SHARE)
        return max(self.target - prompt, int(usual), int((self.most - prompt) * MIN_REST_SHARE), 0)
