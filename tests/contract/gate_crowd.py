"""A fleet in simulated time at one real gate.

Its calls ask to start, wait in line, are woken by a steward, run, fail and return.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.steps import retry
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Defer, StepRef
from tests.contract.gate_bench import GateBench

LEASE_S = 3.0
SWEEP_S = 0.5
"""A steward looks at the lines at least this often, as in a real worker."""

PATIENT = RetryConfig(
    max_retries=100, base_s=1.0, cap_s=10.0,
    retry_on=[FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.TIMEOUT],
)  # fmt: skip
"""High enough that a worker never gives up a call: only the coordinator ends calls."""


@dataclass(frozen=True)
class Answer:
    """A provider's answer to a call."""

    report: Report
    after_s: float = 1.0

    @classmethod
    def good(cls, tokens: int = 10, output: int = 10, after_s: float = 1.0) -> Answer:
        """Return a successful answer."""
        usage = Usage(input_tokens=tokens, output_tokens=output)
        return cls(Report(usage=usage, latency_ms=int(after_s * 1_000)), after_s)

    @classmethod
    def bad(cls, kind: FailureKind, *, retry_after_s: float | None = None, after_s: float = 0.1) -> Answer:
        """Return a failure."""
        wait_ms = None if retry_after_s is None else int(retry_after_s * 1_000)
        return cls(Report(failure=Failure(kind=kind, detail="", retry_after_ms=wait_ms)), after_s)


Provider = Callable[[Call, float], Answer]
"""Takes a call and the second at which it was sent."""


@dataclass
class Crowd:
    """Runs events in the order of their time. The bench's clock is moved to each event, so a simulated minute takes moments."""

    bench: GateBench
    provider: Provider = lambda call, at_s: Answer.good()
    slots: int = 1_000_000
    """The number of calls that the fleet's workers can make at once."""
    config: RetryConfig = PATIENT
    dies: Callable[[], bool] = lambda: False
    """Says whether the worker dies before it settles an answer. The step is claimed again when its lease has run out."""
    sent: list[tuple[float, Call]] = field(default_factory=list)
    """Every call that reached the provider, and the second at which it did."""
    done: list[tuple[float, Call]] = field(default_factory=list)
    ended: list[Failure] = field(default_factory=list)
    """The failures of calls that became dead letters."""
    words: Counter[str] = field(default_factory=Counter)
    """How often the gate gave each answer."""

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._start_us = self.bench.time.us
        self._in_line: dict[StepRef, Call] = {}
        self._ready: deque[Call] = deque()
        self._busy = 0
        self._look_s: float | None = None
        self._rng = random.Random(7)

    @property
    def now_s(self) -> float:
        """Return the seconds since the start."""
        return (self.bench.time.us - self._start_us) / 1e6

    def at(self, second: float, act: Callable[[], None]) -> None:
        """Run an action at a given second of the simulated time."""
        heapq.heappush(self._events, (second, next(self._order), act))

    def submit(self, *calls: Call, at_s: float = 0.0) -> None:
        """Send steps to the workers at a given second."""
        for call in calls:
            self.at(at_s, lambda call=call: self._arrive(call))  # type: ignore[misc]

    def run(self, until_s: float) -> None:
        """Run until a second, or until there are no more events."""
        while self._events and self._events[0][0] <= until_s:
            second, _, act = heapq.heappop(self._events)
            self.bench.time.move_to(max(self._start_us + second * 1e6, self.bench.time.us))
            act()
        if self._events:
            self.bench.time.move_to(self._start_us + until_s * 1e6)

    def calls_per_second(self, since_s: float = 0.0) -> list[int]:
        """How many calls reached the provider in each second after `since`."""
        times = [at_s for at_s, _ in self.sent if at_s >= since_s]
        seconds = Counter(int(at_s - since_s) for at_s in times)
        return [seconds[n] for n in range(max(seconds, default=-1) + 1)]

    def _arrive(self, call: Call) -> None:
        self._ready.append(call)
        self._work()

    def _work(self) -> None:
        while self._ready and self._busy < self.slots:
            self._ask(self._ready.popleft())

    def _ask(self, call: Call) -> None:
        answer = self.bench.gate.admit(call)
        if answer is None:
            self.words["admitted"] += 1
            self._busy += 1
            self.at(self.now_s + self.bench.held_ms[-1] / 1_000, lambda: self._send(call))
        elif isinstance(answer, Failure):
            self.words[answer.kind.value] += 1
            self.ended.append(answer)
        else:
            self.words[answer.reason.rpartition(": ")[2].partition(",")[0]] += 1
            self._wait(call, answer)

    def _wait(self, call: Call, defer: Defer) -> None:
        ref = call.claim.ref
        if defer.wakes:
            self._in_line[ref] = call
            self._look(self.now_s + SWEEP_S)
        else:
            self.at(self.now_s + defer.after_ms / 1_000, lambda: self._arrive(self.bench.claim_again(call)))

    def _send(self, call: Call) -> None:
        self.sent.append((self.now_s, call))
        answer = self.provider(call, self.now_s)
        self.at(self.now_s + answer.after_s, lambda: self._settle(call, answer.report))

    def _settle(self, call: Call, report: Report) -> None:
        if self.dies():
            self._busy -= 1
            self.submit(self.bench.claim_again(call, lost=True), at_s=self.now_s + LEASE_S)
            return self._work()
        settled = self.bench.gate.settle(call, report)
        self._busy -= 1
        if report.failure is None:
            self.done.append((self.now_s, call))
        else:
            decision = retry.decide(self.config, report.failure, call.claim.attempt, self._rng, settled)
            if isinstance(decision, Defer):
                again = self.bench.claim_again(call, failed=decision.counts_as_attempt)
                self.at(self.now_s + decision.after_ms / 1_000, lambda: self._arrive(again))
            else:
                self.ended.append(report.failure)
        return self._work()

    def _look(self, second: float) -> None:
        """Let a steward check the lines at a given second, unless it already checks them earlier."""
        if self._look_s is None or second < self._look_s:
            self._look_s = second
            self.at(second, lambda: self._release(second))

    def _release(self, planned_s: float) -> None:
        if self._look_s != planned_s:
            return  # a steward has looked earlier
        self._look_s = None
        refs, more_ms = self.bench.board.release()
        for ref in refs:
            if call := self._in_line.pop(ref, None):
                self._ready.append(self.bench.claim_again(call))
        if self._in_line:
            self._look(self.now_s + (SWEEP_S if more_ms < 0 else min(SWEEP_S, max(more_ms, 1) / 1_000)))
        self._work()


@dataclass
class Bucket:
    """A provider's own request limit. A request above the limit is refused with a 429."""

    per_minute: float
    depth: float
    retry_after_s: float | None = None
    lasts_s: float = 1.0
    refused: int = 0
    _level: float = field(init=False)
    _at_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._level = self.depth

    def __call__(self, call: Call, at_s: float) -> Answer:
        """See `Provider`."""
        self._level = min(self.depth, self._level + (at_s - self._at_s) * self.per_minute / 60)
        self._at_s = at_s
        if self._level > 1 - 1e-6:
            self._level -= 1
            return Answer.good(after_s=self.lasts_s)
        self.refused += 1
        return Answer.bad(FailureKind.RATE_LIMITED, retry_after_s=self.retry_after_s)
