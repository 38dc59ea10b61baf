"""A call at the gate, the report of its result, and the gate's answer to the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.lineage import Chain
from midwatch.schemas.failure import Failure
from midwatch.schemas.model import Usage


@dataclass(frozen=True)
class Call:
    """One call to a downstream, as the gate sees it."""

    claim: Claim
    downstream: str
    """`provider:model`, or the name that the tool declared."""
    lasts_ms: int
    """The time limit of the call. A reservation that is older (by more than a grace time) belongs to a dead worker."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """How many input tokens the provider will probably read from its prompt cache."""
    output_tokens: int = 0
    """The most output that the call may have."""
    lineage_input_tokens: int | None = None
    """The limit of a root job without children. None: the limit that the root has set. 0: no limit, or `chain` has it."""
    lineage_output_tokens: int | None = None
    chain: Chain = ()
    """The job and its ancestors, whose limits bind this call. Empty for a job without parent and children."""


@dataclass(frozen=True)
class Report:
    """The result of an admitted call: an answer, or a failure."""

    usage: Usage | None = None
    failure: Failure | None = None
    is_usage_wrong: bool = False
    """True if the provider reported token counts that can't be true. Then `usage` counts as not reported."""
    sent: bool = True
    """False if the call never reached the downstream. Then it costs nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The provider's rate-limit headers, names in lower case, after a success or a failure."""
    latency_ms: int = 0
    opaque_sent_to: str = ""
    """The server, if a call failed that held opaque parts of earlier turns. The gate does not use it."""


@dataclass(frozen=True)
class Settlement:
    """The gate's answer to a report."""

    closed_ms: int = 0
    """How long the downstream takes no calls. A retry before that is useless."""
    why: str = ""
    """Why it takes no calls: `paused`, `open`, `blocked` or `trouble`."""
    free: bool = False
    """True if the failure does not count against `max_retries`: there is no sign that it is the call's own fault."""
    downstream: str = ""
    """The downstream as the gate names it. Empty if no coordinator has judged the failure."""
    earlier: int = 0
    """How many earlier failures of the call did not count. The backoff grows with them."""
    retry_after_ms: int = 0
    """The provider's Retry-After, cut to the downstream's `pause_max_s`. 0 if there was none."""
    in_trouble: bool = False
    """True if the downstream has answered no call since its last failures."""
