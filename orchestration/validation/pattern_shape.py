r"""Read from a pattern's text how much work one attempt at a match can take, for a pattern that needs backtracking.

Only lookarounds and references to groups need backtracking. The engine limits the number of backtracks, but not the work between
two of them. That work is bounded by the repetitions around each lookaround or reference: `(?:(?!ab).)*` looks ahead at most once
for each character, and `(?:(?:(?=a)|b){0,1000}){0,1000}` up to a million times without reading one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import prod

_COUNT = re.compile(r"\{(\d+)(,(\d*))?\}")
_LOOK = re.compile(r"\(\?<?[=!]")
_GROUP = re.compile(r"\((?:\?(?::|P?<\w+>|[a-z-]*:|[a-z-]+(?=\))))?")
_BRACES = re.compile(r"\\[pPuxk]\{[^{}]*\}")
_REFERENCE = re.compile(r"\\(?:[1-9]\d?|k)")

_UNBOUNDED = None


@dataclass
class _Hard:
    """A lookaround or a reference."""

    width: int | None
    """The most characters that it reads. None: any number."""
    around: list[int | None] = field(default_factory=list)
    """The highest count of each repetition around it."""


@dataclass
class _Piece:
    """An atom or a group of the pattern."""

    width: int | None = 0
    hard: list[_Hard] = field(default_factory=list)
    least: int = 1
    """The product of the lowest counts of repetitions inside each other, since the engine runs those also for empty text."""
    widest: int | None = 0
    """The width of the widest alternative before the current one."""
    looks: bool = False


@dataclass(frozen=True)
class Shape:
    """What decides the work of a pattern."""

    text: str
    """The pattern, with a lone `{` and `\\0` written as the engine reads them."""
    hard: tuple[tuple[int | None, tuple[int | None, ...]], ...]
    """Each lookaround and reference: its width, and the counts of the repetitions around it."""
    least: int

    def steps(self, chars: int, backtracks: int) -> int:
        """The most steps of a search in a text of this length, until so many backtracks."""
        run = chars + 1
        for width, around in self.hard:
            reads = min(width, chars) if width is not None else chars
            run += (reads + 1) * prod(chars + 1 if high is _UNBOUNDED else max(1, high) for high in around)
        return (backtracks + 1) * self.least * run


def read_shape(pattern: str) -> Shape:
    """Read a pattern. Never raises: the engine decides what is a pattern."""
    reader = _Reader(pattern)
    whole = reader.read()
    hard = tuple((one.width, tuple(one.around)) for one in whole.hard)
    return Shape("".join(reader.written), hard, whole.least)


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.written: list[str] = []
        self.groups = [_Piece()]
        self.last: _Piece | None = None
        """The piece to which a following repetition belongs."""

    def read(self) -> _Piece:
        at = 0
        while at < len(self.pattern):
            at = self._step(at)
        while len(self.groups) > 1:
            self._close()
        self._commit()
        return _finish(self.groups[0])

    def _step(self, at: int) -> int:
        """Read one element. Returns the place after it."""
        character, pattern = self.pattern[at], self.pattern
        if character == "\\":
            return self._escape(at)
        if character == "[":
            return self._atom(_end_of_class(pattern, at), at)
        if character == "(":
            self._commit()
            look = _LOOK.match(pattern, at)
            opened = look or _GROUP.match(pattern, at)
            self.groups.append(_Piece(looks=look is not None))
            return self._write(at, opened.end() if opened else at + 1)
        if character == ")":
            if len(self.groups) > 1:
                self._close()
            return self._write(at, at + 1)
        if character == "|":
            self._commit()
            group = self.groups[-1]
            group.widest, group.width = _wider(group.widest, group.width), 0
            return self._write(at, at + 1)
        if character in "*+?{":
            return self._repeat(at)
        return self._atom(at + 1, at)

    def _escape(self, at: int) -> int:
        if self.pattern.startswith("\\0", at) and not self.pattern[at + 2 : at + 3].isdigit():
            self._atom(at, at)
            self.written.append(r"\x00")
            return at + 2
        reference = _REFERENCE.match(self.pattern, at)
        braces = _BRACES.match(self.pattern, at)
        end = self._atom(braces.end() if braces else at + 2, at)
        if reference and self.last is not None:
            self.last.width = _UNBOUNDED
            self.last.hard.append(_Hard(_UNBOUNDED))
        return end

    def _atom(self, end: int, at: int) -> int:
        self._commit()
        self.last = _Piece(width=1)
        return self._write(at, end)

    def _repeat(self, at: int) -> int:
        found = _COUNT.match(self.pattern, at)
        if self.pattern[at] == "{" and not found:
            self._atom(at, at)
            self.written.append(r"\{")
            return at + 1
        low, high = {"*": (0, _UNBOUNDED), "+": (1, _UNBOUNDED), "?": (0, 1)}.get(self.pattern[at], (0, _UNBOUNDED))
        if found:
            low = int(found[1][:9])
            high = low if not found[2] else int(found[3][:9]) if found[3] else _UNBOUNDED
        if self.last is not None:
            self.last.width = None if high is None or self.last.width is None else self.last.width * high
            self.last.least *= max(1, low)
            for one in self.last.hard:
                one.around.append(high)
        return self._write(at, found.end() if found else at + 1)

    def _write(self, at: int, end: int) -> int:
        self.written.append(self.pattern[at:end])
        return end

    def _commit(self) -> None:
        """Add the last piece to the group around it."""
        if self.last is not None:
            group = self.groups[-1]
            group.width = None if group.width is None or self.last.width is None else group.width + self.last.width
            group.least = max(group.least, self.last.least)
            group.hard += self.last.hard
        self.last = None

    def _close(self) -> None:
        self._commit()
        self.last = _finish(self.groups.pop())


def _finish(group: _Piece) -> _Piece:
    group.width = _wider(group.widest, group.width)
    if group.looks:
        group.hard.append(_Hard(group.width))
        group.width = 0
    return group


def _wider(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _end_of_class(pattern: str, at: int) -> int:
    r"""The place after a class such as `[^\\]a]`."""
    place = at + 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return min(place + 1, len(pattern))
