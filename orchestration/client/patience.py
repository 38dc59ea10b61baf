"""Wait for a server that restarts: a read is tried again, because it changes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from midwatch.orchestration.errors import StoreUnavailable

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a wait without a time limit goes on while Redis does not answer. A restart takes seconds, a failover some more."""

LONGEST_PAUSE_S = 1.0


def read_patiently(read: Callable[[], T], *, give_up_s: float | None = None) -> T:
    """Return what `read` returns. While Redis can't be reached, try again until the monotonic clock shows `give_up_s`.

    Raises:
        StoreUnavailable: Redis could not be reached in this time.

    """
    give_up_s = time.monotonic() + PATIENCE_S if give_up_s is None else give_up_s
    pause_s = 0.05
    while True:
        try:
            return read()
        except StoreUnavailable:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise
        time.sleep(min(left_s, random.uniform(pause_s / 2, pause_s)))
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
