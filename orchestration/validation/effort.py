"""The budget of validating one call. It is counted in units, not timed, so that every machine gives the same result."""

from __future__ import annotations

MAX_EFFORT = 25_000
"""The budget of one call: about 80 milliseconds. The most expensive of 1,000 recorded calls costs 49 units."""


class EffortExceeded(Exception):
    """Raised when a call has used up its budget."""
