"""Script calls of the worker that redrives letters."""

from __future__ import annotations

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, in_order


def hold_lease(keys: Keyspace, *, worker: str, lease_ms: int) -> ScriptCall[bool]:
    """Take or renew the lease of the one worker that redrives letters. Returns False if another worker has it."""
    return ScriptCall("hold_lease", [keys.redrive_lease()], in_order((worker, lease_ms)), bool)
