"""How long a test waits for a condition.

A wait ends when the condition holds. Its bound only ends a test that hangs. The bound is the same everywhere, and far above
what a machine loaded tenfold needs, so no result depends on speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 300.0
"""Below pytest's own timeout, so that a wait that hangs fails with its reason."""


def wait_for(predicate: Callable[[], T], what: str, every_s: float = 0.01) -> T:
    """Call the predicate until it returns a true value, and return that. Raise an error with `what` if it never does."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not (answer := predicate()):
        if time.monotonic() > give_up_s:
            raise AssertionError(f"waited {PATIENCE_S:g} s for {what}; the last answer was {answer!r}")
        time.sleep(every_s)
    return answer
