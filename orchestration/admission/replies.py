"""The replies of the coordinator's functions, decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from midwatch.orchestration.admission.legend import RESOURCES
from midwatch.orchestration.protocol.lineage import LimitReached
from midwatch.schemas.limits import DownstreamStatus

RESOURCE_NAMES = {letter: name for name, letter in RESOURCES.items()}


@dataclass(frozen=True)
class Unconfigured:
    """The server has no limits of the downstream, because the downstream is new or the server has lost its data."""


@dataclass(frozen=True)
class Admitted:
    """The call may start."""

    hold_ms: int
    """The call may start after this many ms."""


@dataclass(frozen=True)
class Waits:
    """The call may not start yet."""

    ms: int
    """The expected wait."""
    reason: str
    in_line: bool
    """True if the call has a place in a line, from which a steward will wake it."""
    guessed: int = 0
    """The limit of requests a minute, if it was guessed from 429s. 0 if it was set or named, or if there is none."""


@dataclass(frozen=True)
class Denied:
    """The call may not start, and waiting would not help."""

    ms: int
    """How long a block lasts. 0 if it has no end."""
    reason: str
    figures: Mapping[str, Any]
    """The figures behind the reason, by name."""


@dataclass(frozen=True)
class Settled:
    """The state of the downstream after a call was settled."""

    is_known: bool
    """False if the call was not live: it was already settled, or given up."""
    closed_ms: int
    """How long the downstream takes no calls."""
    why: str
    """`paused`, `open`, `blocked`, `trouble`, or empty."""
    is_uncounted: bool
    """The failure does not count against the call's own retries."""
    earlier: int
    """How many earlier failures of the call did not count."""
    retry_after_ms: int
    """The provider's Retry-After, cut to `pause_max_s`. 0 if there was none."""
    in_trouble: bool
    """No call to the downstream has been answered since the last failures."""


@dataclass(frozen=True)
class Released:
    """Steps that were woken."""

    next_ms: int | None
    """The time until more steps may start. None if no call waits."""
    members: Sequence[bytes]


@dataclass(frozen=True)
class Due:
    """Downstreams whose lines a steward should check."""

    next_ms: int | None
    """The time until the next one is due. None if there is none."""
    downstreams: Sequence[str]


def decode_admit(reply: list[Any]) -> Admitted | Waits | Denied | Unconfigured:
    """The reply of `admit.lua`."""
    match reply:
        case [b"admit", hold_ms, _]:
            return Admitted(hold_ms)
        case [b"wait", ms, reason, in_line, guessed]:
            return Waits(ms, reason.decode(), bool(in_line), guessed)
        case [b"deny", ms, reason, figures]:
            return Denied(ms, reason.decode(), json.loads(figures))
        case _:
            return Unconfigured()


def decode_settle(reply: list[Any]) -> Settled:
    """The reply of `settle.lua`."""
    is_known, closed_ms, why, is_uncounted, earlier, retry_after_ms, in_trouble = reply
    return Settled(
        bool(is_known), closed_ms, why.decode(), bool(is_uncounted), earlier, retry_after_ms, bool(in_trouble)
    )


def decode_release(reply: list[Any]) -> Released:
    """The reply of `release.lua`."""
    next_ms, *members = reply
    return Released(_none_below_0(next_ms), members)


def decode_due(reply: list[Any]) -> Due:
    """The reply of `due.lua`."""
    next_ms, *downstreams = reply
    return Due(_none_below_0(next_ms), [name.decode() for name in downstreams])


def decode_reserve_calls(reply: bytes) -> Sequence[LimitReached | None] | None:
    """The reply of `reserve_calls.lua`. None if a later claim of the job has reserved calls."""
    if reply == b"lost":
        return None
    return [LimitReached(*answer) if answer else None for answer in json.loads(reply)]


def decode_status(reply: bytes | None) -> DownstreamStatus | None:
    """The reply of `status.lua`. None if the downstream was never called or configured."""
    if not reply:
        return None
    fields = json.loads(reply)
    for part in ("limits", "levels", "depths"):
        fields[part] = {RESOURCE_NAMES[letter]: figure for letter, figure in dict(fields[part]).items()}
    return DownstreamStatus.model_validate(fields)


def _none_below_0(ms: int) -> int | None:
    return ms if ms >= 0 else None
