"""Which downstream a call belongs to: its own name, or the pattern of a provider's model class that shares one limit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

NAME = re.compile(r"[!-~]{1,240}")
"""A provider, a colon, and a model's name of at most 200 characters."""


def is_name(name: object) -> bool:
    """Can this be the name of a downstream, or a pattern? It becomes a part of a Redis key."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def resolve(name: str, configured: Iterable[str]) -> str:
    """The configured name that counts for `name`: the name itself, else the longest pattern that fits.

    `anthropic:claude-sonnet-*` is such a pattern.
    """
    names = tuple(configured)
    if name in names:
        return name
    fitting = [pattern for pattern in names if fnmatchcase(name, pattern)]
    return max(fitting, key=len, default=name)
