"""The drift breaker: finds the tools that a model often calls wrongly, from the fleet's recent counts."""

from __future__ import annotations

from collections import Counter

from midwatch import Agent, tool
from midwatch.orchestration.drift import ladder
from midwatch.orchestration.drift.breaker import LOOK_MS, RECENT_MS, DriftBreaker
from midwatch.orchestration.drift.counts import SHADOW, call_field, invalid_field

MODEL = "openai:gpt-5-2025-08-07"


class Fleet:
    """Counters, a clock, and the number of reads."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[int, str]] = Counter()
        self.now_ms = self.looks = 0
        self.breaker = DriftBreaker(self.read, lambda: self.now_ms)

    def read(self, hours: int) -> Counter[tuple[int, str]]:
        """Read the counters, as a store does."""
        self.looks += 1
        return Counter(self.counters)

    def calls(self, n: int, refused: int, tool: str = "book", kind: str = "schema", hour: int = 7) -> None:
        """Count calls of one tool in one hour."""
        self.counters[hour, call_field(MODEL, tool, 60_000)] += n
        self.counters[hour, invalid_field(MODEL, tool, 60_000, kind)] += refused

    def later(self, ms: int = LOOK_MS) -> frozenset[str]:
        """Let time pass, then return the tools with an open breaker."""
        self.now_ms += ms
        return self.breaker.open_tools(MODEL)


def test_it_opens_on_a_share_of_enough_calls():
    """It needs 30 % of 20 calls, of this model and tool only. Calls in shadow mode count as valid."""
    fleet = Fleet()
    fleet.calls(19, 10)
    fleet.calls(100, 29, tool="find")
    fleet.calls(50, 50, tool="scan", kind=SHADOW)
    assert fleet.breaker.open_tools(MODEL) == frozenset()
    fleet.calls(1, 0)
    assert fleet.later() == {"book"}
    assert fleet.breaker.open_tools("openai:gpt-4.1-2025-04-14") == frozenset()


def test_it_reads_the_counters_every_fifteen_seconds():
    """All steps of a worker in this time use the same read."""
    fleet = Fleet()
    for _ in range(100):
        fleet.breaker.open_tools(MODEL)
    assert fleet.looks == 1
    fleet.later()
    assert fleet.looks == 2


def test_recent_calls_decide():
    """After a thousand valid calls, twenty invalid ones open it. It closes when calls are valid again."""
    fleet = Fleet()
    fleet.calls(1_000, 0)
    assert fleet.later() == frozenset()
    fleet.calls(20, 20)
    assert fleet.later() == {"book"}
    fleet.now_ms += RECENT_MS
    fleet.later()
    fleet.calls(30, 1)
    assert fleet.later() == frozenset()


def test_a_new_hour_loses_no_counts():
    """Counters of the new hour begin at zero, and those of the old one stay."""
    fleet = Fleet()
    fleet.calls(1_000, 10)
    assert fleet.later() == frozenset()
    fleet.calls(30, 29, hour=8)
    assert fleet.later() == {"book"}


@tool
def book(order: str) -> str:
    """Book."""
    return order


@tool
def now() -> str:
    """The time."""
    return "noon"


def test_an_open_breaker_makes_the_tool_strict_from_the_start():
    """All tools are offered, this one in its strict form. A refused call is one rung higher."""
    agent = Agent("clerk", MODEL, "Book.", [book, now])
    first = ladder.make_offer(agent, ladder.Streak(), {"book"})
    assert [(spec.name, spec.strict) for spec in first.tools] == [("book", True), ("now", False)]
    assert first.changes == "strict"
    behind = ladder.Streak((ladder.Refusal("book", "schema", "{}"), ladder.Refusal("book", "schema", "[]")), 2)
    assert [spec.name for spec in ladder.make_offer(agent, behind, {"book"}).tools] == ["book"]
    assert [spec.name for spec in ladder.make_offer(agent, behind).tools] == ["book", "now"]


def test_an_unknown_tool_does_not_narrow_the_offer():
    """After three calls of `serch` all tools are still offered, since a provider may refuse a request without tools."""
    agent = Agent("clerk", MODEL, "Book.", [book, now])
    behind = ladder.Streak(tuple(ladder.Refusal("serch", "unknown_tool", str(n)) for n in range(3)), 3)
    assert len(ladder.make_offer(agent, behind).tools) == 2
