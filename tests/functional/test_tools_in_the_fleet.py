"""Tools on a real fleet: how each kind runs, what the model gets back, and which calls never run."""

from __future__ import annotations

import json
import re

import pytest

from midwatch.orchestration.errors import RunInsideTool
from midwatch.schemas.job import JobStatus
from midwatch.workers.simulator import Faults, Say, Use
from tests.functional.fleet_agents import WIRES, plain, strict, telling, unhurried, workshops
from tests.functional.fleet_marks import marks, open_gate
from tests.functional.fleet_stage import fleet_on_stage, told, use
from tests.functional.fleet_tools import numbered_lines
from tests.patience import PATIENCE_S

AS_IN_PRODUCTION = (("model,maintenance", "threads", 12), ("tools", "prefork", 6))


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """Model calls in threads, tools in separate processes."""
    folder = tmp_path_factory.mktemp("tools")
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, folder, AS_IN_PRODUCTION) as stage:
        yield stage


@pytest.fixture(params=list(WIRES))
def workshop(request):
    """The agent with all tools, in each vendor format."""
    return workshops[request.param]


CLAUDE = workshops["anthropic"]
BUILT_INS = {"read_result"}


def run_calls(stage, agent, *calls, lines=("Done.",)):
    """Run a job whose first turn makes these calls. Return the results that the model got, and the job's handle."""
    text = stage.cast([use(*calls), *lines])
    handle = agent.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.output) == (JobStatus.COMPLETED, "Done."), result
    return told(stage.heard(text)[1]), handle


# How tools run


def test_all_kinds_of_tools_run_in_every_vendor_format(stage, workshop):
    """One turn calls a sync tool, a coroutine and an inline tool, one with defaults. All are answered, in call order."""
    said, handle = run_calls(
        stage,
        workshop,
        ("peek", {"place": "attic"}),
        ("greet", {"name": "Ada"}),
        ("add", {"a": 2, "b": 3}),
        ("ping", ""),
    )
    assert said == ["attic: nothing new", "Good evening, Ada.", "5", "pong"]
    records = [record for record in handle.events() if record.tool]
    assert {record.tool for record in records} == {"peek", "greet", "add", "ping"}
    assert {record.effect for record in records} == {"done"}


def test_a_tool_gets_all_facts_about_its_call(stage):
    """ToolContext has ids, tenant, an idempotency key, the attempt, the remaining time, and a place for large data."""
    text = stage.cast([use(("add", {"a": 1, "b": 1})), use(("ping", {}), ("who", {})), "Done."])
    handle = CLAUDE.enqueue(text, session_id="who-is-it", tenant="acme")
    assert handle.result(PATIENCE_S).output == "Done."
    who = json.loads(told(stage.heard(text)[2])[2])
    assert who["job_id"] == handle.id
    assert who["step_id"] == "2.1"
    assert (who["session_id"], who["tenant"]) == ("who-is-it", "acme")
    assert re.fullmatch(r"mw-[0-9a-f]{32}", who["idempotency_key"])
    assert (who["attempt"], who["in_time"], who["cancelled"]) == (0, True, False)
    assert stage.client.store.get_result("who-is-it", who["artifact"]) == b"kept beside the session"


def test_five_parallel_calls_give_one_turn_with_results_in_call_order(stage, workshop):
    """The calls run at the same time and end in reverse order. One model turn follows, with the results in call order."""
    said, handle = run_calls(stage, workshop, *[("meet", {"number": n, "of": 5}) for n in range(1, 6)])
    assert said == [f"call {n} of 5" for n in range(1, 6)]
    assert marks(f"left-{handle.id}") == [5, 4, 3, 2, 1]
    turns = [record.step for record in handle.events() if not record.tool]
    assert turns == ["1", "2"]
    assert stage.job(handle).tool_calls == 5


def test_a_tool_may_not_wait_for_a_job_of_its_own_fleet(stage):
    """`agent.run` inside a tool is refused with advice. `agent.enqueue` does not wait, so it is allowed."""
    said, _ = run_calls(stage, CLAUDE, ("nest", {"kind": "run"}), ("nest", {"kind": "enqueue"}))
    assert said[0].startswith(f"Error: {RunInsideTool.__name__}: agent.run can't be used inside a tool")
    assert "tools=[plain.as_tool('what it does')]" in said[0]
    assert stage.client.jobs.get(said[1]).result(PATIENCE_S).output == "You said: a job beside a job"


# What goes wrong


def test_a_tool_error_is_returned_to_the_model(stage, workshop):
    """ToolError is an answer, marked as an error: no retry and no dead letter. Inline tools behave the same way."""
    said, handle = run_calls(stage, workshop, ("find_order", {"number": "W9"}), ("peek", {"place": "nowhere"}))
    assert said == [
        "Error: there is no order W9; ask for the number on the receipt",
        "Error: there is no such place",
    ]
    assert [message.is_error for message in stage.results(handle)] == [True, True]
    assert stage.job(handle).retries == 0


def test_a_repeatable_tool_is_retried_with_the_same_key(stage):
    """With `connection` in retry_on, the model sees the third attempt's answer and nothing of the first two."""
    said, handle = run_calls(stage, CLAUDE, ("unsteady", {"failures": 2}))
    assert said == ["answered at try 3"]
    attempts, keys = zip(*marks(f"unsteady-{handle.id}"), strict=True)
    assert attempts == (0, 1, 2)
    assert len(set(keys)) == 1
    assert stage.job(handle).retries == 2
    failed = [record for record in handle.events() if record.failure]
    assert [record.failure.detail for record in failed] == ["ConnectionError: the order system does not answer"] * 2
    assert [record.outcome for record in failed] == ["defer", "defer"]


def test_a_repeatable_inline_tool_is_retried_as_a_separate_task(stage):
    """The other calls of the turn do not run again, and the idempotency key stays the same."""
    said, handle = run_calls(stage, CLAUDE, ("flicker", {}), ("peek", {"place": "cellar"}))
    assert said == ["the lamp burns", "cellar: nothing new"]
    attempts, keys = zip(*marks(f"flicker-{handle.id}"), strict=True)
    assert attempts == (0, 1)
    assert len(set(keys)) == 1
    assert marks(f"peek-{handle.id}") == ["cellar"]


def test_exhausted_retries_make_a_dead_letter_that_can_be_replayed(stage):
    """Four attempts fail, and the letter shows each of them. The replay runs the tool again, but not the model turn."""
    text = stage.cast([use(("unsteady", {"failures": 4})), "Done."])
    handle = CLAUDE.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "connection")
    letter = stage.client.dead_letters.show(handle.id)
    assert (letter.step, letter.tool, [one.attempt for one in letter.tries]) == ("1.0", "unsteady", [0, 1, 2, 3])
    assert stage.client.dead_letters.replay(handle.id)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["answered at try 5"]
    assert len(stage.heard(text)) == 2


def test_a_tool_that_must_not_be_repeated_runs_once(stage):
    """A retry might pay twice, so there is none, even with `connection` in retry_on. The model gets an error."""
    said, handle = run_calls(stage, CLAUDE, ("unrepeatable", {}))
    assert said == ["Error: ConnectionError: the payment system does not answer"]
    assert marks(f"unrepeatable-{handle.id}") == [0]


def test_a_failure_kind_without_a_policy_is_returned_to_the_model(stage):
    """The agent allows no retries and has no rule for `connection`: no retry, no dead letter, the model decides."""
    said, handle = run_calls(stage, telling, ("unsteady", {"failures": 1}))
    assert said == ["Error: ConnectionError: the order system does not answer"]
    assert len(marks(f"unsteady-{handle.id}")) == 1


def test_fail_hard_ends_the_job_at_the_first_failure(stage):
    """The agent's policy says so. The letter names the tool and the failure."""
    handle = strict.enqueue(stage.cast([use(("unsteady", {"failures": 1})), "Done."]))
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "connection")
    assert len(marks(f"unsteady-{handle.id}")) == 1
    assert stage.client.dead_letters.show(handle.id).tool == "unsteady"


def test_a_dead_letter_keeps_the_results_of_finished_calls_for_replay(stage):
    """The other calls of the turn ran. The replay runs only the failed call, and then the next turn."""
    text = stage.cast([use(("add", {"a": 1, "b": 1}), ("vital", {}), ("add", {"a": 2, "b": 2})), "Done."])
    handle = CLAUDE.enqueue(text)
    assert handle.result(PATIENCE_S).status is JobStatus.DEAD_LETTERED
    assert stage.client.dead_letters.show(handle.id).tool == "vital"
    open_gate("vital-mended")
    assert stage.client.dead_letters.replay(handle.id)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["2", "the vault is open", "4"]
    assert len(marks(f"vital-{handle.id}")) == 2
    assert len(stage.results(handle)) == 3


def test_a_tool_that_times_out_is_reported_as_possibly_running(stage):
    """A tool that must not be repeated may still be running, so its effect is unknown. This holds for inline tools too."""
    said, handle = run_calls(stage, CLAUDE, ("drowse", {}), ("nod", {}))
    assert said == [
        "Error: drowse was not done after 0.2 s and may still be running",
        "Error: nod was not done after 0.1 s and may still be running",
    ]
    assert marks(f"drowse-{handle.id}") == [0]
    records = [record for record in handle.events() if record.tool]
    assert [(record.effect, record.failure.kind) for record in records] == [("unknown", "timeout")] * 2


def test_a_coroutine_that_times_out_is_cancelled_and_retried(stage):
    """The tool's own RetryConfig allows it."""
    said, handle = run_calls(stage, CLAUDE, ("drowse_once", {}))
    assert said == ["awake"]
    assert marks(f"drowse-once-{handle.id}") == [0, 1]


# Calls that never run


def test_invalid_arguments_never_reach_the_tool_and_are_corrected(stage, workshop):
    """The answer names each problem. The call of the next turn is correct, and only that one runs."""
    wrong, right = {"shelf": "west", "rows": [0, "two"], "sort": True}, {"shelf": "north", "rows": [1, 2]}
    text = stage.cast([use(("search", wrong)), use(("search", right)), "Done."])
    handle = workshop.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    refused, found = told(stage.heard(text)[2])
    assert refused.startswith("search was not run: its arguments are not valid.")
    assert all(pointer in refused for pointer in ("/shelf", "/rows/0", "/rows/1", "sort"))
    assert "north" in refused
    assert found == "north [1, 2]: two books"
    assert marks(f"search-{handle.id}") == [right]
    assert stage.job(handle).invalid_calls == 1
    assert next(iter(handle.events())).invalid == ("search: schema",)


@pytest.mark.parametrize("raw", ['{"shelf": "north", "rows": [1', "not json", "[1, 2]", '"north"', "null"])
def test_arguments_that_are_no_json_object_get_an_error(stage, raw):
    """For half an object, prose or a list, the tool does not run, and the model gets what was expected."""
    agent = workshops["responses"]
    text = stage.cast([use(("search", raw)), "Done."])
    handle = agent.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    (refused,) = told(stage.heard(text)[1])
    assert refused.startswith("search was not run: its arguments are not valid.")
    assert "shelf" in refused
    assert marks(f"search-{handle.id}") == []


def test_empty_arguments_mean_no_arguments(stage, workshop):
    """Models send `""` for "no arguments". It is valid for a tool that requires none, and an error for others."""
    said, handle = run_calls(stage, workshop, ("ping", ""), ("search", ""))
    assert said[0] == "pong"
    assert said[1].startswith("search was not run")
    assert marks(f"search-{handle.id}") == []


def test_an_unknown_tool_is_answered_with_the_known_ones(stage, workshop):
    """A similar name is suggested."""
    (said,), _ = run_calls(stage, workshop, ("find_oder", {"number": "W1"}))
    assert said.startswith("There is no tool 'find_oder'. Did you mean find_order")
    assert ", unsteady, " in said


def test_a_reply_may_mix_valid_and_invalid_calls(stage):
    """The valid calls run, each call has one result, and the results are in call order."""
    said, handle = run_calls(
        stage, CLAUDE, ("nothing", {}), ("add", {"a": 1, "b": 1}), ("add", {"a": "one"}), ("peek", {"place": "hall"})
    )
    assert said[0].startswith("There is no tool")
    assert said[1] == "2"
    assert said[2].startswith("add was not run")
    assert said[3] == "hall: nothing new"
    assert (stage.job(handle).tool_calls, stage.job(handle).invalid_calls) == (2, 2)


def test_calls_with_the_same_id_get_their_own_results(stage, workshop):
    """Real models repeat ids. Each call still gets its own result."""
    repeated = Use([("add", {"a": n, "b": n}) for n in (1, 2, 3)], ids=["call_same"] * 3)
    text = stage.cast([repeated, repeated, "Done."])
    assert workshop.run(text, timeout_s=PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[2]) == ["2", "4", "6"] * 2


# Results


def page_through(conversation):
    """Read a result as the model does: follow the hint in the shortened result and in each page."""
    last = told(conversation)[-1]
    first = re.search(r'handle="([^"]+)", offset=(\d+), length=(\d+)', last)
    if first:
        handle, offset, length = first[1], int(first[2]), int(first[3])
        return use(("read_result", {"handle": handle, "offset": offset, "length": length}))
    onward = re.search(r"go on with offset=(\d+)\]$", last)
    if not onward:
        return Say("Done.")
    handle = conversation.calls("read_result")[-1].input["handle"]
    return use(("read_result", {"handle": handle, "offset": int(onward[1])}))


def test_a_long_result_is_shortened_and_read_on_page_by_page(stage, workshop):
    """The model sees head, tail and a handle. By following the hints it reads every character once."""
    whole = numbered_lines(20_000)
    text = stage.cast([use(("report", {"size_bytes": 20_000})), *[page_through] * 5])
    handle = workshop.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    short, *pages = told(stage.heard(text)[-1])
    assert len(short) < 1_000
    head, _, tail = re.split(r"\n(\[\d+ of 20000 characters are left out here\..*\])\n", short)
    read = head + "".join(page[: page.rindex("\n[characters ")] for page in pages)
    assert read == whole
    assert whole.endswith(tail)
    assert "this is the end" in pages[-1]
    offered = [{tool.name for tool in heard.tools} & BUILT_INS for heard in stage.heard(text)]
    assert offered == [set(), *[BUILT_INS] * (len(offered) - 1)]
    assert stage.job(handle).tool_calls == 1


def test_five_megabytes_take_no_more_of_the_window_than_five_kilobytes(stage):
    """The whole result is kept outside the session, and any part of it can be read."""

    def read_middle(conversation):
        found = re.search(r'handle="([^"]+)"', told(conversation)[0])
        return use(("read_result", {"handle": found[1], "offset": 2_500_000, "length": 28}))

    text = stage.cast([use(("report", {"size_bytes": 5_000_000})), read_middle, "Done."])
    handle = CLAUDE.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    short, page = told(stage.heard(text)[2])
    assert len(short) < 1_000
    assert "of 5000000 characters" in short
    assert page.startswith(numbered_lines(2_500_028)[2_500_000:])
    assert handle.result(1).usage.input_tokens < 10_000


def test_an_unknown_handle_gets_an_error(stage):
    """For an invented handle, or one of another session, the model is asked to call the tool again."""
    text = stage.cast(
        [
            use(("report", {"size_bytes": 3_000})),
            use(("read_result", {"handle": "res-000000000000", "offset": 0}), ("read_result", {"offset": -1})),
            "Done.",
        ]
    )
    assert CLAUDE.run(text, timeout_s=PATIENCE_S).output == "Done."
    _, unknown, invalid = told(stage.heard(text)[2])
    assert unknown.startswith("There is no result of that handle, or it is no longer kept")
    assert unknown.endswith("Call the tool again that returned it.")
    assert "handle" in invalid
    assert "/offset" in invalid


def test_a_result_that_json_can_not_express_is_a_failure_with_a_hint(stage):
    """NaN is not JSON. The hint says what to return instead."""
    (said,), handle = run_calls(stage, CLAUDE, ("measure", {}))
    assert said.startswith("Error: the tool's result can't be written as JSON")
    assert "NaN and Infinity: return None or a string instead" in said
    (record,) = [record for record in handle.events() if record.tool]
    assert record.failure.kind == "format_error"


# Cancelling


def test_a_long_tool_sees_that_its_job_was_cancelled(stage, wait_for):
    """`cancelled()` becomes true while it works. The job ends cancelled, and the model is not called again."""
    text = stage.cast([use(("long_haul", {})), "never"])
    handle = CLAUDE.enqueue(text)
    wait_for(lambda: marks(f"haul-{handle.id}"), "the tool to begin")
    assert handle.cancel()
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.CANCELLED, "cancelled")
    assert marks(f"haul-{handle.id}") == ["begun", "told"]
    assert len(stage.heard(text)) == 1
    assert not handle.cancel()


def test_nothing_starts_after_a_cancel_during_the_model_call(stage):
    """The reply has two calls, one of them inline. Neither runs, each is answered, and the session goes on."""
    text = stage.cast([use(("peek", {"place": "attic"}), ("search", {"shelf": "north", "rows": [1]})), "never"])
    stage.model.use(Faults(slow=1.0, slow_ms=700))
    try:
        handle = CLAUDE.enqueue(text, session_id="cancelled-early")
        stage.model.wait_until(lambda stats: stats.in_flight == 1, PATIENCE_S)
        assert handle.cancel()
        result = handle.result(PATIENCE_S)
    finally:
        stage.model.use(Faults())
    assert result.status is JobStatus.CANCELLED
    assert marks(f"peek-{handle.id}") == marks(f"search-{handle.id}") == []
    assert [message.is_error for message in stage.results(handle)] == [True, True]
    assert all("the job ended first (cancelled)" in message.content for message in stage.results(handle))
    assert len(stage.heard(text)) == 1
    assert plain.run("go on", session_id="cancelled-early", timeout_s=PATIENCE_S).output == "You said: go on"


def test_a_job_that_waits_for_its_retry_is_cancelled_at_once(stage, wait_for):
    """The job does not first wait a minute for its retry."""
    text = stage.cast([use(("unsteady", {"failures": 1})), "never"])
    handle = unhurried.enqueue(text)
    job = wait_for(lambda: (job := stage.job(handle)).waiting and job, "the call to be put back")
    assert job.waiting.reason == "connection: ConnectionError: the order system does not answer"
    assert 50_000 < job.waiting.until_ms - job.created_ms < 90_000
    assert handle.cancel()
    assert handle.result(PATIENCE_S).status is JobStatus.CANCELLED
    assert len(marks(f"unsteady-{handle.id}")) == 1


# Sessions and vendor formats


def test_a_session_goes_on_with_an_agent_in_another_vendor_format(stage):
    """Every vendor accepts a conversation with tool calls of other vendors, in any order of agents."""
    for number, wire in enumerate([*WIRES, *reversed(WIRES)], 1):
        text = stage.cast([use(("add", {"a": number, "b": 0}), ("nothing", {})), f"Answer {number}."])
        handle = workshops[wire].enqueue(text, session_id="all-wires")
        assert handle.result(PATIENCE_S).output == f"Answer {number}."
        last = stage.heard(text)[-1]
        assert [result.text for result in last.results("add")] == [str(n) for n in range(1, number + 1)]
        assert [turn.text for turn in last.turns if turn.role == "assistant" and turn.text] == [
            f"Answer {n}." for n in range(1, number)
        ]
