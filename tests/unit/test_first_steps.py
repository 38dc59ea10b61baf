"""First steps in the queues: their lists, when a worker holds them back, and who may not ask for the lane of replays."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.job import Parent, StartEnvelope
from midwatch.schemas.limits import Limits
from midwatch.schemas.step import Priority, StepKind, StepRef
from midwatch.workers.celery_app.first_steps import AT_LEAST, REFILL_AFTER, FirstSteps
from midwatch.workers.celery_app.write_message import NUMBERS, queue_key, queue_keys


def test_first_steps_are_served_behind_others_of_their_priority():
    """Lists in the order in which a worker reads them: begun before first, and high before normal, low and replay."""
    lists = [queue_key("q", priority, first=first) for priority in Priority for first in (False, True)]
    assert lists == [
        "q",
        "q\x06\x161",
        "q\x06\x163",
        "q\x06\x164",
        "q\x06\x166",
        "q\x06\x167",
        "q\x06\x168",
        "q\x06\x169",
    ]
    assert queue_keys("q", StepKind.MODEL) == [each.replace("q", "q.model", 1) for each in lists]
    assert tuple(sorted(NUMBERS)) == NUMBERS


def test_only_the_model_queue_has_lists_of_first_steps():
    """A tool call or a compaction always belongs to a job that has begun."""
    assert len(queue_keys("q", StepKind.TOOL)) == len(queue_keys("q", StepKind.COMPACT)) == 4


def test_first_steps_are_held_back_while_tool_steps_pile_up():
    """Tool steps of a lower priority do not count: they are served later."""
    steps = FirstSteps()
    steps.hold((0, AT_LEAST + 1, 0, 0), slots=1, tools_are_served=True)
    assert steps.held == {4, 7, 9}
    steps.hold((0, AT_LEAST, 0, 0), slots=1, tools_are_served=True)
    assert steps.held == frozenset()
    steps.hold((0, 100, 0, 0), slots=50, tools_are_served=True)
    assert steps.held == frozenset(), "two for each slot"


def test_first_steps_are_not_held_back_without_tool_workers():
    """Tool steps do not become fewer then, and jobs without tools would wait for nothing."""
    steps = FirstSteps()
    steps.hold((500, 0, 0, 0), slots=1, tools_are_served=False)
    assert steps.held == frozenset()


def test_the_steward_refills_the_queue_after_every_few_first_steps():
    """Only while others wait in the backlog: otherwise there is nothing to move."""
    steps = FirstSteps()
    for _ in range(2 * REFILL_AFTER):
        steps.note_taken()
    assert not steps.taken.is_set()
    steps.others_wait = True
    steps.note_taken()
    assert steps.taken.is_set()
    steps.taken.clear()
    for _ in range(REFILL_AFTER - 1):
        steps.note_taken()
    assert not steps.taken.is_set()


def test_no_producer_may_ask_for_priority_replay():
    """The error says what to use instead."""
    with pytest.raises(ConfigError, match="use 'low' for work that can wait"):
        new_job("clerk", "hello", priority="replay")
    with pytest.raises(ConfigError, match=r"expected one of high, normal, low$"):
        new_job("clerk", "hello", priority="urgent")


def test_a_child_of_a_replay_is_a_replay():
    """It belongs to the lane of its parent."""
    ref = StepRef(job_id="p", session_id="s", step="1.0", priority=Priority.REPLAY)
    job = new_job("clerk", "hello", priority="replay", parent=Parent(ref=ref, root_id="p", depth=1))
    assert job.priority is Priority.REPLAY


def test_start_refuses_priority_replay():
    """A producer in another language learns which priorities there are."""
    given = {"job_id": "j", "agent": "a", "session_id": "s", "input": "x", "priority": "replay"}
    with pytest.raises(ValidationError, match="'high', 'normal' or 'low'"):
        StartEnvelope.model_validate(given)


def test_replays_have_no_weight():
    """They wait behind all other calls, so a weight would have no effect."""
    with pytest.raises(ValidationError, match="'high', 'normal' or 'low'"):
        Limits.model_validate({"priority_weights": {"replay": 1}})
