"""Count a model's calls and its invalid calls: the names of the counters in Redis, and their sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

THRESHOLD = 0.03
"""A person should look at a row from this share of invalid calls on. Recorded models stay below it or are far above it (2 %
of 11,877 calls)."""

MIN_CALLS = 20
"""With fewer calls, a share means nothing."""

BANDS = ((10_000, "under 10k"), (50_000, "10k-50k"), (100_000, "50k-100k"))
"""Context bands, by the input tokens of the turn. Above the last: `over 100k`."""

SHADOW = "shadow"
"""Kind of the calls that the schema refuses but that run because their tool says `validation="shadow"`."""

CUT = "prompt_cut"
"""First word of the counters of cut prompts. All other counters are of calls of tools."""

OPAQUE = "opaque"
"""First word of the counters of calls that a server refused because of opaque parts."""

Counters = Mapping[tuple[int, str], int]
"""Counts, by hour and counter name."""


def band(tokens: int) -> str:
    """The context band of a turn."""
    return next((name for limit, name in BANDS if tokens < limit), "over 100k")


def _plain(name: str) -> str:
    """The name without bars, which separate the parts of a counter's name."""
    return name.replace("|", "%7C")


def call_field(model: str, tool: str, tokens: int) -> str:
    """Name of the counter of all calls."""
    return f"calls|{_plain(model)}|{_plain(tool)[:64]}|{band(tokens)}|"


def invalid_field(model: str, tool: str, tokens: int, kind: str) -> str:
    """Name of the counter of invalid calls of one kind; with kind `SHADOW`, of those that ran."""
    return f"invalid|{_plain(model)}|{_plain(tool)[:64]}|{band(tokens)}|{kind}"


def cut_field(model: str, agent: str, tokens: int) -> str:
    """Name of the counter of the calls whose prompt was cut, because it did not fit into a call."""
    return f"{CUT}|{model}|{agent}|{band(tokens)}|"


@dataclass(frozen=True)
class CutPrompts:
    """The calls of one agent and model that were made with a cut prompt."""

    model: str
    agent: str
    band: str
    calls: int


def cut_rows(counters: Iterable[tuple[str, int]]) -> list[CutPrompts]:
    """Add up the counters of cut prompts. Returns one row for each model, agent and band, the most calls first."""
    calls: Counter[tuple[str, str, str]] = Counter()
    for name, count in counters:
        what, model, agent, where, _ = name.split("|", 4)
        if what == CUT:
            calls[model, agent, where] += count
    return sorted((CutPrompts(*key, count) for key, count in calls.items()), key=lambda row: -row.calls)


def opaque_field(model: str, server: str) -> str:
    """Name of the counter of calls that a server refused because of opaque parts of earlier turns."""
    return f"{OPAQUE}|{_plain(model)}|{server.replace('|', ' ')[:200]}||"


@dataclass(frozen=True)
class Drift:
    """The calls that one model made of one tool in one context band."""

    model: str
    tool: str
    band: str
    calls: int
    invalid: int
    kinds: dict[str, int]

    @property
    def rate(self) -> float:
        """Share of invalid calls."""
        return self.invalid / self.calls if self.calls else 0.0


def drift_rows(counters: Iterable[tuple[str, int]]) -> list[Drift]:
    """Add up the counters of several hours. Returns one row for each model, tool and band, the worst first."""
    calls: dict[tuple[str, str, str], int] = {}
    kinds: dict[tuple[str, str, str], dict[str, int]] = {}
    for name, count in counters:
        what, model, tool, where, kind = name.split("|", 4)
        key = (model, tool, where)
        if what == "calls":
            calls[key] = calls.get(key, 0) + count
        elif what not in (CUT, OPAQUE):
            kinds.setdefault(key, {})[kind] = kinds.get(key, {}).get(kind, 0) + count
    found = [
        Drift(*key, calls=calls.get(key, 0), invalid=sum(kinds.get(key, {}).values()), kinds=kinds.get(key, {}))
        for key in calls.keys() | kinds.keys()
    ]
    return sorted(found, key=lambda row: (-row.rate, -row.calls, row.model, row.tool, row.band))


def count_by_tool(counters: Counters) -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and refused calls, by model and tool. A call that ran in shadow mode was not refused."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (_, name), count in counters.items():
        what, model, tool, _, kind = name.split("|", 4)
        if what in (CUT, OPAQUE):
            continue
        calls, invalid = found.get((model, tool), (0, 0))
        if what == "calls":
            calls += count
        elif kind != SHADOW:
            invalid += count
        found[model, tool] = calls, invalid
    return found


def opaque_refusals(counters: Counters) -> dict[str, frozenset[str]]:
    """The servers that refused opaque parts of earlier turns, by model."""
    found: dict[str, frozenset[str]] = {}
    for _, name in counters:
        what, model, server, _, _ = name.split("|", 4)
        if what == OPAQUE:
            found[model] = found.get(model, frozenset()) | {server}
    return found
