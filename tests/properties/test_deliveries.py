"""Messages arrive three times and in any order, and workers die at any write. Neither the model nor the tools notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest
import redis as redis_py
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.orchestration.steps.tool_step import UNKNOWN_EFFECT
from midwatch.orchestration.testing.in_process_redis import connect
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, ToolMessage
from tests.properties.delivery import SCRIPT, BadFleet
from tests.properties.two_servers import Stopped

CALLS = {
    "1.0": "look_up", "1.1": "charge", "1.2": "note", "1.3": "note", "2.0": "charge", "2.1": "look_up",
}  # fmt: skip
WRITES = 18
"""Upper bound of the writes in a run without faults. The tests check it."""


@pytest.fixture(scope="module")
def lenders(server, connect_redis, lend_prefix):
    """Return two functions that lend a client and a new prefix for a BadFleet: in this process, and on a server.

    On the server the keys of the prefix are checked for leaks afterwards.
    """
    shared = connect(Stopped())  # one client for all runs, because a new one compiles every script again

    @contextmanager
    def in_process() -> Iterator[tuple[redis_py.Redis, str]]:
        shared.flushall()
        yield shared, "inline"

    @contextmanager
    def in_redis():
        with lend_prefix() as prefix:
            yield connect_redis(server.url), prefix

    return in_process, in_redis


def check_effects(fleet: BadFleet) -> dict[str, str]:
    """Assert that every call has one result, and that no effect happened more often than allowed. Returns the results."""
    log = fleet.operations.messages("s1")
    answered = Counter((message.group, message.ordinal) for message in log if isinstance(message, ToolMessage))
    asked = [
        (message.group, n)
        for message in log
        if isinstance(message, AssistantMessage)
        for n in range(len(message.tool_calls))
    ]
    assert answered == Counter(asked), "every call has one result"
    results = {
        f"{message.group - 1}.{message.ordinal}": message.content for message in log if isinstance(message, ToolMessage)
    }
    assert set(results) == set(CALLS)
    keys = Counter(step for _, step, _ in fleet.world.effects)
    assert not keys or max(keys.values()) == 1, "a repeated try had another idempotency key"
    done = {step: times for (_, step, _), times in fleet.world.effects.items()}
    for step, name in CALLS.items():
        if name == "look_up":
            assert done[step] >= 1
        else:
            assert done.get(step, 0) <= 1, f"{name} ran twice"
            assert done.get(step, 0) == 1 or results[step] == UNKNOWN_EFFECT, (
                f"{name} did not run, and its result does not say so"
            )
    return results


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), nested=st.booleans())
def test_every_message_three_times_in_any_order_is_as_good_as_once(lenders, seed, nested):
    """Each turn makes one model call and each call has one effect, even if copies arrive while the step runs."""
    for lend in lenders:
        with lend() as lent:
            fleet = BadFleet(lent, copies=3, deaths=set(), seed=seed)
            if nested:
                fleet.world.meanwhile = fleet.deliver_meanwhile
            job = fleet.run()
            assert (job.status, job.output, job.turn) == (JobStatus.COMPLETED, SCRIPT[-1], 3)
            assert fleet.world.asked == {0: 1, 1: 1, 2: 1}
            assert set(fleet.world.effects.values()) == {1}
            assert UNKNOWN_EFFECT not in check_effects(fleet).values()


def test_a_worker_may_die_at_any_write(lenders):
    """The worker dies just before or just after a write. The job completes.

    No effect happens twice. If an effect is missing, the result says that the outcome is unknown.
    """
    for lend in lenders:
        with lend() as lent:
            calm = BadFleet(lent, deaths=set())
            assert calm.run().status is JobStatus.COMPLETED
        assert calm.mortal.writes < WRITES
        for death in product(range(calm.mortal.writes), (False, True)):
            with lend() as lent:
                fleet = BadFleet(lent, deaths={death})
                assert fleet.run().status is JobStatus.COMPLETED
                assert fleet.losses == 1
                assert max(fleet.world.asked.values()) <= 2
                check_effects(fleet)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    copies=st.integers(1, 3),
    deaths=st.sets(st.tuples(st.integers(0, WRITES * 2), st.booleans()), max_size=6),
    nested=st.booleans(),
)
def test_any_deaths_and_any_deliveries_together(lenders, seed, copies, deaths, nested):
    """Up to six workers die and each message arrives up to three times. The job completes, after a replay if necessary."""
    for lend in lenders:
        with lend() as lent:
            fleet = BadFleet(lent, copies=copies, deaths=deaths, seed=seed)
            if nested:
                fleet.world.meanwhile = fleet.deliver_meanwhile
            assert fleet.run().status is JobStatus.COMPLETED
            check_effects(fleet)
