"""May this call start now? The gate, and the rules behind it."""

from __future__ import annotations

from orchestration.admission.open_gate import OpenGate

__all__ = ["OpenGate"]
