"""Remembers which servers refuse the opaque parts of earlier turns, so that not every turn pays for a refused call.

A refusal is known when the same request succeeds without these parts. Then it holds for this model and server: at once
in this process, and in the fleet through a drift counter in the turn's commit. It is forgotten after one to two hours:
the server may be another release by then, or the refused parts may have left the session.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import AssistantMessage, Opaque, Part, ToolCall
from midwatch.schemas.model import ModelRequest

KEPT_MS = 3_600_000
"""How long a process remembers a refusal: one hour."""

MAX_SESSIONS = 1_000
"""Most sessions that are suspected at a time. The oldest is forgotten first."""

SERVER_ERRORS = 2
"""From this number of `provider_error` failures on, a session's next calls go without opaque parts.

Some local servers answer 500 because their chat template fails. That never ends by waiting. A real outage costs nothing
here, because no call is added.
"""


def describe_changes(changes: str, *, is_without_opaque: bool) -> str:
    """Say how a request differs from the usual one, for the trace."""
    return "; ".join(filter(None, [changes, "without opaque parts" if is_without_opaque else ""]))


def drops_opaque(request: ModelRequest) -> bool:
    """Does the request lack opaque parts that its model made, because their server refuses them?"""
    return any(
        isinstance(message, AssistantMessage)
        and message.server in request.opaque_refused_by
        and message.requested == request.model
        and any(_is_opaque(part, message.provider) for part in message.parts)
        for message in request.messages
    )


def _is_opaque(part: Part, provider: str) -> bool:
    """Is it a part that goes back to its maker only? Thinking that was found in a text goes to no model."""
    if isinstance(part, Opaque):
        return part.provider == provider
    return isinstance(part, ToolCall) and part.vendor_extra is not None


class OpaqueRefusals:
    """The servers that refuse opaque parts, by model, and those that may have refused them, by session. Thread-safe."""

    def __init__(self, of_the_fleet: Callable[[str], frozenset[str]], monotonic_ms: Callable[[], int]) -> None:
        self._of_the_fleet = of_the_fleet
        self._monotonic_ms = monotonic_ms
        self._confirmed: dict[tuple[str, str], int] = {}
        """(model, server) -> end of the refusal."""
        self._suspected: OrderedDict[str, tuple[str, int, int]] = OrderedDict()
        """Session -> server, number of failures, end of the suspicion."""
        self._lock = threading.Lock()

    def servers(self, model: str, session_id: str) -> frozenset[str]:
        """The servers that get no opaque parts in this model's next call for the session."""
        now = self._monotonic_ms()
        with self._lock:
            found = {server for (name, server), until in self._confirmed.items() if name == model and now < until}
            server, failures, until = self._suspected.get(session_id, ("", 0, 0))
        if failures >= SERVER_ERRORS and now < until:
            found.add(server)
        return self._of_the_fleet(model) | found

    def suspect(self, session_id: str, server: str, failure: Failure) -> bool:
        """Note that a call with opaque parts failed. Returns True if it must be made again at once, without them.

        Only a refused request is made again at once. Server errors are only counted.
        """
        if not failure.is_refused_request and failure.kind is not FailureKind.PROVIDER_ERROR:
            return False
        refused = failure.is_refused_request
        with self._lock:
            _, failures, _ = self._suspected.pop(session_id, ("", 0, 0))
            failures = SERVER_ERRORS if refused else failures + 1
            self._suspected[session_id] = server, failures, self._monotonic_ms() + KEPT_MS
            while len(self._suspected) > MAX_SESSIONS:
                self._suspected.popitem(last=False)
        return refused

    def confirm(self, model: str, server: str) -> None:
        """Note that the call succeeded without opaque parts."""
        with self._lock:
            self._confirmed[model, server] = self._monotonic_ms() + KEPT_MS

    def clear(self, session_id: str) -> None:
        """Forget the suspicion, because the call failed without opaque parts, too."""
        with self._lock:
            self._suspected.pop(session_id, None)
