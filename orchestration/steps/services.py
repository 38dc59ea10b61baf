"""The services that every step uses: the store, the agents, the models, the gate, the leases, the clock."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.drift.breaker import DriftBreaker
from midwatch.orchestration.drift.opaque_refusals import OpaqueRefusals
from midwatch.orchestration.ports import Clock, Gate, Model, Store
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.isolation import AloneRun
from midwatch.orchestration.steps.leases import LeaseKeeper
from midwatch.orchestration.tokens.estimate import Estimator
from midwatch.schemas.step import Outcome, StepRef
from midwatch.schemas.trace import TraceRecord

Isolate = Callable[[Claim, int], AloneRun]
"""Runs a claimed step alone in a separate process, which continues the claim.

The number is the longest time in ms that the step may take. It returns when the process has ended.
"""


def ignore(*_: object, **__: object) -> None:
    """Do nothing: the default of the hooks."""


@dataclass
class Services:
    """One per process. Thread-safe, because all state is behind the ports."""

    store: Store
    agents: Registry
    model: Callable[[str], Model]
    """Returns the `Model` of a provider, by the provider's name."""
    gate: Gate
    leases: LeaseKeeper
    clock: Clock
    worker: str
    """This process in traces: host and pid."""
    rng: random.Random = field(default_factory=random.Random)
    observe: Callable[[Claim, TraceRecord, Outcome], object] = ignore
    """A hook, called after each outcome."""
    request_compaction: Callable[[StepRef], object] = ignore
    """Publishes a compaction task. If it is lost, the next turn requests it again."""
    note_begin: Callable[[Claim], object] = ignore
    """A hook, called before a call runs that may not run twice."""
    look_at_data: Callable[..., object] = ignore
    """A hook that checks whether Redis has lost its data. `now=True` checks even if the last check was a moment ago."""
    isolate: Isolate | None = None
    """Runs a step that may have killed its worker. None: such a step runs here, and no loss is ever proven."""
    estimator: Estimator = field(default_factory=Estimator)
    not_strict: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of agent version and model whose provider refused a strict schema. It is not sent to them again."""
    _life: str = field(default_factory=lambda: secrets.token_hex(4))
    """A random part of each nonce. In a container, a restarted process has the same host name and pid.

    Without this part it would repeat old nonces, and take a dead worker's claim for its own.
    """
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.drift = DriftBreaker(self.store.drift_counters, self.clock.monotonic_ms)
        self.opaque = OpaqueRefusals(self.drift.opaque_refused_by, self.clock.monotonic_ms)

    def next_nonce(self) -> str:
        """A nonce that no other claim of any process has."""
        return f"{self.worker}.{self._life}.{next(self._numbers)}"
