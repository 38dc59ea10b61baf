"""The calls of one lineage in a storm, and a plain HTTP request that makes one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

DOWNSTREAM = "crm"
"""The downstream of the tool in `agents`."""
MODEL = "anthropic:claude-sonnet-4-6"
"""The model of the model agents."""
URL_VARIABLE = "STORM_URL"
RETRIES_VARIABLE = "STORM_RETRIES"
FANOUT = 8
LEVELS = 2
CALLS = 1 + FANOUT + FANOUT**2
"""Calls of one lineage: a root, its children, their children."""

SINGLE = "single-"
"""Prefix of the name of a call without calls below it."""

TIMEOUT_S = 100.0
"""Longer than the downstream holds a call in any scenario."""


class Refused(Exception):
    """Raised when the downstream did not answer with 200. It has the attributes of an HTTP library's error."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


def calls_below(call: str) -> tuple[str, ...]:
    """Return the calls that follow the answer to `call`: `3.0` to `3.7` follow `3`, and `3.1.0` to `3.1.7` follow `3.1`."""
    if call.startswith(SINGLE) or call.count(".") >= LEVELS:
        return ()
    return tuple(f"{call}.{n}" for n in range(FANOUT))


def make_call(call: str) -> None:
    """Make one call and wait for its answer. Each call opens a new connection, which is cheap on loopback.

    Raises:
        Refused: the status is not 200.
        OSError: the connection failed.

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
