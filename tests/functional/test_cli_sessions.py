"""`midwatch sessions` against a real server: show, export, compact and forget, and `client.sessions` below them.

The real runner acts as the worker, one step at a time, so a queued step runs when the test says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from midwatch import Agent, Client, ContextBudget, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.errors import NotFound, Refused
from midwatch.orchestration.keyspace import partition
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.steps.compaction.compaction_step import CompactionStep
from midwatch.orchestration.steps.compaction.compactor import Compacted
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage
from midwatch.schemas.step import Priority, StepRef
from midwatch.testing import ScriptedModel, call
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.celery_app.dispatch import connect
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.cli import main
from midwatch.workers.process.runtime import SystemClock
from midwatch.workers.settings import settings

Run = Callable[..., tuple[int, str, str]]
CANARY = "Margarethe-0815"


@tool(inline=True, idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return fetch(order)


def fetch(order: str) -> str:
    """Return what `look_up` returns: a text too long to stay in the window."""
    return f"Order {order} of {CANARY}: " + f"item {order}-1, one piece; " * 150


AGENT = Agent(
    "clerk",
    "scripted:m-1",
    "You help.",
    tools=[look_up],
    context_budget=ContextBudget(max_tokens=6_000, reserve_output=500),
)


class Worker:
    """A worker of the fleet without a queue. It runs the steps that it is given."""

    def __init__(self, client: Client, agent: Agent = AGENT) -> None:
        self.client, self.model = client, ScriptedModel([])
        clock = SystemClock()
        self.runner = StepRunner(
            Services(
                store=client.store,
                agents=Registry([agent]),
                model=lambda provider: self.model,
                gate=OpenGate(),
                leases=UnrenewedLeases(client.store.renew, clock, client.store.lease_ms),
                clock=clock,
                worker="w1",
            )
        )

    def compact(self, ref: StepRef) -> Compacted:
        """Run one compaction task and return its result."""
        return CompactionStep(self.runner.services, ref).compact()

    def job(self, replies: list[Any], text: str, session_id: str = "s1", **options: Any) -> str:
        """Run a job turn by turn to its end."""
        handle = self.client.enqueue("clerk", text, session_id=session_id, **options)
        self.model = ScriptedModel(replies)
        for turn in range(1, len(replies) + 1):
            self.runner.run(StepRef(job_id=handle.id, session_id=session_id, step=str(turn)))
        self.model.assert_done()
        return handle.id

    def long_job(self, turns: int = 8, session_id: str = "s1") -> str:
        """Run a job with so many look-ups that its budget is exceeded."""
        calls = [call("look_up", order=f"W-{n}") for n in range(turns)]
        return self.job([*calls, f"All done for {CANARY}."], f"Look at {turns} orders of {CANARY}.", session_id)


@pytest.fixture
def client(prefix) -> Client:
    """A producer of this test's fleet."""
    settings.cache_clear()
    made = connect()
    yield made
    made.store.client.close()
    settings.cache_clear()


@pytest.fixture
def worker(client) -> Worker:
    """The worker that runs published steps."""
    return Worker(client)


@pytest.fixture
def run(client, capsys, monkeypatch, tmp_path) -> Run:
    """`run("sessions", "show", ID)` returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["sessions", *arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


def results(messages: tuple[Message, ...]) -> list[str]:
    """Return the results of all tools, in order."""
    return [message.content for message in messages if isinstance(message, ToolMessage)]


def kept_bytes(client: Client, session_id: str) -> int:
    """Return the bytes of all originals of a session in Redis."""
    store = client.store
    keys = (store.keys.archive(session_id), store.keys.results(session_id))
    return sum(len(body) for key in keys for body in store.client.hvals(key))


def keys_of(client: Client, session_id: str) -> list[bytes]:
    """Return the session's keys in Redis."""
    return sorted(client.store.client.scan_iter(match=f"*:session:{session_id}*"))


def maintenance(client: Client) -> str:
    """Return the list in which compactions wait."""
    return queue_key(client.operations.keys.queue("maintenance"), Priority.NORMAL)


# --- show, export


def test_a_compacted_session_shows_its_numbers_memory_and_live_messages(run, worker, client):
    """The live messages are what the model sees. The numbers equal those of `--json`."""
    worker.long_job()
    code, out, _ = run("show", "s1")
    assert code == 0
    assert "memory of groups 1 to" in out
    assert "second-hand" in out
    assert f"user\nLook at 8 orders of {CANARY}." in out
    assert "of 64,000,000 bytes" in out
    code, out, _ = run("show", "s1", "--json")
    shown = json.loads(out)
    assert (code, shown["session_id"], shown["active_job"]) == (0, "s1", None)
    assert shown["memory"]["compactions"] >= 1 <= shown["compactions"]
    assert shown["messages"] == len(shown["live"]) == len(client.sessions.messages("s1"))
    assert shown["groups_live"] + shown["groups_archived"] == 10
    assert shown["groups_archived"] >= 1
    assert shown["results_kept"] >= 1
    assert shown["originals_bytes"] == kept_bytes(client, "s1") > 0
    assert shown["last_call_tokens"] > 1_000
    assert shown["last_call_model"] == "scripted:m-1"
    sizes = [client.store.client.memory_usage(key, samples=0) for key in keys_of(client, "s1")]
    assert shown["redis_bytes"] == sum(sizes) > 2_000


def test_a_session_without_compactions_has_no_memory(run, worker, client):
    """The original messages of such a session are all live."""
    worker.job([call("look_up", order="W-1"), "Done."], "One order.")
    assert client.sessions.memory("s1") is None
    assert client.sessions.originals("s1") == client.sessions.messages("s1")
    code, out, _ = run("show", "s1")
    assert code == 0
    assert "memory of groups" not in out
    assert "compactions" not in out


def test_an_export_contains_everything_that_was_said(run, worker, client):
    """Every group is there in order and every result whole, although most of them left the window long ago."""
    worker.long_job(turns=12)
    live = client.sessions.messages("s1")
    assert len(live) < 26
    assert any(message.handle for message in live if isinstance(message, ToolMessage)) or len(live) < 25
    code, out, _ = run("export", "s1")
    messages = json.loads(out)["messages"]
    assert code == 0
    assert [message["role"] for message in messages] == ["user", *["assistant", "tool"] * 12, "assistant"]
    assert [message["group"] for message in messages] == sorted(message["group"] for message in messages)
    assert [m["content"] for m in messages if m["role"] == "tool"] == [fetch(f"W-{n}") for n in range(12)]
    assert all(m["handle"] is None for m in messages if m["role"] == "tool")


def test_messages_that_were_cut_are_exported_whole(worker, client):
    """A prompt larger than the budget and a model turn with long texts and arguments are exported to the letter."""
    prompt = "Read this. " + "".join(f"Line {n} says {n * 7}. " for n in range(2_000))
    words = "I think so because of this: " + "".join(f"reason {n}, " for n in range(3_000))
    long_call = call("look_up", order="W-" + "9" * 30_000)
    worker.job([[words, long_call], "Done."], prompt)
    live, said = client.sessions.messages("s1"), client.sessions.originals("s1")
    assert sum(len(message.model_dump_json()) for message in live) < 20_000
    user, turn, result, _ = said
    assert isinstance(user, UserMessage)
    assert user.text == prompt
    assert isinstance(turn, AssistantMessage)
    assert turn.text == words
    assert [one.raw_arguments for one in turn.tool_calls] == [long_call.raw_arguments]
    assert isinstance(result, ToolMessage)
    assert result.content == fetch("W-" + "9" * 30_000)


def test_a_prompt_that_quotes_a_cut_is_exported_unchanged(worker, client):
    """A user's text may look like the runtime's note about a cut. It is not replaced by another text."""
    worker.long_job()
    handle = next(
        message.handle
        for message in client.sessions.messages("s1")
        if isinstance(message, ToolMessage) and message.handle
    )
    quoted = f'Why this?\n[9 of 99 characters are left out here. The whole is kept: read on with read_result(handle="{handle}"'
    worker.job(["I don't know."], quoted)
    said = [message.text for message in client.sessions.originals("s1") if isinstance(message, UserMessage)]
    assert said[-1] == quoted


def test_a_result_without_its_original_is_exported_short(worker, client):
    """If a result's original was deleted by hand, the export has the shortened text, without an error."""
    worker.long_job()
    client.store.client.delete(client.operations.keys.results("s1"))
    assert len(client.sessions.originals("s1")) == 18


def test_an_unknown_id_has_exit_code_3(run, client):
    """Each command prints one line, and the client raises NotFound."""
    for arguments in (("show", "none"), ("export", "none"), ("compact", "none"), ("forget", "none", "--yes")):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (3, "", 1), arguments
    for ask in (client.sessions.memory, client.sessions.originals, client.sessions.show, client.sessions.compact):
        with pytest.raises(NotFound, match="none"):
            ask("none")
    assert client.sessions.forget("none") is False


# --- compact


def test_an_operator_may_compact_a_session_at_any_fill(run, worker, client):
    """The newest job's worker gets a message and does a normal compaction, and the session goes on."""
    worker.job(["Hello."], "An older job.")
    job_id = worker.job([call("look_up", order="W-1"), call("look_up", order="W-2"), "Done."], "Two orders.")
    before = client.sessions.show("s1")
    code, out, err = run("compact", "s1")
    assert (code, out) == (0, "")
    assert "will be compacted" in err
    (message,) = client.store.client.lrange(maintenance(client), 0, -1)
    assert json.loads(message)["headers"]["task"] == "midwatch.compact"
    ref = StepRef(job_id=job_id, session_id="s1", step="0c")
    assert worker.compact(ref) is Compacted.DONE
    after = client.sessions.show("s1")
    assert (before.compactions, after.compactions) == (0, 1)
    assert results(client.sessions.messages("s1")) != results(client.sessions.originals("s1"))
    assert results(client.sessions.originals("s1")) == [fetch("W-1"), fetch("W-2")]
    worker.job(["Still here."], "Are you there?")


def test_a_compaction_in_progress_is_not_requested_again(run, worker, client):
    """The exit code is 0, and no second message is sent."""
    job_id = worker.job(["Hello."], "Hi.")
    ref = StepRef(job_id=job_id, session_id="s1", step="0c")
    assert isinstance(client.store.begin_compaction(ref, "n", lock_ms=60_000), CompactionWork)
    code, _, err = run("compact", "s1")
    assert code == 0
    assert "already" in err
    assert client.store.client.llen(maintenance(client)) == 0


def test_a_compaction_of_an_unknown_job_or_agent_does_nothing(worker, client):
    """A message may outlive its job, or reach a worker without the agent. Neither is an error."""
    job_id = worker.job(["Hello."], "Hi.")
    assert worker.compact(StepRef(job_id="job-9", session_id="s1", step="0c")) is Compacted.NOTHING
    worker.runner.services.agents._agents.clear()
    assert worker.compact(StepRef(job_id=job_id, session_id="s1", step="0c")) is Compacted.NOTHING


@pytest.mark.parametrize("policy", ["summarize_and_trim", "trim_oldest", "escalate", "fail"])
def test_an_operators_compaction_ignores_the_policy(client, policy):
    """A human's request also works where the policy forbids compactions by turns."""
    agent = Agent(
        "clerk", "scripted:m-1", "You help.", tools=[look_up],
        context_budget=ContextBudget(max_tokens=9_000, reserve_output=500, on_overflow=policy),
    )  # fmt: skip
    worker = Worker(client, agent)
    job_id = worker.job([*(call("look_up", order=f"W-{n}") for n in range(4)), "Done."], "Four orders.")
    assert worker.compact(StepRef(job_id=job_id, session_id="s1", step="0c")) is Compacted.DONE
    assert results(client.sessions.originals("s1")) == [fetch(f"W-{n}") for n in range(4)]


# --- forget


def test_forgetting_needs_a_confirmation(run, worker, client):
    """Without `--yes` nothing happens, and the message says how to confirm."""
    worker.job(["Hello."], "Hi.")
    code, _, err = run("forget", "s1")
    assert code == 2
    assert "--yes" in err
    assert client.sessions.messages("s1")


def test_a_forgotten_session_leaves_no_text_in_redis(run, worker, client):
    """No key contains any of its text, compacted or not. The job's record stays, without text."""
    job_id = worker.long_job()
    raw = client.store.client
    assert any(CANARY.encode() in value for value in dump(raw))
    code, _, err = run("forget", "s1", "--yes")
    assert (code, err) == (0, "session s1 is forgotten\n")
    assert keys_of(client, "s1") == []
    assert not any(CANARY.encode() in value for value in dump(raw))
    job = client.jobs.show(job_id)
    assert (job.status, job.output, job.turn) == (JobStatus.COMPLETED, None, 9)
    assert job.usage.input_tokens > 0
    assert run("show", "s1")[0] == 3
    code, _, err = run("forget", "s1", "--yes")
    assert (code, "already" in err) == (3, True)


def dump(raw: Any) -> list[bytes]:
    """Return every value of every key as text."""
    values: list[bytes] = []
    for key in raw.scan_iter():
        match raw.type(key):
            case b"string":
                values.append(raw.get(key))
            case b"list":
                values += raw.lrange(key, 0, -1)
            case b"hash":
                values += [item for pair in raw.hgetall(key).items() for item in pair]
            case b"zset":
                values += raw.zrange(key, 0, -1)
    return values


def test_a_forgotten_session_starts_empty_on_a_worker_that_cached_it(worker, client):
    """The worker's copy of the old conversation is not sent to any model."""
    worker.long_job()
    assert client.sessions.forget("s1")
    worker.job(["Hello."], "Who am I?")
    (request,) = worker.model.requests
    assert [message.text for message in request.messages] == ["Who am I?"]
    assert [spec.name for spec in request.tools] == ["look_up"]
    assert len(client.sessions.originals("s1")) == 2


def test_an_idempotency_key_outlives_its_forgotten_session(worker, client):
    """Forgetting a session must not make a repeated enqueue run again."""
    job_id = worker.job(["Paid."], "Pay the bill.", idempotency_key="bill-7")
    assert client.sessions.forget("s1")
    again = client.enqueue("clerk", "Pay the bill.", idempotency_key="bill-7")
    assert (again.id, again.accepted) == (job_id, False)


def test_only_the_named_session_is_forgotten(worker, client):
    """Another session of the same partition, whose jobs are in the same indexes, is unchanged."""
    other = next(name for name in map(str, range(1_000)) if partition(name) == partition("s1"))
    job_id = worker.job(["Kept."], "Keep this.", other)
    worker.job(["Gone."], "Forget this.")
    assert client.sessions.forget("s1")
    assert client.jobs.show(job_id).output == "Kept."
    assert len(client.sessions.messages(other)) == 2


def test_a_session_in_use_is_not_forgotten(run, worker, client):
    """While a job runs or a dead letter holds the session, the exit code is 4 and names the job. After a discard it works."""
    handle = client.enqueue("clerk", f"Where is {CANARY}?", session_id="s1")
    code, _, err = run("forget", "s1", "--yes")
    assert code == 4
    assert handle.id in err
    worker.model = ScriptedModel([FailureKind.AUTH_ERROR])
    worker.runner.run(StepRef(job_id=handle.id, session_id="s1", step="1"))
    assert handle.status() is JobStatus.DEAD_LETTERED
    with pytest.raises(Refused, match="discard it"):
        client.sessions.forget("s1")
    assert client.sessions.messages("s1")
    assert client.dead_letters.discard(handle.id)
    assert client.sessions.forget("s1")
    failure = client.jobs.show(handle.id).failure
    assert failure is not None
    assert (failure.kind, failure.detail) == (FailureKind.AUTH_ERROR, "forgotten with its session")
    assert client.jobs.trace(handle.id) == []


def test_a_compaction_in_progress_restores_nothing(worker, client):
    """The compaction began before the session was forgotten and commits later. Its commit changes nothing."""
    job_id = worker.long_job()
    work = client.store.begin_compaction(StepRef(job_id=job_id, session_id="s1", step="0c"), "n")
    assert client.sessions.forget("s1")
    done = Compaction(removed=(0,), archived=((1, b"x"),), results=(("res-1", b"x"),))
    assert client.store.commit_compaction(work, done) is False
    assert keys_of(client, "s1") == []
