"""Lengths of time as people type them: `90s`, `10m`, `2h`."""

from __future__ import annotations

import re

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
LONGEST_S = 366 * 86_400


def parse_seconds(text: str) -> float:
    """Parse `90`, `90s`, `10m`, `2h` or `1d` into seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    length_s = float(found[1]) * UNITS_S[found[2]] if found else 0.0
    if not 0 < length_s <= LONGEST_S:
        raise ValueError(f"{text!r}: expected a time such as 90s, 10m, 2h or 1d, of at most 366d")
    return length_s
