"""Kills workers of the demo with SIGKILL, by progress: after so many committed steps, and only workers that are ready.

When kills followed the clock, the workers of a slow machine died before they had done anything, and its jobs failed.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress

from midwatch.workers.local.process import Member

STEPS_PER_JOB = 1
"""Steps that are committed between two kills, for each job. A ticket takes about 7 steps, so a demo has about six kills."""

LEAST_STEPS = 20
"""With few jobs most steps are under way at once. A step that dies three times with its worker becomes a dead letter."""

SEED = 20


class Killer:
    """Chooses the workers to kill, and counts them. A fleet that watches its members restarts them."""

    def __init__(self, workers: Sequence[Member], jobs: int) -> None:
        self.kills = 0
        self._workers = workers
        self._every_steps = max(LEAST_STEPS, STEPS_PER_JOB * jobs)
        self._last_steps = 0
        self._rng = random.Random(SEED)

    def kill_if_due(self, steps: int) -> int:
        """Kill a ready worker and its children if enough steps were committed since the last kill. Returns all kills so far."""
        if steps - self._last_steps >= self._every_steps:
            ready = [worker for worker in self._workers if worker.alive and worker.has_logged("ready")]
            if len(ready) == len(self._workers):  # never two at once
                with suppress(ProcessLookupError):
                    os.killpg(self._rng.choice(ready).pid, signal.SIGKILL)
                    self.kills += 1
                self._last_steps = steps
        return self.kills
