"""OpenGate: admits everything. What stands where the coordinator will."""

from __future__ import annotations

from schemas.failure import Failure
from schemas.model import Usage
from schemas.step import Defer, StepRef


class OpenGate:
    """`ports.Gate` without limits."""

    def admit(self, ref: StepRef, downstream: str, *, input_tokens: int, output_tokens: int) -> Defer | None:
        """Always."""
        return None

    def settle(self, ref: StepRef, downstream: str, *, usage: Usage | None, failure: Failure | None) -> None:
        """Nothing was reserved."""
