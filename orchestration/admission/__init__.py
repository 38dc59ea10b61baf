"""May this call start now? The gate, and the coordinator in Redis behind it: see `docs/coordinator.md`."""
