"""The seams: what you implement to extend Midwatch, and what passes through the gate."""

from midwatch.orchestration.ports import Clock, Dispatcher, Gate, Model, Store
from midwatch.orchestration.protocol.calls import Call, Report, Settlement

__all__ = ["Call", "Clock", "Dispatcher", "Gate", "Model", "Report", "Settlement", "Store"]
