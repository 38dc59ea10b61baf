"""Workers die, freeze, hang or are asked to end. No step is lost, none acts twice, and a step that kills workers is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.orchestration.steps.tool_step import UNKNOWN_EFFECT
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.faults.crew import Crew, children, ready
from tests.faults.plan import Plan, calls
from tests.patience import PATIENCE_S, wait_for

POOLS = ("threads", "prefork")


@pytest.fixture
def crew(server: EmbeddedServer, prefix: str, tmp_path: Path) -> Iterator[Crew]:
    """A fleet without workers. Each test starts the workers that it kills."""
    with Crew(tmp_path, server, prefix) as made:
        yield made


@pytest.mark.parametrize("pool", POOLS)
def test_a_tool_that_kills_its_worker_three_times_is_a_dead_letter(crew: Crew, pool: str) -> None:
    """The tool runs three times and no more.

    The letter has the reason, and other jobs complete. The first run kills its worker. The others run alone, and their worker
    lives.
    """
    ready(crew.start("model", "threads", 4, "model"), crew.start("tools", pool, 4, "tools"))
    crew.fleet.watch()
    deadly = crew.enqueue(calls(("note", "before"), ("die", "deadly")))
    others = [crew.enqueue(calls(("note", f"a{n}"), ("note", f"b{n}"))) for n in range(10)]
    result = deadly.result(PATIENCE_S)
    assert (result.status, result.failure and result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.WORKER_LOST)
    assert len(crew.journal.of("deadly")) == 3
    letter = crew.client.dead_letters.show(deadly.id)
    assert (letter.step, letter.tool, letter.failure.kind) == ("2.0", "die", FailureKind.WORKER_LOST)
    assert "3 times" in letter.failure.detail
    ran_in = [line.pid for line in crew.journal.of("deadly")]
    assert [int(one.worker.rpartition(".")[2]) for one in letter.tries] == ran_in, "it names the processes that died"
    assert [one.failure.kind for one in letter.tries if one.failure] == [FailureKind.WORKER_LOST] * 3
    assert {other.result(PATIENCE_S).output for other in others} == {"done after 2 turns"}
    assert [message.content for message in crew.results(deadly)] == ["noted before"], (
        "its conversation waits for a replay"
    )


@pytest.mark.parametrize("killed", ["child", "group"])
def test_a_worker_killed_during_a_tool(crew: Crew, killed: str) -> None:
    """A repeatable tool runs again with the same key. Any other runs once, and the model gets an unknown outcome."""
    ready(crew.start("model", "threads", 4, "model"), tools := crew.start("tools", "prefork", 2, "tools"))
    crew.fleet.watch()
    again, once = crew.enqueue(calls(("hold", "again"))), crew.enqueue(calls(("hold_once", "once")))
    pids = {crew.began("again"), crew.began("once")}
    assert pids == children(tools)
    if killed == "group":
        tools.kill_group()
    else:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    crew.began("again", times=2)
    crew.journal.open_gate("again", "once")
    assert again.result(PATIENCE_S).output == once.result(PATIENCE_S).output == "done after 1 turns"
    assert [message.content for message in crew.results(again)] == ["held again"]
    assert [message.content for message in crew.results(once)] == [UNKNOWN_EFFECT]
    assert len({line.key for line in crew.journal.of("again")}) == 1
    assert len(crew.journal.of("once")) == 1
    assert [record.effect for record in crew.client.jobs.trace(once.id) if record.tool] == ["unknown"]


def test_a_worker_killed_during_an_inline_tool(crew: Crew) -> None:
    """The same happens inside a model turn's own task: the turn is kept, and its calls go on as separate steps."""
    worker = crew.worker("all", "threads", 4)
    crew.fleet.watch()
    turn = [("hold_inline", "first"), ("hold_inline_once", "second"), ("hold_inline", "never-begun")]
    job = crew.enqueue(str(Plan([turn])))
    crew.began("first")
    crew.journal.open_gate("first")
    crew.began("second")
    worker.kill_group()
    crew.journal.open_gate("second", "never-begun")
    assert job.result(PATIENCE_S).output == "done after 1 turns"
    assert [message.content for message in crew.results(job)] == ["held first", UNKNOWN_EFFECT, "held never-begun"]
    assert len(crew.journal.of("second")) == 1
    assert len({line.key for line in crew.journal.of("first")}) == 1
    assert assistant_turns(crew, job.session_id) == 2


def assistant_turns(crew: Crew, session_id: str) -> int:
    """Count the model's messages in the log."""
    return sum(isinstance(message, AssistantMessage) for message in crew.client.sessions.messages(session_id))


def test_a_worker_killed_between_the_models_reply_and_the_commit(crew: Crew) -> None:
    """The model is called again. The log and the usage have one of the two replies."""
    crew.worker("all", "threads", 2)
    crew.fleet.watch()
    job = crew.enqueue(calls(("note", "word"), at1=("die_once", "reply")))
    result = job.result(PATIENCE_S)
    assert result.output == "done after 1 turns"
    assert [len(crew.journal.of("reply", event)) for event in ("model", "replied")] == [2, 1]
    assert assistant_turns(crew, job.session_id) == 2
    assert result.usage.output_tokens == 2, "the usage of the lost reply is unknown, so it is not counted"


def test_a_frozen_worker_commits_nothing_after_another_worker_did(crew: Crew) -> None:
    """SIGSTOP beyond the lease, in a tool and in a model call. Another worker finishes. After SIGCONT the commit is refused."""
    sleeper = crew.worker("sleeper", "threads", 4)
    in_tool = crew.enqueue(calls(("hold", "tool"), ("note", "after")))
    in_model = crew.enqueue(calls(("note", "before"), at1=("hold", "model")))
    crew.began("tool")
    wait_for(lambda: crew.journal.of("model", "model"), "the model call to begin")
    sleeper.freeze()
    crew.worker("other", "threads", 4)
    crew.began("tool", times=2)
    wait_for(lambda: len(crew.journal.of("model", "model")) == 2, "the model to be asked again")
    crew.journal.open_gate("tool", "model")
    assert in_tool.result(PATIENCE_S).output == "done after 2 turns"
    assert in_model.result(PATIENCE_S).output == "done after 1 turns"
    sleeper.thaw()
    wait_for(lambda: sleeper.log_path.read_text().count("lease.lost") == 2, "both of its commits to be refused")
    assert [message.content for message in crew.results(in_tool)] == ["held tool", "noted after"]
    assert [message.content for message in crew.results(in_model)] == ["noted before"]
    assert assistant_turns(crew, in_model.session_id) == 2
    assert len({line.key for line in crew.journal.of("tool")}) == 1
    assert sleeper.alive


@pytest.mark.parametrize("pool", POOLS)
def test_sigterm_finishes_running_steps_and_starts_no_other(crew: Crew, pool: str) -> None:
    """Running steps finish and are committed, and the exit code is 0. The next worker runs what waited."""
    worker = crew.worker("first", pool, 2)
    in_tool = crew.enqueue(calls(("hold_once", "tool"), ("note", "after")))
    crew.began("tool")
    in_model = crew.enqueue(calls(("note", "after-model"), at0=("hold", "model")))
    wait_for(lambda: crew.journal.of("model", "model"), "the model call to begin")
    waiting = [crew.enqueue(calls(("note", f"waits{n}"))) for n in range(5)]
    worker.ask_to_end()
    wait_for(lambda: worker.has_logged("Warm shutdown"), "the signal to be heard")
    assert worker.alive, "it waits for its running steps"
    crew.journal.open_gate("tool", "model")
    assert worker.await_end(PATIENCE_S), worker.log_tail
    assert worker.exit_code == 0
    assert [message.content for message in crew.results(in_tool)] == ["held tool"], "committed before it ended"
    assert len(crew.journal.of("model", "replied")) == 1
    assert not [line for line in crew.journal.lines() if line.word.startswith(("after", "waits"))]
    crew.worker("second", pool, 2)
    ends = [job.result(PATIENCE_S).output for job in (in_tool, in_model, *waiting)]
    assert ends == ["done after 2 turns", *["done after 1 turns"] * 6]
    assert len(crew.journal.of("tool")) == len(crew.journal.of("model", "model")) == 1, "nothing was done twice"


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("how", ["spin", "sleep_in_c"])
def test_a_hanging_tool_ends_with_a_timeout(crew: Crew, pool: str, how: str) -> None:
    """The model gets the timeout at the tool's own limit, and the tool is not run again. The worker and its children go on."""
    worker = crew.worker("worker", pool, 2)
    before = children(worker)
    job = crew.enqueue(calls((how, "hang"), ("note", "after")))
    assert job.result(PATIENCE_S).output == "done after 2 turns"
    crew.journal.open_gate("hang")
    said = crew.results(job)[0]
    assert said.is_error
    assert f"{how} was not done after 0.5 s" in said.content
    assert len(crew.journal.of("hang")) == 1
    assert [record.effect for record in crew.client.jobs.trace(job.id) if record.tool == how] == ["unknown"]
    assert (worker.alive, children(worker)) == (True, before)


def test_a_tool_that_blocks_the_interpreter_is_a_dead_letter(crew: Crew) -> None:
    """A library call that never releases the interpreter's lock stops its child and the lease renewals, so the lease expires."""
    worker = crew.worker("worker", "prefork", 4, MIDWATCH_AGENTS="tests.faults.fault_agents:seizing")
    job = crew.enqueue(calls(("seize", "stuck")), agent="seizing")
    result = job.result(PATIENCE_S)
    assert (result.status, result.failure and result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.WORKER_LOST)
    assert len(crew.journal.of("stuck")) == 3
    assert (
        crew.enqueue(calls(("quick_note", "beside")), agent="seizing").result(PATIENCE_S).output == "done after 1 turns"
    )
    assert worker.alive


@pytest.mark.slow
def test_the_pools_time_limit_frees_a_blocked_child(crew: Crew) -> None:
    """A tool that ignores its own limit is killed by the pool's limit half a minute later, and its slot works again."""
    worker = crew.worker("worker", "prefork", 1, "tools", MIDWATCH_AGENTS="tests.faults.fault_agents:seizing")
    crew.worker("model", "threads", 1, "model", MIDWATCH_AGENTS="tests.faults.fault_agents:seizing")
    before = children(worker)
    stuck = crew.enqueue(calls(("seize", "stuck")), agent="seizing")
    crew.began("stuck")
    beside = crew.enqueue(calls(("quick_note", "beside")), agent="seizing")
    wait_for(lambda: children(worker) != before, "the child to be killed")
    assert beside.result(PATIENCE_S).output == "done after 1 turns"
    assert stuck.job().status in (JobStatus.RUNNING, JobStatus.DEAD_LETTERED)


def test_a_worker_without_the_agent_leaves_the_step_to_another(crew: Crew) -> None:
    """In a rolling deployment, the step is deferred with a reason, and runs when a worker with the agent starts."""
    old = crew.worker("old", "threads", 2, MIDWATCH_AGENTS="tests.faults.fault_agents:fault")
    job = crew.enqueue(calls(("note", "new")), agent="elsewhere")
    wait_for(lambda: (waiting := job.job().waiting) and "elsewhere" in waiting.reason, "the job to be deferred")
    crew.worker("new", "threads", 2)
    assert old.terminate()
    assert job.result(PATIENCE_S).output == "done after 1 turns"


def test_a_message_delivered_three_times_runs_once(crew: Crew) -> None:
    """The copies arrive during the step, after it and in between. Nothing of them is left."""
    crew.worker("worker", "threads", 8)
    job = crew.enqueue(calls(("hold_once", "once"), at0=("hold", "model")))
    first = crew.client.operations.first_step(job.job())
    wait_for(lambda: crew.journal.of("model", "model"), "the model call to begin")
    publish_thrice(crew, first)
    crew.journal.open_gate("model")
    crew.began("once")
    publish_thrice(crew, first, first.call(0))
    crew.journal.open_gate("once")
    assert job.result(PATIENCE_S).output == "done after 1 turns"
    publish_thrice(crew, first, first.call(0), first.model_turn(2))
    assert [len(crew.journal.of(*what)) for what in (("model", "model"), ("once", "began"))] == [1, 1]
    assert [message.content for message in crew.results(job)] == ["held once"]
    assert assistant_turns(crew, job.session_id) == 2


def publish_thrice(crew: Crew, *refs: Any) -> None:
    """Deliver messages again, and wait until workers have taken them."""
    crew.client.operations.publish(refs * 3)
    wait_for(lambda: not crew.queued("model") + crew.queued("tools"), "the duplicates to be taken")
    crew.enqueue(calls(("note", "behind"))).result(PATIENCE_S)


def test_a_message_lost_with_its_worker_is_published_again_in_seconds(crew: Crew) -> None:
    """The message was taken and lost before its step was claimed. A steward finds the step owed and its queue empty."""
    job = crew.enqueue(calls(("note", "late")))
    ref = crew.client.operations.first_step(job.job())
    queue = queue_key(crew.client.operations.keys.queue("model"), ref.priority, first=True)
    assert crew.client.store.client.delete(queue) == 1
    crew.worker("worker", "threads", 2)
    assert job.result(PATIENCE_S).output == "done after 1 turns"
