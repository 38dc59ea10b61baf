"""A lineage of five jobs in any order of turns, deaths, repetitions and ends: no limit is exceeded, and nothing leaks."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.orchestration.protocol.lineage import CallReservation, Chain, PlannedCall
from midwatch.schemas.lineage import Bounds, Member
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits

PARENTS = {"root": None, "a": "root", "b": "root", "leaf": "a", "late": "root"}
EVENTS = ("begin", "reserve", "commit", "die", "end")
CALL = PlannedCall("work")


@dataclass
class Worker:
    """What is true of one job: the tests' own count."""

    turn: int = 0
    """The turn under way, or the last one."""
    is_working: bool = False
    fence: int = 0
    committed: int = 0
    granted: int = 0
    """Calls of the turn under way that were granted."""
    admitted: int = 0
    """Turns that were admitted."""
    has_ended: bool = False


class Lineage:
    """The jobs, their limits, and the coordinator."""

    def __init__(self, gate: GateBench, name: str, most: dict[str, tuple[int | None, int]]) -> None:
        self.gate, self.name = gate, name
        self.bounds = {job: Bounds(max_tool_calls=calls, max_steps=steps) for job, (calls, steps) in most.items()}
        self.workers = {job: Worker() for job in PARENTS}
        self.fence = 0

    def chain(self, job: str) -> Chain:
        """The job and its ancestors."""
        found = []
        at: str | None = job
        while at:
            found.append(Member(job_id=f"{self.name}-{at}", bounds=self.bounds[at]))
            at = PARENTS[at]
        return tuple(found)

    def call(self, job: str, turn: int, fence: int, committed: int) -> Call:
        """The model call of a turn, under a claim."""
        call = self.gate.call(
            f"{self.name}-{job}", step=str(turn), root=f"{self.name}-root", chain=self.chain(job),
            lineage_input_tokens=0, lineage_output_tokens=0,
        )  # fmt: skip
        record = call.claim.job.model_copy(update={"tool_calls": committed})
        return replace(call, claim=replace(call.claim, fence=fence, job=record))

    def reserve(self, job: str, calls: int, fence: int) -> int | None:
        """Reserve calls for the turn under way. Returns how many were granted; None if the claim is lost."""
        worker = self.workers[job]
        call = self.call(job, worker.turn, fence, worker.committed)
        try:
            answers = self.gate.gate.reserve_calls(CallReservation(call.claim, call.chain, [CALL] * calls))
        except LeaseLost:
            return None
        return sum(answer is None for answer in answers)

    def play(self, job: str, event: str, calls: int) -> None:
        """Let one thing happen to a job, if it can."""
        worker = self.workers[job]
        if worker.has_ended:
            return
        if event == "begin" and not worker.is_working:
            self.begin(job, worker.turn + 1)
        elif not worker.is_working:
            return
        elif event == "reserve":
            worker.granted = self.reserve(job, calls, worker.fence) or 0
        elif event == "commit":
            worker.committed, worker.granted, worker.is_working = worker.committed + worker.granted, 0, False
        elif event == "die":
            late = worker.fence
            self.begin(job, worker.turn)
            assert worker.has_ended or self.reserve(job, calls, late) is None, "a lost claim reserves nothing"
        elif event == "end":
            self.end(job)

    def begin(self, job: str, turn: int) -> None:
        """Ask for the admission of a turn. The job ends if it is denied."""
        worker = self.workers[job]
        self.fence += 1
        worker.turn, worker.fence, worker.granted = turn, self.fence, 0
        worker.is_working = True
        if self.gate.ask(self.call(job, turn, self.fence, worker.committed)) == "admitted":
            worker.admitted = turn
        else:
            self.end(job)

    def end(self, job: str) -> None:
        """End the job at its model turn. What the turn had reserved is given back."""
        worker = self.workers[job]
        self.reserve(job, 0, worker.fence)
        worker.granted, worker.is_working, worker.has_ended = 0, False, True

    def check(self) -> None:
        """No job's limits are exceeded by the job and its descendants."""
        for top, bounds in self.bounds.items():
            below = [worker for job, worker in self.workers.items() if f"{self.name}-{top}" in self.ids(job)]
            calls = sum(worker.committed + worker.granted for worker in below)
            assert bounds.max_tool_calls is None or calls <= bounds.max_tool_calls  # type: ignore[operator]
            assert sum(worker.admitted for worker in below) <= (bounds.max_steps or 0)

    def ids(self, job: str) -> list[str]:
        return [member.job_id for member in self.chain(job)]


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


def draw_limits(rng: random.Random) -> dict[str, tuple[int | None, int]]:
    """Limits of tool calls and of steps, so low that most histories reach them."""
    return {job: (rng.choice([None, *range(9)]), rng.randint(1, 9)) for job in PARENTS}


def draw_history(rng: random.Random) -> list[tuple[str, str, int]]:
    """What happens to which job, and how many calls it wants. Lists of Hypothesis are too short and too uniform for this."""
    weights = [6, 4, 6, 2, 0.3]
    return [(rng.choice(list(PARENTS)), rng.choices(EVENTS, weights)[0], rng.randint(1, 3)) for _ in range(60)]


def test_no_limit_is_exceeded_and_no_reservation_leaks(redis: redis_py.Redis, prefix: str) -> None:
    """After each event every limit holds. In the end exactly what was committed is used, by a job that asks for all the rest."""
    gate = GateBench(redis, prefix, {SHOP: limits()})
    gate.warm()
    numbers = iter(range(1_000_000))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**32))
    def play(seed: int) -> None:
        rng = random.Random(seed)
        most = draw_limits(rng)
        lineage = Lineage(gate, f"n{next(numbers)}", most)
        for job, event, calls in draw_history(rng):
            lineage.play(job, event, calls)
            lineage.check()
        for job, worker in lineage.workers.items():
            if worker.is_working:
                lineage.end(job)
        wanted = most["root"][0]
        if wanted is None:
            return
        lineage.bounds["late"] = Bounds(max_steps=100)
        asking = lineage.workers["late"]
        asking.turn, asking.fence = asking.turn + 1, lineage.fence + 1
        used = sum(worker.committed for worker in lineage.workers.values())
        assert lineage.reserve("late", wanted + 1, asking.fence) == wanted - used

    play()
