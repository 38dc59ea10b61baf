"""The key-leak check: after a test every key is in the catalogue and has a time to live, unless its row says why not.

It finds two mistakes that no other test finds: a key that is never deleted, and a key that was not built in `keyspace.py`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import redis as redis_py

from midwatch.orchestration.keyspace import Key

PRIORITY = r"(\x06\x16\d)?"
"""What kombu appends to a queue's name for every priority except the first."""

KOMBUS_OWN = re.compile(r"_kombu\.binding.*|unacked(_index|_mutex)?|.*\.pidbox|celeryev.*")
"""Keys that kombu names itself. All fleets of a server share them."""


def expand(pattern: str, prefix: str) -> re.Pattern[str]:
    """Return the regular expression of a catalogue pattern within one prefix.

    `{prefix}.a, .b (+ priority)` names two queues. Both names begin with the prefix, and both queues have priorities.
    """
    own = re.escape(prefix)
    filled = {"{prefix}": own, "{p}": rf"\{{{own}\d\d\}}", "{gate}": rf"\{{{own}gate\}}"}
    plain, _, priorities = pattern.partition(" (+")
    regexes = []
    for name in plain.split(", "):
        pieces = re.split(r"(\{\w+\})", "{prefix}" + name if name.startswith(".") else name)
        regexes.append("".join(filled.get(p, ".+") if p.startswith("{") else re.escape(p) for p in pieces))
    return re.compile("(" + "|".join(regexes) + ")" + (PRIORITY if priorities else ""))


def complaint(name: str, kind: str, ttl_s: int, prefix: str, catalogue: Sequence[Key]) -> str | None:
    """Return what is wrong with a key of the fleet, or None. `ttl_s` is the reply of TTL: -1 means that it never expires."""
    rows = [row for row in catalogue if expand(row.pattern, prefix).fullmatch(name)]
    if not rows:
        return f"{name!r} ({kind}) is in no row of Keyspace.CATALOGUE: build it in keyspace.py and describe it there"
    fitting = [row for row in rows if row.type.lower() == kind]
    if not fitting:
        closest = max(rows, key=lambda row: len(row.pattern))  # an id may contain colons, so wider rows match too
        return f"{name!r} is a {kind}; the catalogue says {closest.type} for {closest.pattern!r}"
    if ttl_s == -1 and not any(row.ttl.startswith("none") for row in fitting):
        return f"{name!r} never expires; the catalogue says {fitting[0].ttl!r} for {fitting[0].pattern!r}"
    return None


class Lender:
    """Lends prefixes, and checks their keys when they are returned."""

    def __init__(self, client: redis_py.Redis) -> None:
        self._client = client
        self._lent: set[str] = set()

    @contextmanager
    def lend(self, catalogue: Sequence[Key]) -> Iterator[str]:
        """Lend a new prefix. At the end its keys are checked and deleted.

        Raises: AssertionError: a key leaked. The message names it and says what is wrong with it.
        """
        prefix = "t" + secrets.token_hex(4)
        before = set(self._names())
        self._lent.add(prefix)
        try:
            yield prefix
            leaks = self.leaks(prefix, catalogue, before)
            assert not leaks, f"{len(leaks)} leaked key(s) of prefix {prefix}:\n  " + "\n  ".join(leaks)
        finally:
            self._delete(prefix, before)
            self._lent.discard(prefix)

    def leaks(self, prefix: str, catalogue: Sequence[Key], before: set[str]) -> list[str]:
        """Return a complaint for each key of the prefix that breaks its row, and for each new key without a known prefix."""
        found = []
        for name in sorted(self._names()):
            if name.startswith(prefix):
                kind = cast(bytes, self._client.type(name)).decode()
                said = complaint(name, kind, self._client.ttl(name), prefix, catalogue)
                if said and kind != "none":  # "none": it expired during the check
                    found.append(said)
            elif self._is_stray(name, before):
                found.append(f"{name!r} lies outside every prefix: build it in keyspace.py")
        return found

    def _is_stray(self, name: str, before: set[str]) -> bool:
        return name not in before and not KOMBUS_OWN.fullmatch(name) and not name.startswith(tuple(self._lent))

    def _names(self) -> Iterator[str]:
        for name in self._client.scan_iter(count=1_000):
            yield cast(bytes, name).decode(errors="backslashreplace")

    def _delete(self, prefix: str, before: set[str]) -> None:
        mine = [n for n in self._names() if n.startswith(prefix) or prefix in n or self._is_stray(n, before)]
        for name in mine:
            self._client.delete(name)
