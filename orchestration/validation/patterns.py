r"""Match the `pattern`s of a schema in bounded time, with the regular expressions of ECMA-262 that the standard recommends.

The engine is the one of `jsonschema-rs` (decision 26). Almost every pattern is matched in linear time, also `^(a+)+$`, which
takes a backtracking engine 37 seconds for 29 characters (measured). Only lookarounds (`(?=…)`) and references (`\1`) need
backtracking. Their number of backtracks is limited, at first to a few, so that a usual pattern costs little.

A match pays before it is made. Its price is computed from the size of the compiled pattern and the length of the text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from midwatch.orchestration.validation.effort import MAX_EFFORT, EffortExceeded
from midwatch.orchestration.validation.pattern_shape import Shape, read_shape

MAX_PATTERN_CHARS = 10_000

SIZES_BYTES = tuple(512 << step for step in range(10))
"""Limits on the compiled pattern that are tried, the smallest first: 512 bytes to 256 KB. The time of a match grows with it."""

BYTE_STEPS_PER_UNIT = 25_000
"""Steps, times the bytes of the compiled pattern, that cost one unit. The worst patterns found took 0.11 ns for each."""

BACKTRACKS = (16, 256, 4_096, 65_536)
"""Limits on backtracking that are tried one after the other."""


class BadPattern(ValueError):
    """Raised when a pattern can't be used. The message says why."""


class Pattern:
    """A compiled pattern.

    Raises:
        BadPattern: it is not a regular expression, or it is too large.

    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_CHARS:
            raise BadPattern(f"it has {len(pattern):,} characters, at most {MAX_PATTERN_CHARS:,}")
        shape = read_shape(pattern)
        self._text = shape.text
        self._by_limit: dict[int, Any] = {}
        self._shape: Shape | None = None
        self._linear = _build(self._text, None, SIZES_BYTES[-1])
        if self._linear is None:
            if _build(self._text, BACKTRACKS[0], SIZES_BYTES[-1]) is None:
                raise BadPattern(_why(pattern))
            self._shape = shape
        limit = None if self._shape is None else BACKTRACKS[0]
        sizes = SIZES_BYTES[:-1]  # the largest suffices, as was tried above
        found = bisect_left(sizes, True, key=lambda size: _build(self._text, limit, size) is not None)
        self.size_bytes = SIZES_BYTES[found]
        """The size of the compiled pattern, rounded up to a power of two."""
        if self.price(1) > MAX_EFFORT:
            raise BadPattern("repetitions around a lookaround or a reference make any match too expensive")

    @property
    def is_linear(self) -> bool:
        """Does a match take linear time?"""
        return self._shape is None

    def price(self, chars: int, backtracks: int = BACKTRACKS[0]) -> int:
        """The units that a match of a text of this length may cost, for the first limit on backtracks."""
        steps = chars + 1 if self._shape is None else self._shape.steps(chars, backtracks)
        return steps * self.size_bytes // BYTE_STEPS_PER_UNIT

    def matches(self, text: str, spend: Callable[[int], None]) -> bool:
        """Is the pattern anywhere in the text? The price for the first limit has been paid.

        Args:
            text: the text to search in.
            spend: pays for a higher limit on backtracks.

        Raises:
            EffortExceeded: the budget is used up, or the highest limit on backtracks is reached.

        """
        if self._shape is None:
            return bool(self._linear.is_valid(text))
        for limit in BACKTRACKS:
            if limit != BACKTRACKS[0]:
                spend(self.price(len(text), limit))
            found = self._search(text, limit)
            if found is not None:
                return found
        raise EffortExceeded

    def _search(self, text: str, limit: int) -> bool | None:
        """Search with a limit on backtracks. None if it is reached."""
        if limit not in self._by_limit:
            self._by_limit[limit] = _build(self._text, limit, SIZES_BYTES[-1])
        engine = _engine()
        try:
            self._by_limit[limit].validate(text)
        except engine.ValidationError as error:
            return None if isinstance(error.kind, engine.ValidationErrorKind.BacktrackLimitExceeded) else False
        return True


@lru_cache(maxsize=4_096)
def compile_pattern(pattern: str) -> Pattern:
    """Compile a pattern once. Raises BadPattern."""
    return Pattern(pattern)


def _engine() -> Any:
    import jsonschema_rs  # 35 ms and 9 MB, which only a schema with a pattern or a format needs

    return jsonschema_rs


def _build(pattern: str, backtracks: int | None, size: int) -> Any:
    """Compile with limits. None if the engine refuses it. Without `backtracks` only a linear pattern is accepted."""
    engine = _engine()
    options = (
        engine.RegexOptions(size_limit=size)
        if backtracks is None
        else engine.FancyRegexOptions(backtrack_limit=backtracks, size_limit=size)
    )
    try:
        return engine.Draft202012Validator({"pattern": pattern}, pattern_options=options)
    except ValueError:
        return None


def _why(pattern: str) -> str:
    if _build(pattern, BACKTRACKS[0], 16 * SIZES_BYTES[-1]) is not None:
        return f"it is too large: over {SIZES_BYTES[-1]:,} bytes when compiled"
    return "it is not a regular expression of ECMA-262 (or far too large)"
