"""The coordinator as a function library of the server (`FUNCTION LOAD`).

The server creates a library's closures once, and a script's at each call. A configuration is also unpacked only once. A whole
call takes 0.79 of the server CPU that the same files take as scripts (measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1

import redis
from redis import exceptions as redis_errors

from midwatch.orchestration.admission.legend import with_stored_names
from midwatch.orchestration.store.script_library import Library

SHARED = ("prelude", "health", "evidence", "buckets", "lineage", "members", "lines", "learned", "feedback")
"""Files that all functions share, one concept each. A file uses only files before it."""

FUNCTIONS = ("admit", "settle", "release", "configure", "control", "status", "gone")
"""Files that are one function each. Their names and arguments in Python are in `script_calls.py`."""


@dataclass(frozen=True, eq=False)
class FunctionLibrary(Library):
    """A library named by the digest of its text, so that workers of two releases can share a server."""

    bare: tuple[str, ...] = ()
    """Functions with other keys, which are called without `bind`."""

    def read(self, name: str) -> str:
        """Return the text of a file of the folder, with the stored names of all fields."""
        return with_stored_names(super().read(name))

    @cache  # noqa: B019 (there is one)
    def source(self, name: str) -> str:
        """Text of the whole library; it does not depend on the name."""
        functions = (f"local function {each}(KEYS, ARGV)\nbind(KEYS)\n{self.read(each)}\nend\n" for each in FUNCTIONS)
        bare = (f"local function {each}(KEYS, ARGV)\n{self.read(each)}\nend\n" for each in self.bare)
        shared = (f"{self.read(each)}\n" for each in SHARED)
        return f"{self.header}{''.join((*shared, *functions, *bare))}"

    @cache  # noqa: B019
    def command(self, name: str) -> tuple[str, str]:
        """The command that runs the function."""
        return "FCALL", f"{self._named(name)}_{name}"

    def unknown(self, reply: object) -> bool:
        """Does the reply say that the server has no such library, or has lost it?"""
        return isinstance(reply, redis_errors.ResponseError) and "Function not found" in str(reply)

    def load(self, client: redis.Redis, name: str) -> None:
        """Load the library. Another process may have loaded it already, or may be loading it now."""
        named = self._named(name)
        register = "".join(f"redis.register_function('{named}_{each}', {each})\n" for each in (*FUNCTIONS, *self.bare))
        client.function_load(f"#!lua name={named}\n{self.source(name)}\n{register}", replace=True)

    @cache  # noqa: B019
    def _named(self, name: str) -> str:
        return "midwatch_" + sha1(self.source(name).encode(), usedforsecurity=False).hexdigest()[:12]


COORDINATOR = FunctionLibrary("midwatch.orchestration.admission", bare=("due", "reserve_calls", "adopt"))
"""`due` reads the index of all downstreams, and the other two a lineage. They take no keys of a single downstream."""
