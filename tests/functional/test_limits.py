"""Ceilings on a real fleet: what counts, that no call exceeds them, how the job ends, and what a replay grants."""

from __future__ import annotations

import json

import pytest

from midwatch import RunLimits
from midwatch.orchestration.drift.ladder import MAX_IDENTICAL
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import Stop
from midwatch.workers.simulator import Faults, Say
from tests.functional.fleet_agents import (
    CALL_S,
    CLAUDE,
    agent,
    brief,
    frugal,
    hurried,
    lowest,
    middle,
    one_search,
    only_child,
    plain,
    plain_verdict,
    terse,
    three_steps,
    trimming,
    two_calls,
    unbending,
    verdict,
)
from tests.functional.fleet_marks import marks
from tests.functional.fleet_stage import fleet_on_stage, note, told, use
from tests.functional.fleet_tools import search
from tests.patience import PATIENCE_S

WIRES = list(trimming)


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """A model worker and a tools worker."""
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("limits")) as stage:
        yield stage


def added(a, b):
    """Return one call of `add`."""
    return use(("add", {"a": a, "b": b}))


# Model turns


def test_no_model_call_beyond_max_steps_reaches_the_server(stage):
    """Three turns are three calls. The job becomes a dead letter that names the ceiling. A replay grants more turns."""
    text = stage.cast([added(1, 1), added(2, 2), added(3, 3), added(4, 4), "Ten."])
    handle = three_steps.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.steps) == (JobStatus.DEAD_LETTERED, 3)
    assert result.failure.kind == "budget_exceeded"
    assert result.failure.detail == "step_limit: 3 model turns taken (max_steps) and no final answer"
    assert len(stage.heard(text)) == 3
    assert [message.content for message in stage.results(handle)] == ["2", "4", "6"]
    assert stage.client.dead_letters.replay(handle.id)
    assert (handle.result(PATIENCE_S).output, handle.result(PATIENCE_S).steps) == ("Ten.", 5)
    assert len(stage.heard(text)) == 5


def test_the_last_allowed_turn_may_be_the_answer(stage):
    """With a ceiling of three, a third turn may complete the job."""
    result = three_steps.run(stage.cast([added(1, 1), added(2, 2), "Four."]), timeout_s=PATIENCE_S)
    assert (result.status, result.steps, result.output) == (JobStatus.COMPLETED, 3, "Four.")


# Time


def test_a_job_that_works_too_long_is_a_dead_letter_and_replays(stage):
    """After `session_timeout_s` no step starts. The replay goes on at the same step, in the same session, with more time."""
    # An unknown tool, so each turn costs only a round trip.
    text = stage.cast([use(("report", {})), use(("report", {})), "At last."])
    stage.model.use(Faults(slow=1.0, slow_ms=400))
    try:
        handle = brief.enqueue(text, session_id="brief")
        behind = plain.enqueue("next", session_id="brief")
        result = handle.result(PATIENCE_S)
    finally:
        stage.model.use(Faults())
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "timeout")
    assert (result.failure.limit, result.failure.detail) == (
        "session_timeout_s",
        "session_timeout: not finished after 0.5 s of its own work",
    )
    calls = len(stage.heard(text))
    assert calls <= 2, "a busy machine may be too late for the second turn, and the third is always too late"
    assert behind.status() is JobStatus.QUEUED
    assert stage.client.dead_letters.replay(handle.id, time_s=PATIENCE_S)
    assert handle.result(PATIENCE_S).output == "At last."
    assert len(stage.heard(text)) == 3, "no turn was repeated"
    assert behind.result(PATIENCE_S).output == "You said: next"


def test_a_model_call_that_hangs_is_ended_and_retried(stage):
    """A call is bounded by wall-clock time. The second attempt's answer counts."""
    text = stage.cast(["Here I am."])
    stage.model.use(Faults(at_turn={1: ("hang",)}, hang_s=PATIENCE_S))
    try:
        result = hurried.enqueue(text).result(PATIENCE_S)
    finally:
        stage.model.use(Faults())
    assert result.output == "Here I am."


def test_a_model_that_always_hangs_holds_the_job_until_max_wait_s(stage):
    """It is an outage, so no retries are used up. The letter names the limit and the model, and shows the calls that hung."""
    stage.model.use(Faults(hang=1.0, hang_s=PATIENCE_S, once=False))
    try:
        handle = hurried.enqueue(stage.cast(["unheard"]))
        result = handle.result(PATIENCE_S)
    finally:
        stage.model.use(Faults())
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "waited_too_long")
    assert result.failure.limit == "max_wait_s"
    assert CLAUDE in result.failure.detail
    letter = stage.client.dead_letters.show(handle.id)
    hung = [record for record in handle.events() if record.failure and record.failure.kind == "timeout"]
    assert [one.failure.kind for one in letter.tries] == ["timeout"] * len(hung) + ["waited_too_long"]
    assert hung
    assert all(record.ended_ms - record.started_ms >= 1_000 * CALL_S for record in hung)
    job = stage.job(handle)
    assert job.held_ms >= 1_000 * CALL_S


# Tool calls and tokens


def test_parallel_calls_can_not_exceed_max_tool_calls(stage):
    """Five calls come in one turn where two are left. Two run, three are answered without running, and the job goes on."""
    calls = [("add", {"a": n, "b": n}) for n in range(5)]
    text = stage.cast([use(*calls), use(("ping", {})), "Done."])
    handle = two_calls.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    first, second = stage.heard(text)[1:]
    refused = "Not run: this job may make 2 tool calls and has made them. Finish with what you have."
    assert told(first) == ["0", "2", refused, refused, refused]
    assert told(second)[-1] == refused
    assert stage.job(handle).tool_calls == 2


def test_a_ceiling_for_one_tool_does_not_limit_the_others(stage):
    """With `max_tool_calls={"search": 1}` the second search is refused, even in the same turn. `add` is not counted."""
    search = ("search", {"shelf": "north", "rows": [1]})
    text = stage.cast([use(search, search, ("add", {"a": 1, "b": 1})), use(search, ("add", {"a": 2, "b": 2})), "Done."])
    handle = one_search.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    first, second = stage.heard(text)[1:]
    refused = "Not run: search may be called 1 times and has been. Finish with what you have."
    assert told(first) == ["north [1]: two books", refused, "2"]
    assert told(second)[3:] == [refused, "4"]
    assert len(marks(f"search-{handle.id}")) == 1


def test_an_invalid_call_does_not_count_for_its_tools_ceiling(stage):
    """A call with invalid arguments did not run, so its correction may."""
    wrong, right = {"shelf": "west", "rows": [1]}, {"shelf": "south", "rows": [1]}
    text = stage.cast([use(("search", wrong)), use(("search", right)), "Done."])
    handle = one_search.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[-1])[-1] == "south [1]: two books"
    assert marks(f"search-{handle.id}") == [right]


def test_each_job_of_a_session_has_its_own_ceilings(stage):
    """Limits belong to a job and not to its session."""
    search = use(("search", {"shelf": "north", "rows": [1]}))
    for _ in range(2):
        handle = one_search.enqueue(stage.cast([search, "Done."]), session_id="two-jobs")
        assert handle.result(PATIENCE_S).output == "Done."
        assert len(marks(f"search-{handle.id}")) == 1


def test_a_ceiling_for_an_unknown_tool_is_refused():
    """A misspelt tool name must not remove the ceiling."""
    with pytest.raises(ConfigError, match=r"limits.max_tool_calls names 'serch'.*did you mean 'search'\?"):
        agent("typo", CLAUDE, search, limits=RunLimits(max_tool_calls={"serch": 1}))


def test_no_model_call_after_max_input_tokens_are_used(stage):
    """A call that might exceed the limit is not made. The failure has the used tokens and those that the call might use."""
    text = stage.cast([use(("add", {"a": n, "b": 0}), ("add", {"a": n, "b": 1})) for n in range(40)])
    handle = frugal.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "budget_exceeded")
    used = result.usage.input_tokens
    assert f"lineage_input_tokens: {used} tokens used, this call may use" in result.failure.detail
    assert result.failure.detail.endswith("and the root job's limit is 1500")
    assert len(stage.heard(text)) == sum(record.usage is not None for record in handle.events())
    assert 0 < used <= 1_500


def test_no_model_call_after_max_output_tokens_are_used(stage):
    """A call that might write more than the ceiling allows is not made."""
    text = stage.cast([Say("I think. " * 40, stop=Stop.PAUSE), "never"])
    result = terse.run(text, timeout_s=PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "budget_exceeded")
    assert result.failure.detail.startswith("max_output_tokens: ")
    assert len(stage.heard(text)) == 1


# Children


def test_no_more_than_max_children_are_started(stage):
    """One turn asks for two children where one is allowed. One child runs, and the other call is refused."""
    child, other = stage.cast(["First done."]), stage.cast(["never"])
    text = stage.cast([use(("scribe", {"input": child}), ("scribe", {"input": other})), "Done."])
    handle = only_child.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    first, second = told(stage.heard(text)[1])
    assert first == "First done."
    assert second == "Not run: this job may start 1 child jobs and has started them."
    assert stage.job(handle).children == 1
    assert stage.heard(other) == []


def test_no_job_is_nested_deeper_than_max_depth(stage):
    """With `max_depth=1` an agent may start its child as a root job. As a child itself, its call is refused."""
    leaf = stage.cast(["Leaf."])
    as_root = stage.cast([use(("scribe", {"input": leaf})), "Root done."])
    assert lowest.run(as_root, timeout_s=PATIENCE_S).output == "Root done."
    assert told(stage.heard(as_root)[1])[0] == "Leaf."
    as_child = stage.cast([use(("scribe", {"input": leaf})), "Child done."])
    root = stage.cast([use(("lowest", {"input": as_child})), "Done."])
    assert middle.run(root, timeout_s=PATIENCE_S).output == "Done."
    assert told(stage.heard(as_child)[1])[0] == "Not run: jobs may be nested 1 deep, and this one is."


# The window


@pytest.mark.parametrize("wire", WIRES)
def test_a_long_conversation_is_trimmed_by_whole_groups(stage, wire):
    """The window stays within the budget. Each call in it keeps its result, otherwise the model server would refuse it."""
    pairs = [use(("report", {"size_bytes": 1_000 + n}), ("add", {"a": n, "b": n})) for n in range(16)]
    text = stage.cast([*pairs, "Done."])
    handle = trimming[wire].enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert stage.model.stats().by_status.get(400, 0) == 0
    last = stage.heard(text)[-1]
    assert len(stage.heard(text)) == 17
    assert last.first_user == text
    assert 2 <= len(told(last)) < 32
    assert len(told(last)) % 2 == 0
    assert all(record.usage.input_tokens <= 2_400 for record in handle.events() if record.usage)


@pytest.mark.parametrize("wire", WIRES)
def test_the_question_being_answered_is_never_trimmed(stage, wire):
    """In a session with a history, a job of twice the budget keeps its own question, and old results are trimmed."""
    first = trimming[wire].enqueue(stage.cast(["At your service."]), session_id=f"long-{wire}")
    assert first.result(PATIENCE_S).status is JobStatus.COMPLETED
    text = stage.cast([*[use(("report", {"size_bytes": 1_100 + n})) for n in range(24)], "Done."])
    handle = trimming[wire].enqueue(text, session_id=f"long-{wire}")
    assert handle.result(PATIENCE_S).output == "Done."
    assert all(conversation.last_user.endswith(text) for conversation in stage.heard(text))
    assert len(told(stage.heard(text)[-1])) < 24
    assert all(record.usage.input_tokens <= 2_400 for record in handle.events() if record.usage)


def test_overflow_fail_ends_the_job_before_the_call(stage):
    """With `on_overflow="fail"` the job becomes a dead letter with the tokens and the budget. No oversized call is sent."""
    text = stage.cast([*[use(("report", {"size_bytes": 450}))] * 20, "never"])
    handle = unbending.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "context_overflow")
    assert result.failure.detail.endswith("tokens, of 2400 with 300 reserved for the answer")
    assert len(stage.heard(text)) == result.steps - 1
    assert all(record.usage.input_tokens <= 2_400 for record in handle.events() if record.usage)


# The answer


def test_an_answer_that_breaks_its_schema_is_repaired_after_one_note(stage):
    """A note of the runtime, not a user message, tells the model what is wrong. Then the model answers again."""
    good = json.dumps({"order": "W1", "refund": True})
    text = stage.cast(['{"order": "1", "refund": "perhaps"}', good])
    result = verdict.run(text, timeout_s=PATIENCE_S)
    assert (result.status, result.output, result.steps) == (JobStatus.COMPLETED, good, 2)
    said = note(stage.heard(text)[1])
    assert said.startswith("Your final answer does not satisfy the required schema.")
    assert all(word in said for word in ("/order", "/refund", "JSON only"))


@pytest.mark.parametrize("judge", [verdict, plain_verdict], ids=lambda judge: judge.name)
def test_an_answer_that_stays_wrong_makes_a_dead_letter(stage, judge):
    """After the maximum number of notes the job ends with `output_invalid`. The usage includes the wrong answers."""
    text = stage.cast(["It was W1."] * MAX_IDENTICAL)
    handle = judge.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "output_invalid")
    assert f"the same final answer {MAX_IDENTICAL} times in a row" in result.failure.detail
    assert len(stage.heard(text)) == MAX_IDENTICAL
    assert result.output_or_none is None
    assert result.usage.input_tokens == sum(record.usage.input_tokens for record in handle.events())
    assert "It is not valid JSON" in note(stage.heard(text)[1])


def test_a_json_schema_is_enforced_like_a_pydantic_model(stage):
    """`output_schema` is a dictionary here, in another vendor format."""
    good = '{"order": "W1", "cents": 250}'
    text = stage.cast(['{"order": "W1", "cents": -1}', good])
    assert plain_verdict.run(text, timeout_s=PATIENCE_S).output == good
    assert "/cents" in note(stage.heard(text)[1])


def test_an_empty_answer_is_retried_and_then_a_dead_letter(stage):
    """The model is asked again with a note. If it stays silent, the job becomes a dead letter."""
    text = stage.cast(["  ", "Here."])
    assert plain.run(text, timeout_s=PATIENCE_S).output == "Here."
    assert note(stage.heard(text)[1]) == "Your answer was empty. Answer the user now, in words."
    silent = stage.cast([""] * MAX_IDENTICAL)
    result = plain.run(silent, timeout_s=PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "output_invalid")
    assert result.failure.detail.startswith("empty: ")


def test_a_refusal_is_a_dead_letter_at_once(stage):
    """A model that refuses is not called again."""
    text = stage.cast([Say("I won't.", stop=Stop.REFUSAL)])
    result = plain.run(text, timeout_s=PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "refused")
    assert len(stage.heard(text)) == 1
    assert result.usage.input_tokens > 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_call_in_a_cut_off_reply_never_runs(stage, wire):
    """A call in a cut-off reply may lack half its arguments, so the model is asked to make it again."""
    cut = use(("add", {"a": 1, "b": 1}))
    cut = type(cut)(cut.calls, stop=Stop.LENGTH)
    text = stage.cast([cut, added(2, 2), "Four."])
    handle = trimming[wire].enqueue(text)
    assert handle.result(PATIENCE_S).output == "Four."
    first = told(stage.heard(text)[1])[0]
    assert first == "Not run: your reply stopped (length) before this call was complete. Make it again."
    assert stage.job(handle).tool_calls == 1


def test_a_cut_off_answer_is_requested_again_in_a_shorter_form(stage):
    """An incomplete answer does not complete the job."""
    text = stage.cast([Say("It is a long st", stop=Stop.LENGTH), "Short."])
    assert plain.run(text, timeout_s=PATIENCE_S).output == "Short."
    assert note(stage.heard(text)[1]) == "Your answer was cut off at the output limit. Give it again, shorter."
