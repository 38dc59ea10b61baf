"""Folders of Lua scripts: the text of a script, and the digest by which it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

import redis
from redis import exceptions as redis_errors

from midwatch.orchestration.keyspace import HELD_S, KEPT_S

_SHARED = re.compile(r"^-- Shared: (.*)$", re.MULTILINE)
"""The line of a script that names its shared files."""

_FUNCTION = re.compile(r"^(?=local function (\w+))", re.MULTILINE)

_COMMENT = re.compile(r"--.*")


@dataclass(frozen=True, eq=False)
class Library:
    """A folder of scripts, each called by the digest of its text.

    A line `-- Shared: prelude, arguments` in a script names files whose functions the script may call.
    Libraries are compared by identity, because the caches below hash a library at every call: hashing its fields costs 3 us.
    """

    package: str
    """The package whose folder `lua` holds the scripts."""
    header: str = ""
    """Lua that goes before the shared files."""

    @cache  # noqa: B019 (libraries are few, and live as long as the process)
    def source(self, name: str) -> str:
        """Text of a script. With a shebang line, a server that is out of memory refuses the script before it begins."""
        text = self.read(name)
        if shared := _SHARED.search(text):
            for file in reversed(shared[1].split(", ")):
                text = add_called(self.read(file), text)
        return f"#!lua\n{self.header}{text}"

    def read(self, name: str) -> str:
        """Return the text of a file of the folder."""
        return (files(self.package) / "lua" / f"{name}.lua").read_text()

    @cache  # noqa: B019
    def command(self, name: str) -> tuple[str, str]:
        """The command that runs the script, without its keys and arguments."""
        return "EVALSHA", sha1(self.source(name).encode(), usedforsecurity=False).hexdigest()

    def unknown(self, reply: object) -> bool:
        """Does the reply say that the server does not know the script?"""
        return isinstance(reply, redis_errors.NoScriptError)

    def load(self, client: redis.Redis, name: str) -> None:
        """Load the script into the server."""
        client.script_load(self.source(name))


def add_called(shared: str, script: str) -> str:
    """Return the script, preceded by the functions of a shared file that it calls, directly or through others.

    Other functions are left out, because the server creates all functions of a text at each call. For the step machine that
    took 1.5 to 2.5 us.
    """
    first, *functions = _FUNCTION.split(shared)
    for name, text in reversed(list(zip(functions[::2], functions[1::2], strict=True))):
        if re.search(rf"\b{name}\b", _COMMENT.sub("", script)):
            script = text + script
    return f"{first}{script}"


STEP_MACHINE = Library("midwatch.orchestration.store", f"local KEPT_S, HELD_S = {KEPT_S}, {HELD_S}\n")
