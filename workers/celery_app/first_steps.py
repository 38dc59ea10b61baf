"""What a worker's channel and its steward share about first steps: which are held back, and when their queue needs more.

If tools are slower than models, workers for the model queue would begin every job, and all of them would wait for their tools.
So a worker takes no first step while many tool steps of the same or a higher priority wait. It takes all other steps.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from midwatch.workers.celery_app.write_message import PRIORITIES

PER_SLOT = 2
"""How many tool steps may wait for each slot of this worker. While one of them waits, all tool workers are busy."""
AT_LEAST = 16
"""How many may wait at least, if the worker has few slots."""

REFILL_AFTER = 8
"""After how many first steps the queue is refilled. It holds 32. To refill it after each costs a third of the rate of jobs that
have one turn only (measured with two solo workers)."""

ALIVE_S = 10
"""How long a worker that serves the tools queue counts as alive after its last sweep. Without such a worker, first steps are not
held back: the tool steps do not become fewer, and jobs without tools would wait for nothing."""


@dataclass
class FirstSteps:
    """The state of one process. Its steward decides, and its channel obeys."""

    held: frozenset[int] = frozenset()
    """Celery's numbers of the first steps that the channel does not take."""
    others_wait: bool = False
    """Do first steps wait in the backlog?"""
    taken: threading.Event = field(default_factory=threading.Event)
    """The channel has taken some first steps while others wait. The steward moves the next ones to the queue."""
    _taken: int = 0

    def hold(self, waiting: Sequence[int], *, slots: int, tools_are_served: bool) -> None:
        """Decide which first steps to hold back.

        Args:
            waiting: how many tool steps wait, for each priority from high to replay.
            slots: how many steps this worker runs at once.
            tools_are_served: a worker that serves the tools queue is alive.

        """
        most = max(AT_LEAST, PER_SLOT * slots)
        numbers = zip(PRIORITIES.values(), accumulate(waiting), strict=True)
        self.held = frozenset(number + 1 for number, ahead in numbers if tools_are_served and ahead > most)

    def note_taken(self) -> None:
        """The channel has taken a first step. Every few of them wake the steward."""
        self._taken += 1
        if self.others_wait and self._taken >= REFILL_AFTER:
            self._taken = 0
            self.taken.set()


FIRST_STEPS = FirstSteps()
"""Of this process."""
