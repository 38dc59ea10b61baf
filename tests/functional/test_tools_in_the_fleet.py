"""Tools on a real fleet: how each kind runs, what the model is told of it, and what never runs."""

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
    """Model calls in threads, tools in processes of their own."""
    folder = tmp_path_factory.mktemp("tools")
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, folder, AS_IN_PRODUCTION) as stage:
        yield stage


@pytest.fixture(params=list(WIRES))
def workshop(request):
    """The agent with all tools, on each wire."""
    return workshops[request.param]


CLAUDE = workshops["anthropic"]
BUILT_INS = {"read_result"}


def answered(stage, agent, *calls, lines=("Done.",)):
    """Run a job whose first turn makes these calls; what the model was told of them, and the job's handle."""
    text = stage.cast([use(*calls), *lines])
    handle = agent.enqueue(text)
    result = handle.result(PATIENCE_S)
    assert (result.status, result.output) == (JobStatus.COMPLETED, "Done."), result
    return told(stage.heard(text)[1]), handle


# How tools run


def test_sync_coroutine_inline_and_default_arguments_on_every_wire(stage, workshop):
    """One turn with each kind of tool: every call is answered, in call order, on all three wires."""
    said, handle = answered(
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


def test_a_tool_is_told_all_about_its_call(stage):
    """ToolContext: ids, tenant, a key, the attempt, the time left, and a place to keep something large."""
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


def test_five_parallel_calls_fan_in_once_with_results_in_call_order(stage, workshop):
    """They run beside each other, end in the opposite order, and bring on one model turn that sees them as it called them."""
    said, handle = answered(stage, workshop, *[("meet", {"number": n, "of": 5}) for n in range(1, 6)])
    assert said == [f"call {n} of 5" for n in range(1, 6)]
    assert marks(f"left-{handle.id}") == [5, 4, 3, 2, 1]
    turns = [record.step for record in handle.events() if not record.tool]
    assert turns == ["1", "2"]
    assert stage.job(handle).tool_calls == 5


def test_a_tool_may_not_wait_for_the_fleet_it_runs_in(stage):
    """`agent.run` inside a tool is refused with the way out; `agent.enqueue` waits for nobody and is allowed."""
    said, _ = answered(stage, CLAUDE, ("nest", {"kind": "run"}), ("nest", {"kind": "enqueue"}))
    assert said[0].startswith(f"Error: {RunInsideTool.__name__}: agent.run can't be used inside a tool")
    assert "tools=[plain.as_tool('what it does')]" in said[0]
    assert stage.client.jobs.get(said[1]).result(PATIENCE_S).output == "You said: a job beside a job"


# What goes wrong


def test_what_a_tool_says_of_its_request_is_told_to_the_model(stage, workshop):
    """ToolError is an answer: not retried, no dead letter, flagged as an error; inline tools alike."""
    said, handle = answered(stage, workshop, ("find_order", {"number": "W9"}), ("peek", {"place": "nowhere"}))
    assert said == [
        "Error: there is no order W9; ask for the number on the receipt",
        "Error: there is no such place",
    ]
    assert [message.is_error for message in stage.results(handle)] == [True, True]
    assert stage.job(handle).retries == 0


def test_a_repeatable_tool_is_tried_again_with_the_same_key(stage):
    """`connection` in retry_on: the model sees the answer of the third try and nothing of the two before."""
    said, handle = answered(stage, CLAUDE, ("unsteady", {"failures": 2}))
    assert said == ["answered at try 3"]
    attempts, keys = zip(*marks(f"unsteady-{handle.id}"), strict=True)
    assert attempts == (0, 1, 2)
    assert len(set(keys)) == 1
    assert stage.job(handle).retries == 2
    failed = [record for record in handle.events() if record.failure]
    assert [record.failure.detail for record in failed] == ["ConnectionError: the order system does not answer"] * 2
    assert [record.outcome for record in failed] == ["defer", "defer"]


def test_a_repeatable_inline_tool_is_tried_again_as_a_task_of_its_own(stage):
    """The other calls of the turn are not run again, and the key stays the same."""
    said, handle = answered(stage, CLAUDE, ("flicker", {}), ("peek", {"place": "cellar"}))
    assert said == ["the lamp burns", "cellar: nothing new"]
    attempts, keys = zip(*marks(f"flicker-{handle.id}"), strict=True)
    assert attempts == (0, 1)
    assert len(set(keys)) == 1
    assert marks(f"peek-{handle.id}") == ["cellar"]


def test_retries_that_run_out_make_a_dead_letter_that_can_be_replayed(stage):
    """Four tries fail; the letter shows each of them; the replay runs the tool only, not the model turn before it."""
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


def test_a_tool_that_must_not_be_repeated_is_run_once_and_the_model_is_told(stage):
    """Even with `connection` in the agent's retry_on: a second try might pay twice."""
    said, handle = answered(stage, CLAUDE, ("unrepeatable", {}))
    assert said == ["Error: ConnectionError: the payment system does not answer"]
    assert marks(f"unrepeatable-{handle.id}") == [0]


def test_a_kind_in_neither_list_is_told_to_the_model(stage):
    """The agent says nothing about `connection`: no retry, no dead letter, the model decides."""
    said, handle = answered(stage, telling, ("unsteady", {"failures": 1}))
    assert said == ["Error: ConnectionError: the order system does not answer"]
    assert len(marks(f"unsteady-{handle.id}")) == 1


def test_fail_hard_ends_the_job_at_the_first_failure(stage):
    """By the agent's word; the letter names the tool and the failure."""
    handle = strict.enqueue(stage.cast([use(("unsteady", {"failures": 1})), "Done."]))
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "connection")
    assert len(marks(f"unsteady-{handle.id}")) == 1
    assert stage.client.dead_letters.show(handle.id).tool == "unsteady"


def test_a_dead_letter_keeps_the_results_of_finished_calls_for_replay(stage):
    """Its siblings ran; the replay runs the failed call alone, and the turn fans in as if nothing had been."""
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


def test_a_tool_that_takes_too_long_is_given_up(stage):
    """Not repeatable: the model is told, and that it may still be running; its effect is unknown. Inline or not."""
    said, handle = answered(stage, CLAUDE, ("drowse", {}), ("nod", {}))
    assert said == [
        "Error: drowse was not done after 0.2 s and may still be running",
        "Error: nod was not done after 0.1 s and may still be running",
    ]
    assert marks(f"drowse-{handle.id}") == [0]
    records = [record for record in handle.events() if record.tool]
    assert [(record.effect, record.failure.kind) for record in records] == [("unknown", "timeout")] * 2


def test_a_coroutine_that_takes_too_long_is_cancelled_and_tried_again(stage):
    """By the tool's own RetryConfig."""
    said, handle = answered(stage, CLAUDE, ("drowse_once", {}))
    assert said == ["awake"]
    assert marks(f"drowse-once-{handle.id}") == [0, 1]


# What never runs


def test_invalid_arguments_never_reach_the_tool_and_are_corrected(stage, workshop):
    """The answer points at each problem; the next turn's call is right, and only that one runs."""
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
def test_arguments_that_are_no_json_object_are_answered(stage, raw):
    """Half an object, prose, a list: the tool is not run, and the model learns what was expected."""
    agent = workshops["responses"]
    text = stage.cast([use(("search", raw)), "Done."])
    handle = agent.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    (refused,) = told(stage.heard(text)[1])
    assert refused.startswith("search was not run: its arguments are not valid.")
    assert "shelf" in refused
    assert marks(f"search-{handle.id}") == []


def test_empty_arguments_are_no_arguments(stage, workshop):
    """`""` is what models send for "none": right for a tool that requires nothing, an error for one that does."""
    said, handle = answered(stage, workshop, ("ping", ""), ("search", ""))
    assert said[0] == "pong"
    assert said[1].startswith("search was not run")
    assert marks(f"search-{handle.id}") == []


def test_a_tool_that_does_not_exist_is_answered_with_those_that_do(stage, workshop):
    """A near name is suggested."""
    (said,), _ = answered(stage, workshop, ("find_oder", {"number": "W1"}))
    assert said.startswith("There is no tool 'find_oder'. Did you mean find_order")
    assert ", unsteady, " in said


def test_a_reply_may_mix_right_and_wrong_calls(stage):
    """The right ones run, each call has one result, and the order is that of the calls."""
    said, handle = answered(
        stage, CLAUDE, ("nothing", {}), ("add", {"a": 1, "b": 1}), ("add", {"a": "one"}), ("peek", {"place": "hall"})
    )
    assert said[0].startswith("There is no tool")
    assert said[1] == "2"
    assert said[2].startswith("add was not run")
    assert said[3] == "hall: nothing new"
    assert (stage.job(handle).tool_calls, stage.job(handle).invalid_calls) == (2, 2)


def test_calls_with_one_id_are_told_apart(stage, workshop):
    """Real models repeat ids: each call gets its own result all the same."""
    repeated = Use([("add", {"a": n, "b": n}) for n in (1, 2, 3)], ids=["call_same"] * 3)
    text = stage.cast([repeated, repeated, "Done."])
    assert workshop.run(text, timeout_s=PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[2]) == ["2", "4", "6"] * 2


# Results


def page_through(conversation):
    """The model reads on as the shortened result, and then each page, tells it to."""
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
    """The model sees head and tail and a handle; by following what it is told it reads every character once."""
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


def test_five_megabytes_cost_the_window_no_more_than_five_kilobytes(stage):
    """The whole is kept beside the session, and any place in it can be read."""

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


def test_a_handle_that_does_not_exist_is_answered(stage):
    """Made up, or of another session: the model is told to call the tool again."""
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


def test_a_result_that_json_cannot_say_is_a_failure_with_a_hint(stage):
    """NaN is not JSON: the tool's author and the model learn what to return instead."""
    (said,), handle = answered(stage, CLAUDE, ("measure", {}))
    assert said.startswith("Error: the tool's result can't be written as JSON")
    assert "NaN and Infinity: return None or a string instead" in said
    (record,) = [record for record in handle.events() if record.tool]
    assert record.failure.kind == "format_error"


# Cancelling


def test_a_long_tool_sees_that_its_job_was_cancelled(stage, wait_for):
    """`cancelled()` becomes true while it works; the job ends cancelled, and the model is not asked again."""
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
    """The reply asks for two tools, one of them inline: neither runs, each is answered, the session goes on."""
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
    assert all("ended around it (cancelled)" in message.content for message in stage.results(handle))
    assert len(stage.heard(text)) == 1
    assert plain.run("go on", session_id="cancelled-early", timeout_s=PATIENCE_S).output == "You said: go on"


def test_a_job_that_waits_for_its_retry_is_cancelled_at_once(stage, wait_for):
    """Nobody waits a minute for the end of a job that nobody wants."""
    text = stage.cast([use(("unsteady", {"failures": 1})), "never"])
    handle = unhurried.enqueue(text)
    job = wait_for(lambda: (job := stage.job(handle)).waiting and job, "the call to be put back")
    assert job.waiting.reason == "connection: ConnectionError: the order system does not answer"
    assert 50_000 < job.waiting.until_ms - job.created_ms < 90_000
    assert handle.cancel()
    assert handle.result(PATIENCE_S).status is JobStatus.CANCELLED
    assert len(marks(f"unsteady-{handle.id}")) == 1


# Sessions and wires


def test_a_session_goes_on_with_an_agent_on_another_wire(stage):
    """A conversation with tool calls in it is understood by every vendor, in whatever order they take it up."""
    for number, wire in enumerate([*WIRES, *reversed(WIRES)], 1):
        text = stage.cast([use(("add", {"a": number, "b": 0}), ("nothing", {})), f"Answer {number}."])
        handle = workshops[wire].enqueue(text, session_id="all-wires")
        assert handle.result(PATIENCE_S).output == f"Answer {number}."
        last = stage.heard(text)[-1]
        assert [result.text for result in last.results("add")] == [str(n) for n in range(1, number + 1)]
        assert [turn.text for turn in last.turns if turn.role == "assistant" and turn.text] == [
            f"Answer {n}." for n in range(1, number)
        ]
