"""A job's ancestry in the coordinator: the chain of jobs whose limits bind it, and the reservation of calls and children."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from midwatch.orchestration.admission import script_calls
from midwatch.orchestration.admission.legend import BOUNDS
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.keyspace import KEPT_S, Keyspace
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.lineage import CallReservation, Chain, LimitReached
from midwatch.orchestration.store.scripts import Scripts
from midwatch.schemas.job import Job
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.step import StepKind

KEPT_MS = KEPT_S * 1_000

PATIENCE_MS = 60_000
"""How long a reservation waits for a server that restarts, as a commit does: the model's reply is paid for."""


def ancestry_of(claim: Claim, chain: Chain) -> str:
    """The ancestry for the step of a claim. A summary belongs to no turn, so it counts no step. '' for an empty chain."""
    is_turn = claim.ref.kind is not StepKind.COMPACT
    return encode_ancestry(claim.job, chain, turn=claim.ref.turn if is_turn else 0, fence=claim.fence) if chain else ""


def encode_ancestry(job: Job, chain: Chain, *, turn: int, fence: int) -> str:
    """The JSON that `lua/members.lua` reads."""
    jobs: list[Mapping[str, Any]] = [
        {"id": one.job_id, "l": encode_bounds(one.bounds)} if one.bounds else {"id": one.job_id} for one in chain
    ]
    calls = job.tool_calls - job.children
    return _compact({"turn": turn, "fence": fence, "calls": calls, "children": job.children, "chain": jobs})


def reserve_calls(scripts: Scripts, keys: Keyspace, reservation: CallReservation) -> Sequence[LimitReached | None]:
    """Reserve the calls of a turn. Returns for each the limit that it would exceed, or None.

    Raises:
        LeaseLost: a later claim of the job has reserved calls.
        StoreUnavailable: Redis can't be reached.

    """
    claim = reservation.claim
    call = script_calls.reserve_calls(
        [keys.lineage(claim.job.root_id)],
        ancestry=ancestry_of(claim, reservation.chain),
        calls=_compact([[call.tool, int(call.is_child)] for call in reservation.calls]),
        counted=_compact(dict(reservation.calls_before)),
        kept_ms=KEPT_MS,
    )
    answers = scripts.run(call, patience_ms=PATIENCE_MS)
    if answers is None:
        raise LeaseLost
    return answers


def adopt(
    scripts: Scripts, keys: Keyspace, parent: Job, chain: Chain, child_id: str, *, is_added: bool, most_if_unknown: int
) -> int | None:
    """Count a child that a producer enqueues; with `is_added=False`, forget it. Returns the limit that it would exceed."""
    call = script_calls.adopt(
        [keys.lineage(parent.root_id)],
        ancestry=encode_ancestry(parent, chain, turn=parent.turn, fence=0),
        child=child_id,
        is_added=is_added,
        most_if_unknown=most_if_unknown,
        kept_ms=KEPT_MS,
    )
    limit = scripts.run(call)
    return None if limit < 0 else limit


def encode_bounds(bounds: Bounds) -> Mapping[str, Any]:
    """The limits by their stored names. A limit that is not set is left out."""
    most = bounds.max_tool_calls
    found = {
        "steps": bounds.max_steps,
        "calls": most if isinstance(most, int) else None,
        "tools": most if isinstance(most, dict) else None,
        "input": bounds.max_input_tokens,
        "output": bounds.max_output_tokens,
        "children": bounds.max_children,
    }
    return {BOUNDS[name].stored: limit for name, limit in found.items() if limit is not None}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
