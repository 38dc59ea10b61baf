"""Script calls that publish first steps, or let them wait in the backlog of their priority."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from midwatch.orchestration.store.script_calls.script_call import ScriptCall, in_order


class QueueKeys(NamedTuple):
    """Keys of the first steps of one priority."""

    queue: str
    backlog: str
    tenants: str


class FirstStep(NamedTuple):
    """A step of the backlog, and its message."""

    member: str
    message: bytes


def publish_first(keys: QueueKeys, *, places: int, member: str, tenant: str, message: bytes) -> ScriptCall[bool]:
    """Publish a first step. Returns False if it waits in the backlog."""
    return ScriptCall("publish_first", keys, in_order((places, member, tenant, message)), bool)


def fill_queue(keys: QueueKeys, *, places: int, steps: Sequence[FirstStep]) -> ScriptCall[int]:
    """Move steps from the backlog to their queue. Returns how many."""
    return ScriptCall("fill_queue", keys, in_order((places,), steps), int)
