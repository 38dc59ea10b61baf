"""What a storm is made of: the calls of one lineage, and how one of them reaches the downstream over plain HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

DOWNSTREAM = "crm"
"""What the tool of `storm_agents` declares."""
MODEL = "anthropic:claude-sonnet-4-6"
"""What its model agents ask."""
URL_VARIABLE = "STORM_URL"
RETRIES_VARIABLE = "STORM_RETRIES"
FANOUT = 8
LEVELS = 2
CALLS = 1 + FANOUT + FANOUT**2
"""Of one lineage: a root, its children, their children."""

LONE = "lone-"
"""How the name of a call begins that has no others below it."""

TIMEOUT_S = 100.0
"""Longer than the downstream holds a call in any scenario."""


class Refused(Exception):
    """Raised when the downstream did not answer with 200; it carries what any HTTP library's error carries."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


def below(call: str) -> tuple[str, ...]:
    """The calls that become possible once `call` was answered: `3` opens `3.0` to `3.7`, and `3.1` opens `3.1.0` to `3.1.7`."""
    if call.startswith(LONE) or call.count(".") >= LEVELS:
        return ()
    return tuple(f"{call}.{n}" for n in range(FANOUT))


def make(call: str) -> None:
    """Make one call and wait for its answer. A connection of its own: on loopback that costs nothing, and none goes stale.

    Raises:
        Refused: another status than 200.
        OSError: no connection.

    """
    address = urlsplit(os.environ[URL_VARIABLE])
    connection = HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/call", json.dumps({"call": call}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise Refused(response.status, dict(response.getheaders()))
