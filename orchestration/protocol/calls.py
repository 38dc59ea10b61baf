"""A call that asks to start, and what its settlement came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.failure import Failure
from midwatch.schemas.model import Usage


@dataclass(frozen=True)
class Call:
    """One call to a downstream, as a step asks for it."""

    claim: Claim
    downstream: str
    """`provider:model`, or what the tool declared."""
    lasts_ms: int
    """The bound on the call: a reservation older than that (and a grace) was left by a dead worker."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """Of them, expected to be read from the provider's prompt cache."""
    output_tokens: int = 0
    """At most."""
    lineage_input_tokens: int | None = None
    """What the whole lineage may use, said by its root job; None: as the root said. 0: any number."""
    lineage_output_tokens: int | None = None


@dataclass(frozen=True)
class Report:
    """What became of an admitted call: an answer, or a failure."""

    usage: Usage | None = None
    failure: Failure | None = None
    sent: bool = True
    """False: the downstream never saw it, so it costs nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The provider's rate-limit headers, lower case, of success and failure alike."""
    latency_ms: int = 0


@dataclass(frozen=True)
class Settlement:
    """What the coordinator makes of a report."""

    closed_ms: int = 0
    """The downstream takes no calls for so long: no use in coming back before."""
    why: str = ""
    """`paused`, `open` or `blocked`."""
    free: bool = False
    """The failure was the downstream's news (a 429, a probe), not one of the call's own attempts."""
