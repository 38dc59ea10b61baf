"""The scenarios of `midwatch bench storm --simulate`: a load, and a provider's behaviour."""

from __future__ import annotations

from dataclasses import dataclass, replace

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.provider import MEAN_CALL_S, ProviderModel


@dataclass(frozen=True)
class Load:
    """The size of the work and of the fleet. Lineages start at equal intervals. Each is a root call with two more levels."""

    lineages: int = 200
    children: int = 8
    """Children of each call above the last level. They start when their parent's call is done."""
    depth: int = 2
    start_within_s: float = 60.0
    slots: int = 512
    slots_per_process: int = 8
    within_s: float = 3_600.0
    """The simulation ends at this time, even if work is left."""

    @property
    def calls(self) -> int:
        """Number of logical calls: the calls that a provider without failures would get."""
        in_a_lineage: int = sum(self.children**level for level in range(self.depth + 1))
        return self.lineages * in_a_lineage

    @property
    def capacity_per_s(self) -> float:
        """Calls per second that the fleet's slots can make."""
        return self.slots / MEAN_CALL_S


@dataclass(frozen=True)
class Scenario:
    """One load, and one provider's behaviour."""

    name: str
    about: str
    provider: ProviderModel
    load: Load = Load()

    def scaled(self, share: float) -> Scenario:
        """Return a smaller scenario: fewer lineages and slots, a lower limit, the same times."""
        load = replace(self.load, lineages=round(self.load.lineages * share), slots=round(self.load.slots * share))
        return replace(self, load=load, provider=replace(self.provider, limit_per_s=self.provider.limit_per_s * share))


_HANGS = ProviderModel(200, failing=FailureKind.TIMEOUT, fails_after_s=30)

_ALL = (
    Scenario("ample", "529 for 60 s; the limit is high enough", ProviderModel(500)),
    Scenario("tight", "529 for 60 s; the work alone needs five minutes", ProviderModel(50)),
    Scenario(
        "tight_charged",
        "like `tight`, and a refused call costs as much as a served one",
        ProviderModel(50, refusal_cost=1.0),
    ),
    Scenario(
        "brownout",
        "529 for 60 s, then a limit that rises from a tenth within a minute; refusals cost a little",
        ProviderModel(200, refusal_cost=0.2, warm_s=60, warm_from=0.1),
    ),
    Scenario("hang", "no answer for 60 s: each call times out after 30 s", _HANGS),
    Scenario(
        "hang_70",
        "like `hang`, for 70 s, so that timeouts do not all end with the outage, as they do after 60 s",
        replace(_HANGS, outage_until_s=100),
    ),
    Scenario("partial", "529 for 30 % of all calls for 60 s, at any rate", ProviderModel(200, share_failing=0.3)),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
