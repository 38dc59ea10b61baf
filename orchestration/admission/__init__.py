"""May this call start now? The gate, and the rules behind it: see `docs/coordinator.md`."""

from __future__ import annotations

from orchestration.admission.call import Call, Report, Settlement
from orchestration.admission.open_gate import OpenGate

__all__ = ["Call", "OpenGate", "Report", "Settlement"]
