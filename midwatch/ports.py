"""The protocols that you can implement to extend Midwatch, and the values that a gate gets."""

from midwatch.orchestration.ports import Clock, Dispatcher, Gate, Model, Store
from midwatch.orchestration.protocol.calls import Call, Report, Settlement

__all__ = ["Call", "Clock", "Dispatcher", "Gate", "Model", "Report", "Settlement", "Store"]
