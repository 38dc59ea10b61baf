"""Which downstream a call belongs to: its own name, or the pattern of a provider's model class that shares one limit."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def resolve(name: str, configured: Iterable[str]) -> str:
    """The configured name that counts for `name`: the name itself, else the longest pattern that fits.

    `anthropic:claude-sonnet-*` is such a pattern.
    """
    names = tuple(configured)
    if name in names:
        return name
    fitting = [pattern for pattern in names if fnmatchcase(name, pattern)]
    return max(fitting, key=len, default=name)
