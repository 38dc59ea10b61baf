"""A provider is away for longer than a job may run: all jobs wait, few calls reach it, and all complete afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from midwatch import JobHandle
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.simulator import Conversation, ModelServer, Say, Use
from midwatch.workers.simulator.faults.faults import Fault, Faults
from tests.faults.crew import Crew
from tests.faults.provider_outage_agents import watchman
from tests.patience import PATIENCE_S, wait_for

MODEL = str(watchman.model)
LIMIT_PER_S = 20
CALL_TIMEOUT_S = 3.0
SESSIONS = count()
LIMITS = {"rpm": LIMIT_PER_S * 60}
SLOW = [pytest.mark.slow, pytest.mark.timeout(1_800)]

KINDS = {
    "429": {"rate_limited": 1.0, "retry_after_s": 0},
    "429 with Retry-After": {"rate_limited": 1.0, "retry_after_s": 3},
    "529": {"overloaded": 1.0},
    "500": {"provider_error": 1.0},
    "reset": {"reset": 1.0},
    "hang": {"hang": 1.0},
    "403 page": {"blocked_page": 1.0},
    "error in a 200": {"error_in_200": 1.0},
    "refused": None,
}
"""The faults of every request during the outage. None: the server does not listen."""


def rules(conversation: Conversation) -> Say | Use:
    """Call the one tool, then end."""
    arguments = {"log": {"entry": "all quiet"}, "search_tickets": {"query": "refund"}}
    [offer] = [tool.name for tool in conversation.tools if tool.name in arguments]
    return Say("Done.") if conversation.results(offer) else Use([(offer, arguments[offer])])


@dataclass
class Night:
    """A provider, and a fleet that calls it."""

    crew: Crew
    model: ModelServer
    earlier_ms: list[int]
    """When calls arrived, before the server was last started."""

    def enqueue(self, jobs: int, agent: str = "watchman") -> list[JobHandle]:
        """Enqueue new jobs."""
        return [self.crew.enqueue(f"night {next(SESSIONS)}", agent=agent) for _ in range(jobs)]

    def begin(self, kind: str) -> None:
        """Begin an outage."""
        faults = KINDS[kind]
        if faults is None:
            self.model.stop()
            self.earlier_ms += [entry.t_ms for entry in self.model.journal()]
        else:
            self.model.use(Faults.model_validate({**faults, "once": False}))

    def end(self, kind: str) -> None:
        """End the outage."""
        if KINDS[kind] is None:
            self.model = ModelServer(rules, latency_ms=(20, 80), port=self.model.port).start()
        else:
            self.model.use(Faults())

    def arrivals_s(self) -> list[float]:
        """When calls arrived at the provider, in seconds since 1970, in order."""
        return sorted(ms / 1_000 for ms in [*self.earlier_ms, *(entry.t_ms for entry in self.model.journal())])


def failed_attempts(night: Night, *jobs: JobHandle) -> list[TraceRecord]:
    """The records of attempts that failed."""
    records = [record for job in jobs for record in night.crew.client.jobs.trace(job.id)]
    return [record for record in records if record.failure is not None]


def most_in_a_second(times_s: list[float]) -> int:
    """The most calls in any second, wherever it begins."""
    return max((sum(at_s <= other < at_s + 1 for other in times_s) for at_s in times_s), default=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of this module."""
    with EmbeddedServer(tmp_path_factory.mktemp("nights") / "server") as server:
        yield server


def open_night(stack: ExitStack, folder: Path, server: EmbeddedServer, name: str, **limits: float) -> Night:
    """Start a provider, and two workers that call it."""
    model = stack.enter_context(ModelServer(rules, latency_ms=(20, 80)))
    crew = stack.enter_context(
        Crew(
            folder / name, server, name, **model.environment(),
            MIDWATCH_AGENTS="tests.faults.provider_outage_agents",
            MIDWATCH_LIMITS=json.dumps({MODEL: {**LIMITS, **limits}}),
        )
    )  # fmt: skip
    for worker in ("first", "second"):
        crew.worker(worker, "threads", 8)
    night = Night(crew, model, [])
    stack.callback(lambda: night.model.stop())
    return night


@pytest.fixture(scope="module")
def night(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """One provider and one fleet for all outages, one after the other."""
    with ExitStack() as stack:
        yield open_night(stack, tmp_path_factory.mktemp("night"), server, "night")


def live_through(night: Night, kind: str, jobs: int, outage_s: float) -> tuple[list[float], list[float]]:
    """Let jobs run through an outage. Return when calls were made during it (once it was known), and after it."""
    first = night.enqueue(1)[0]
    first.result(PATIENCE_S)  # the workers have loaded the SDK
    before = night.model.stats().requests
    handles = night.enqueue(jobs)
    wait_for(lambda: night.model.stats().requests > before, "the first call")
    night.begin(kind)
    began_s = time.time()
    time.sleep(outage_s)
    ended_s = time.time()
    night.end(kind)
    results = [handle.result(PATIENCE_S) for handle in handles]
    assert [result.status for result in results] == [JobStatus.COMPLETED] * jobs
    known_s = began_s + (CALL_TIMEOUT_S if kind == "hang" else 0) + 2
    if KINDS[kind] is None:  # a refused connection does not reach the provider
        calls_s = [record.started_ms / 1_000 for record in failed_attempts(night, *handles)]
    else:
        calls_s = night.arrivals_s()
    during = [at_s for at_s in calls_s if known_s <= at_s < ended_s]
    return during, [at_s - ended_s for at_s in night.arrivals_s() if at_s >= ended_s]


QUICK = {"429": 40, "529": 1, "reset": 3, "hang": 40}
"""How many jobs live through an outage in the quick tests. The slow ones have every kind of outage and number of jobs, and the
contract tests have them on test time."""


OUTAGES = [
    *(
        pytest.param(
            kind, jobs, 12.0 if QUICK.get(kind) == jobs else 20.0, marks=[] if QUICK.get(kind) == jobs else SLOW
        )
        for kind in KINDS
        for jobs in (1, 3, 40)
    ),
    *(pytest.param(kind, 500, 120.0, marks=SLOW) for kind in KINDS),
]


@pytest.mark.parametrize(("kind", "jobs", "outage_s"), OUTAGES)
def test_an_outage_ends_no_job_and_makes_no_storm(night: Night, kind: str, jobs: int, outage_s: float) -> None:
    """It lasts longer than the jobs may run. At most two calls arrive in any second, and the recovery keeps the limit."""
    during, after = live_through(night, kind, jobs, outage_s)
    assert most_in_a_second(during) <= 2
    assert most_in_a_second(after) <= 1.15 * LIMIT_PER_S + 1
    assert after


@pytest.mark.slow
def test_without_the_rule_the_provider_gets_more_calls(server: EmbeddedServer, tmp_path: Path) -> None:
    """The negative control: no gap between calls in trouble, and a breaker that never opens."""
    with ExitStack() as stack:
        off = {"trial_gap_s": 0, "failures_in_a_row": 1_000_000, "min_calls": 1_000_000}
        night = open_night(stack, tmp_path, server, "off", **off)
        during, _ = live_through(night, "500", 40, 12.0)
        assert most_in_a_second(during) > 2


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_five_hundred_letters_of_an_outage_are_replayed_in_bulk(night: Night) -> None:
    """Every job waits longer than `max_wait_s` and becomes a letter. When the provider is back, all are replayed and complete."""
    night.enqueue(1)[0].result(PATIENCE_S)
    letters = night.crew.client.dead_letters
    night.begin("529")
    handles = night.enqueue(500, agent="visitor")
    ended = [handle.result(PATIENCE_S) for handle in handles]
    assert {(result.status, result.failure and result.failure.kind) for result in ended} == {
        (JobStatus.DEAD_LETTERED, FailureKind.WAITED_TOO_LONG)
    }
    night.end("529")
    replay = letters.replay_all(agent="visitor", wait_s=3_600)
    for _ in replay.run():
        pass
    assert sum(group.replayed for group in replay.groups) == 500
    assert [handle.result(PATIENCE_S).status for handle in handles] == [JobStatus.COMPLETED] * 500
    assert not letters.list(agent="visitor")


# --- the example


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.OVERLOADED, Fault.PROVIDER_ERROR, Fault.RESET])
def test_the_example_agent_lives_through_a_transient_failure(night: Night, fault: Fault) -> None:
    """Its `retry_on` names only `tool_error` and `format_error`. The failed call is made again."""
    night.model.use(Faults(at_turn={1: (fault,)}, retry_after_s=1))
    job = night.crew.enqueue(f"ticket {next(SESSIONS)}", agent="support-triage-v2")
    assert job.result(PATIENCE_S).status is JobStatus.COMPLETED
    assert len(failed_attempts(night, job)) == 1


@pytest.mark.parametrize("fault", [Fault.AUTH_ERROR, Fault.SPEND_CAP, Fault.BAD_REQUEST])
def test_the_example_agent_ends_at_a_permanent_failure(night: Night, fault: Fault) -> None:
    """A 401, a 400 for a spend cap (which blocks the downstream) and a plain 400 are dead letters after one call."""
    night.model.use(Faults(at_turn={1: (fault,)}))
    job = night.crew.enqueue(f"ticket {next(SESSIONS)}", agent="support-triage-v2")
    assert job.result(PATIENCE_S).status is JobStatus.DEAD_LETTERED
    night.crew.client.gate.unblock(MODEL)
    assert len(failed_attempts(night, job)) == 1
