"""A script with its keys and arguments, and the function that reads its reply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from midwatch.orchestration.protocol.reading import guard

Arg = str | bytes | int
"""One entry of ARGV."""

Items = Sequence[Arg] | Sequence[tuple[Arg, ...]]
"""A list argument: its items are single values, or tuples of them."""

Reply = TypeVar("Reply")


class ScriptCall(NamedTuple, Generic[Reply]):
    """One call of one script. `Scripts.run` sends it."""

    script: str
    """Name of the file in `lua/`, without its ending."""
    keys: Sequence[str]
    args: Sequence[Arg]
    read: Callable[[Any], Reply]
    """Makes the typed reply from what Redis returns."""

    def typed(self, reply: Any) -> Reply:
        """The typed reply.

        Raises:
            UnreadableRecord: a record in the reply is of a newer version, or damaged.

        """
        return guard(f"what {self.script!r} returned", lambda: self.read(reply))


def in_order(values: Iterable[Arg], *lists: Items) -> list[Arg]:
    """Make ARGV, which `lua/arguments.lua` reads: a single value is one entry, a list is its length and its items."""
    args = list(values)
    for items in lists:
        args.append(len(items))
        if items and isinstance(items[0], tuple):
            for row in items:
                args += row  # type: ignore[arg-type]
        else:
            args += items  # type: ignore[arg-type]
    return args


def or_empty(value: int | None) -> int | str:
    """The value, or empty text for None."""
    return "" if value is None else value


def as_json(model: BaseModel | None) -> str:
    """JSON without empty fields. Empty text for None."""
    return model.model_dump_json(exclude_none=True) if model else ""
