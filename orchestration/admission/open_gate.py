"""OpenGate: admits every call. For tests without a server, and for calls without limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.lineage import CallReservation, LimitReached
from midwatch.schemas.failure import Failure
from midwatch.schemas.step import Defer, StepRef


class OpenGate:
    """`ports.Gate` without limits."""

    def admit(self, call: Call) -> Defer | Failure | None:
        """Admit it."""
        return None

    def settle(self, call: Call, report: Report) -> Settlement:
        """Do nothing, because nothing was reserved."""
        return Settlement()

    def make_piggyback(self, call: Call, report: Report) -> Callable[[], object]:
        """See `ports.Gate.make_piggyback`."""
        return partial(self.settle, call, report)

    def leave_line(self, ref: StepRef, downstream: str) -> None:
        """Do nothing, because no call waits."""

    def reserve_calls(self, reservation: CallReservation) -> Sequence[LimitReached | None]:
        """Let all calls run."""
        return [None] * len(reservation.calls)
