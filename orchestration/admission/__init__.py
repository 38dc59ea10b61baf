"""May this call start now? The gate and the rules behind it: see `docs/coordinator.md`."""
