"""The coordinator under any order of events: tokens are conserved, no window exceeds a bucket, nothing stays reserved."""

from __future__ import annotations

import ast
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis as redis_py
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from midwatch.orchestration.admission import redis_gate, script_calls
from midwatch.orchestration.admission.legend import RESOURCES
from midwatch.orchestration.admission.redis_gate import GRACE_MS, HOLD_MS
from midwatch.orchestration.admission.replies import decode_settle
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.store.script_calls.script_call import ScriptCall
from midwatch.orchestration.store.scripts import Scripts
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, Priority, StepRef
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Crowd

FIGURES = {"requests": 600.0, "input_tokens": 60_000.0, "output_tokens": 6_000.0, "tokens": 66_000.0}
"""Limits a minute. The depths hold one second: 10, 1,000, 100, 1,100."""
LARGEST = {"requests": 1, "input_tokens": 3_000, "output_tokens": 300, "tokens": 3_300}
"""What one call may take: three times the depth."""
NAMES = count()
"""Numbers the downstreams, so that no example finds the state of another one."""
FAILURES = (FailureKind.OVERLOADED, FailureKind.TIMEOUT, FailureKind.RATE_LIMITED, FailureKind.FORMAT_ERROR)


Place = tuple[redis_py.Redis, str]


@pytest.fixture(scope="module")
def place(
    server: EmbeddedServer,
    connect_redis: Callable[[str], redis_py.Redis],
    lend_prefix: Callable[..., AbstractContextManager[str]],
) -> Iterator[Place]:
    """A client and a prefix for all examples. Each example makes a new downstream; the clock's key is shared."""
    with lend_prefix(CLOCK_KEY) as prefix:
        yield connect_redis(server.url), prefix


class GateMachine(RuleBasedStateMachine):
    """Calls of three lineages at one downstream. Each event accounts for every token of every bucket."""

    client: ClassVar[redis_py.Redis]
    prefix: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.name = f"m{next(NAMES)}"
        at = limits(
            rpm=FIGURES["requests"], itpm=FIGURES["input_tokens"], otpm=FIGURES["output_tokens"],
            tpm=FIGURES["tokens"], reserve_output="expected", headroom=0.1, failures_in_a_row=10_000, min_calls=10_000,
        )  # fmt: skip
        self.bench = GateBench(self.client, self.prefix, {self.name: at})
        self.bench.warm(self.name)
        self.waiting: dict[StepRef, Call] = {}
        self.woken: list[StepRef] = []
        self.later: list[Call] = []
        self.live: dict[StepRef, Call] = {}
        self.taken: list[tuple[int, dict[str, float]]] = []
        """The time of each admission and what it took. A settlement is an entry with a negative number."""
        self.held: dict[StepRef, tuple[float, dict[str, float]]] = {}
        """For each live call: when its reservation ends, and what it took."""
        self.ghosts: list[Call] = []
        """Claims of workers that are assumed dead, while the step's next claim is in progress."""
        self.jobs = count()

    # --- events

    @rule(
        tokens=st.integers(0, 3_000), output=st.integers(0, 300), root=st.integers(0, 2),
        priority=st.sampled_from(Priority), tenant=st.sampled_from([None, "a", "b"]),
    )  # fmt: skip
    def call(self, tokens: int, output: int, root: int, priority: Priority, tenant: str | None) -> None:
        """A new step asks for admission."""
        job = f"{self.name}-{next(self.jobs)}"
        budget: dict[str, Any] = {"lineage_input_tokens": 20_000, "lineage_output_tokens": 0} if root == 0 else {}
        self.ask(self.bench.call(
            job, tokens, output, to=self.name, root=f"{self.name}-root-{root}", priority=priority, tenant=tenant,
            lasts_s=30, **budget,
        ))  # fmt: skip

    @precondition(lambda self: self.woken)
    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        """A woken step reaches a worker, immediately or after others."""
        ref = self.woken.pop(data.draw(st.integers(0, len(self.woken) - 1)))
        self.ask(self.bench.claim_again(self.waiting.pop(ref)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def impatience(self, data: st.DataObject) -> None:
        """A step that was not woken asks by itself."""
        ref = data.draw(st.sampled_from(list(self.waiting)))
        self.woken = [other for other in self.woken if other != ref]
        self.ask(self.bench.claim_again(self.waiting.pop(ref)))

    @precondition(lambda self: self.later)
    @rule()
    def retry(self) -> None:
        """A step asks again after a failure, or when its lineage has no free retry left."""
        self.ask(self.later.pop(0))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tokens=st.integers(1, 4_000), output=st.integers(1, 400), known=st.booleans())
    def success(self, data: st.DataObject, tokens: int, output: int, known: bool) -> None:
        """A call is answered. It used less or more than it reserved, or its usage is not known."""
        call = self.live.pop(data.draw(st.sampled_from(list(self.live))))
        self.settle(call, Report(usage=Usage(input_tokens=tokens, output_tokens=output) if known else None))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), kind=st.sampled_from(FAILURES), sent=st.booleans())
    def failure(self, data: st.DataObject, kind: FailureKind, sent: bool) -> None:
        """A call fails, or was never made."""
        call = self.live.pop(data.draw(st.sampled_from(list(self.live))))
        self.settle(call, Report(failure=Failure(kind=kind, detail=""), sent=sent))
        self.later.append(self.bench.claim_again(call, failed=kind is not FailureKind.RATE_LIMITED))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), found_out=st.booleans())
    def death(self, data: st.DataObject, found_out: bool) -> None:
        """A worker dies during a call. Its step is claimed again, or never."""
        call = self.live.pop(data.draw(st.sampled_from(list(self.live))))
        if found_out:
            self.later.append(self.bench.claim_again(call, lost=True))
            self.ghosts.append(call)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def lost_reply(self, data: st.DataObject) -> None:
        """The same request is sent twice: the answer is the same, and nothing changes."""
        call = data.draw(st.sampled_from(list(self.live.values())))
        if self.is_over(call):
            return  # later it would be another call
        before = self.bench.status(self.name)
        assert self.bench.ask(call) == "admitted"
        assert self.bench.status(self.name).model_dump(exclude={"live", "lost"}) == before.model_dump(
            exclude={"live", "lost"}  # other reservations may have ended meanwhile
        )

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data(), kind=st.sampled_from(FAILURES))
    def late_report(self, data: st.DataObject, kind: FailureKind) -> None:
        """A worker that was assumed dead reports while another one has its step. The report does not count."""
        ghost = self.ghosts.pop(data.draw(st.integers(0, len(self.ghosts) - 1)))
        newer = self.live.get(ghost.claim.ref)
        if newer is None or self.is_over(newer):
            return
        before = self.bench.status(self.name)
        self.bench.fail(ghost, kind)
        after = self.bench.status(self.name)
        assert (after.levels, after.failed, after.throttled) == (before.levels, before.failed, before.throttled)

    @rule(seconds=st.one_of(st.floats(0.01, 2), st.floats(2, 100)))
    def time(self, seconds: float) -> None:
        """Time passes, and a steward looks."""
        self.bench.time.pass_s(seconds)
        refs, _ = self.bench.board.release()
        self.woken += [ref for ref in refs if ref in self.waiting]

    # --- invariants

    def ask(self, call: Call) -> None:
        before = self.bench.status(self.name).levels
        answer = self.bench.gate.admit(call)
        if answer is None:
            self.live[call.claim.ref] = call
        elif isinstance(answer, Defer):
            (self.waiting.__setitem__(call.claim.ref, call) if answer.wakes else self.later.append(call))
        self.note(before, call, answer)

    def note(self, before: dict[str, float], call: Call, answer: object) -> None:
        """Account for what the decision took: an admitted call took all it needs, any other call took nothing."""
        took = {name: level - self.bench.status(self.name).levels[name] for name, level in before.items()}
        if answer is not None:
            assert took == dict.fromkeys(FIGURES, 0)
            return
        need_in, need_out = took["input_tokens"], took["output_tokens"]
        assert took["requests"] == pytest.approx(1)
        assert need_in == pytest.approx(call.input_tokens)
        assert -1e-6 <= need_out <= call.output_tokens + 1e-6
        assert took["tokens"] == pytest.approx(need_in + need_out)
        self.taken.append((self.bench.time.us, took))
        self.held[call.claim.ref] = (self.bench.time.us + call.lasts_ms * 1e3 + GRACE_MS * 1e3, took)

    def settle(self, call: Call, report: Report) -> None:
        """The refund is what was reserved less what was used. It never exceeds the bucket, and a debt never exceeds a minute."""
        status, over = self.bench.status(self.name), self.is_over(call)
        before = status.levels
        self.bench.gate.settle(call, report)
        after = self.bench.status(self.name).levels
        if over or report.failure is None:
            expected = before if over else self.expected(before, call, report.usage)
            emptied = {name: min(0.0, level) for name, level in expected.items()}
            # The answer that ends trouble empties the buckets if there were trials: what they saved up would be a burst.
            fits = [expected, emptied] if status.in_trouble and not over else [expected]
            assert any(after == pytest.approx(levels, abs=1e-3) for levels in fits), (after, fits)
        assert all(-FIGURES[name] <= level <= FIGURES[name] / 60 for name, level in after.items())
        self.taken.append((self.bench.time.us, {name: min(0, before[name] - level) for name, level in after.items()}))
        settled = self.bench.status(self.name)
        self.bench.gate.settle(call, report)
        assert self.bench.status(self.name) == settled, "a second report changes nothing"

    def expected(self, before: dict[str, float], call: Call, usage: Usage | None) -> dict[str, float]:
        """Return the levels after an answered call: less what it used. If its usage is unknown, less what it reserved."""
        took = self.held[call.claim.ref][1]
        used = took if usage is None else {
            "requests": 1, "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
            "tokens": usage.input_tokens + usage.output_tokens,
        }  # fmt: skip
        return {
            name: max(-minute, min(minute / 60, before[name] + took[name] - used[name]))
            for name, minute in FIGURES.items()
        }

    def is_over(self, call: Call) -> bool:
        """Return whether the reservation has ended meanwhile."""
        return self.bench.time.us >= self.held[call.claim.ref][0]

    def teardown(self) -> None:
        self.check_windows()
        for call in list(self.live.values())[::2]:
            self.bench.ok(call, 1, 1)
        self.bench.time.pass_s(200)
        for _ in range(50):
            self.bench.board.release()
            self.bench.time.pass_s(40)
        status = self.bench.status(self.name)
        assert (status.live, status.woken, status.waiters) == (0, 0, 0), "every reservation was returned"
        for root in range(3):
            lineage = self.bench.lineage(f"{self.name}-root-{root}")
            assert (lineage.get("ri", 0), lineage.get("ro", 0)) == (0, 0)
            assert lineage.get("ui", 0) >= 0
        self.bench.wipe(self.name)

    def check_windows(self) -> None:
        """Assert a bound for every window of time: the bucket's size, plus what the rate adds in it, plus one oversized call."""
        for name, minute in FIGURES.items():
            depth, slack = minute / 60, minute / 60_000 * HOLD_MS + 1e-3
            most = depth + max(0, LARGEST[name] - depth) + slack
            for start, (since_us, _) in enumerate(self.taken):
                total = 0.0
                for until_us, took in self.taken[start:]:
                    total += took[name]
                    assert total <= most + minute / 60e6 * (until_us - since_us), (name, since_us, until_us, total)


def test_no_order_of_events_takes_more_than_the_buckets_hold(place: Place) -> None:
    """Calls, waits, wrong settlements, dead workers, lost replies and pauses: tokens are conserved, and no reservation stays."""

    class Machine(GateMachine):
        pass

    Machine.client, Machine.prefix = place
    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=40, deadline=None))


# --- lineages

RETRIED = (FailureKind.OVERLOADED, FailureKind.TIMEOUT, FailureKind.RATE_LIMITED)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    children=st.integers(0, 6),
    fails=st.sampled_from([0.3, 0.9, 1.0]),
    kinds=st.sets(st.sampled_from(RETRIED), min_size=1),
    deaths=st.sampled_from([0.0, 0.2]),
)
def test_any_lineage_makes_at_most_2n_and_10_calls(
    place: Place, seed: int, children: int, fails: float, kinds: set[FailureKind], deaths: float
) -> None:
    """Any calls and workers may fail, under a policy that never gives up. Each call ends in one way.

    Retries after failures that are not a call's own fault come on top. They end when the downstream answers again.
    """
    name = f"lineages-{next(NAMES)}"
    gate = GateBench(*place, {name: limits(rpm=6_000)})
    gate.warm(name)
    rng, among = random.Random(seed), sorted(kinds)

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(rng.choice(among)) if at_s < 1_800 and rng.random() < fails else Answer.good()

    crowd = Crowd(gate, provider, dies=lambda: rng.random() < deaths)
    roots = [f"{name}-{n}" for n in range(2)]
    for root in roots:
        crowd.submit(gate.call(root, 10, 10, to=name))
        crowd.submit(*(gate.call(f"{root}-{n}", 10, 10, root=root, to=name) for n in range(children)))
    crowd.run(7_200)
    n = 1 + children
    make = Counter(call.claim.job.root_id for _, call in crowd.sent)
    for root in roots:
        assert make[root] - gate.lineage(root).get("uu", 0) <= 2 * n + 10
    assert len(crowd.done) + len(crowd.ended) == 2 * n
    assert gate.status(name).live == 0
    for root in roots:
        assert gate.lineage(root)["n"] == n
    gate.wipe(name)


# --- invalid arguments and keys


NUMBERS = [
    *(("admit", name) for name in ("input_tokens", "cached_tokens", "output_tokens", "hold_ms", "lasts_ms")),
    *(("admit", name) for name in ("lineage_kept_ms", "lineage_input_tokens", "lineage_output_tokens")),
    *(("settle", name) for name in ("input_tokens", "cached_tokens", "output_tokens")),
    *(("settle", name) for name in ("retry_after_ms", "latency_ms", "block_ms")),
    *(("settle", f"headers.{name}") for name in RESOURCES),
]
"""Arguments that must be numbers, and figures of the provider's headers."""
JUNK = ("nan", "-nan", "inf", "-inf", "-1", "1e400", "9" * 40, "x", "0x", " ", "1,5", b"\xff\x00")


class Downstream:
    """A downstream with a live call, whose lineage has a budget, and with a waiting call."""

    def __init__(self, client: redis_py.Redis, prefix: str, name: str) -> None:
        self.name = name
        self.bench = bench = GateBench(client, prefix, {name: limits(rpm=60, itpm=6_000, otpm=6_000)})
        bench.warm(name)
        self.scripts = Scripts(client, bench.library)
        self.keys = [*bench.keys.downstream(name), bench.keys.lineage(f"{name}-live")]
        live = bench.call(f"{name}-live", 5, 5, to=name, lineage_input_tokens=1_000, lineage_output_tokens=1_000)
        bench.admit_all(live)
        assert bench.ask(bench.call(f"{name}-waits", 5, 5, to=name)) == "rate"
        new = bench.call(f"{name}-new", 5, 5, root=f"{name}-live", attempt=1, to=name)
        report = Report(usage=Usage(input_tokens=3, output_tokens=3), headers={"x-ratelimit-remaining-requests": "5"})
        self.arguments: dict[str, list[Any]] = {
            "admit": list(redis_gate.admission_of(new, self.keys).args),
            "settle": list(redis_gate.settlement_of(live, report, self.keys).args),
            "release": [100, 30_000],
        }

    def with_junk(self, script: str, name: str, junk: str | bytes) -> list[Any]:
        """Return the script's arguments, with junk in place of one of them, or of one figure of the headers."""
        names = list(signature(getattr(script_calls, script)).parameters)[1:]
        arguments = list(self.arguments[script])
        if name.startswith("headers."):
            text = junk if isinstance(junk, str) else junk.decode("latin-1")
            part = "limits" if len(text) % 2 else "remaining"
            figures = {"remaining": {}, "limits": {}, part: {RESOURCES[name.removeprefix("headers.")]: text}}
            arguments[names.index("headers")] = json.dumps(figures)
        else:
            arguments[names.index(name)] = junk
        return arguments

    def dumps(self) -> list[object]:
        """Return everything that is stored of this downstream."""
        return [self.bench.client.dump(key) for key in self.keys]

    def fails(self, script: str, arguments: list[Any]) -> None:
        """Run the script, and assert that it fails and changes nothing."""
        before = self.dumps()
        with pytest.raises(redis_py.ResponseError):
            self.scripts.run(ScriptCall(script, self.keys, arguments, bool))
        assert self.dumps() == before


@settings(max_examples=60)
@given(where=st.sampled_from(NUMBERS), junk=st.sampled_from(JUNK))
def test_an_argument_that_is_no_number_decides_nothing(place: Place, where: tuple[str, str], junk: str | bytes) -> None:
    """A script that failed half-way would store half a decision. NaN would make a bucket that always admits."""
    script, name = where
    downstream = Downstream(*place, f"junk-{next(NAMES)}")
    downstream.fails(script, downstream.with_junk(script, name, junk))
    downstream.bench.wipe(downstream.name)


LINEAGE = -1
"""The lineage is the last key of these scripts."""


@pytest.mark.parametrize(
    ("script", "key"),
    [*((script, key) for script in ("admit", "settle") for key in (0, 1, LINEAGE)), ("release", 0), ("release", 1)],
)
def test_a_key_of_another_type_decides_nothing(place: Place, script: str, key: int) -> None:
    """When another program's key is in the place of ours, the script fails and changes nothing."""
    downstream = Downstream(*place, f"wrong-{script}-{key}")
    if script == "release":
        downstream.bench.time.pass_s(2)
        downstream.keys.pop()  # a steward's script has no lineage
    client, lost = downstream.bench.client, downstream.keys[key]
    client.delete(lost)
    client.lpush(lost, "not ours")
    downstream.fails(script, downstream.arguments[script])
    client.delete(lost)
    downstream.bench.wipe(downstream.name)


def test_failed_calls_change_nothing_for_later_ones(place: Place) -> None:
    """After all invalid calls, the downstream still decides as before."""
    downstream = Downstream(*place, SHOP)
    for script, name in NUMBERS:
        downstream.fails(script, downstream.with_junk(script, name, "nan"))
    downstream.scripts.run(ScriptCall("settle", downstream.keys, downstream.arguments["settle"], decode_settle))
    downstream.bench.time.pass_s(2)
    assert len(downstream.bench.board.release()[0]) == 1
    status = downstream.bench.status()
    assert (status.live, status.ok, status.admitted) == (0, 1, 1)


# --- clocks


def test_no_clock_but_the_servers_decides() -> None:
    """The gate and its board import no clock, so their machine's clock can't change a decision."""
    folder = Path(redis_gate.__file__).parent
    for module in folder.rglob("*.py"):
        named = {
            name
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        }
        assert not named & {"time", "datetime"}, module.name
