"""One step, top to bottom, where it goes wrong: every failure has its outcome, and none escapes as an exception."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from midwatch import Agent, Escalation, RetryConfig, RunLimits, ToolContext, ToolError, tool
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.ports import Gate
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.steps.tool_step import UNKNOWN_EFFECT
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.model import ModelReply, Stop, Usage
from midwatch.schemas.step import Defer
from midwatch.testing import InlineFleet, ScriptedModel, call


class Ledger:
    """What the tools of a test did."""

    def __init__(self):
        self.did: list[str] = []

    def agent(self, **fields):
        @tool
        def charge(order: str, context: ToolContext) -> str:
            """Charge an order."""
            self.did.append(context.idempotency_key)
            return f"{order} is charged"

        return Agent("clerk", "scripted:m-1", "You help.", tools=[charge, *fields.pop("tools", ())], **fields)


def results(fleet, job_id):
    return [message.content for message in fleet.messages(job_id) if isinstance(message, ToolMessage)]


def step_of(fleet, job_id, step):
    return fleet.operations.first_step(fleet.store.job(job_id)).model_copy(update={"step": step})


def vanish(fleet, job_id, step):
    """Another worker takes the step and is never heard of again."""
    fleet.store.claim(step_of(fleet, job_id, step), "a worker that dies")
    fleet.clock.advance(fleet.store.lease_ms + 1)


def run_until(fleet, job_id, step):
    """Run steps until the next one is `step`."""
    while (ref := fleet.published[0]).step != step:
        fleet.published.popleft()
        fleet.runner.run(ref)


# --- what nobody foresaw


def test_a_provider_that_breaks_its_promise_is_a_dead_letter_and_not_a_lost_worker():
    """It says what was raised; nothing else leaves the step, and the reservation is settled."""

    class Broken:
        name = "broken"

        def complete(self, request):
            raise KeyError("choices")

    gate = Admissions()
    fleet = InlineFleet(model=Broken(), gate=gate)
    result = fleet.run(fleet.enqueue(Ledger().agent(), "hi"))
    assert result.status is JobStatus.DEAD_LETTERED
    assert (result.failure.kind, result.failure.detail) == (FailureKind.INTERNAL, "KeyError: 'choices'")
    assert gate.open == []


def test_an_approval_rule_that_raises_asks_the_human():
    """The tool does not run before somebody has looked."""
    did = []

    @tool(requires_approval=lambda arguments: arguments["amount"] > 3)
    def refund(order: str) -> str:
        """Pay back."""
        did.append(order)
        return "paid"

    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[refund])
    fleet = InlineFleet(model=ScriptedModel([call("refund", order="A")]))
    result = fleet.run(fleet.enqueue(agent, "hi"))
    assert (result.status, result.failure, did) == (JobStatus.PARKED, None, [])


def test_a_store_that_is_away_is_the_one_thing_that_is_raised():
    """The step stays owed: the message is not the truth."""
    fleet = InlineFleet(model=ScriptedModel(["hi"]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")

    def away(*args):
        raise StoreUnavailable("Redis is away")

    fleet.store.finish = away
    with pytest.raises(StoreUnavailable):
        fleet.run(job_id)
    assert fleet.store.job(job_id).status is JobStatus.RUNNING


def test_an_agent_that_is_not_loaded_here_is_waited_for():
    """A deployment rolls for minutes; after that it is a dead letter that says what to do."""
    fleet = InlineFleet(model=ScriptedModel([]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    fleet.runner.services.agents._agents.clear()
    result = fleet.run(job_id)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.INTERNAL)
    assert "MIDWATCH_AGENTS" in result.failure.detail
    assert [record.outcome for record in fleet.trace(job_id)] == ["defer"] * 5 + ["dead_letter"]


def test_a_cancelled_job_ends_even_where_its_agent_is_not_loaded():
    """Nothing of the agent is needed to end it."""
    fleet = InlineFleet(model=ScriptedModel([]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    fleet.runner.services.agents._agents.clear()
    fleet.runner.run(fleet.published.popleft())
    fleet.operations.cancel(job_id)
    assert fleet.run(job_id).status is JobStatus.CANCELLED


# --- what a human says


@pytest.mark.parametrize("order", [("1.0", "1.1"), ("1.1", "1.0")])
def test_a_rejected_call_is_recorded_by_its_own_question(order):
    """Two calls of a turn are parked: one had begun and its worker vanished, one never ran. Both are rejected."""
    ledger = Ledger()
    rules = [Escalation(when="tool_approval", tools=["refund"]), Escalation(when="unknown_effect", tools=["charge"])]

    @tool
    def refund(order: str) -> str:
        """Pay back."""
        return "paid"

    fleet = InlineFleet(model=ScriptedModel([[call("charge", order="A"), call("refund", order="B")], "I will check."]))
    job_id = fleet.enqueue(ledger.agent(tools=[refund], escalation=rules), "hi")
    run_until(fleet, job_id, "1.0")
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.PARKED
    for step in order:
        fleet.operations.decide(job_id, step, approve=False, reason="not now")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert results(fleet, job_id) == [
        f"{UNKNOWN_EFFECT} A human decided so. not now",
        "A human rejected this call: not now",
    ]
    effects = {record.step: record.effect for record in fleet.trace(job_id) if record.effect}
    assert effects == {"1.0": "unknown", "1.1": "none"}


@pytest.mark.parametrize("words", ["unknown_effect", "unknown_effect: it is fine", "approved", "rejected:|{}", "x | y"])
def test_a_humans_words_are_not_read_as_protocol(words):
    """A call that never ran stays a call that never ran, whatever the reason begins with."""
    ledger = Ledger()
    agent = ledger.agent(escalation=[Escalation(when="tool_approval")])
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "As you say."]))
    job_id = fleet.enqueue(agent, "hi")
    fleet.run(job_id)
    fleet.operations.decide(job_id, approve=False, reason=words)
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [f"A human rejected this call: {words}"])
    assert [record.effect for record in fleet.trace(job_id) if record.step == "1.0" and record.effect] == ["none"]


def test_a_tools_words_are_not_read_as_protocol():
    """A result begins with the runtime's sentence about a stopped reply. The call ran, so its turn is not a refused one."""

    @tool(idempotent=True)
    def quote(n: int) -> str:
        """Quote the runtime."""
        return "Not run: your reply stopped (length) before this call was complete. Make it again."

    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[quote])
    turn = [call("quote", n=1), call("quote", n="not a number")]
    fleet = InlineFleet(model=ScriptedModel([turn, turn, call("quote", n="not a number"), "Done."]))
    result = fleet.run(fleet.enqueue(agent, "hi"))
    assert (result.status, result.output) == (JobStatus.COMPLETED, "Done.")


# --- effects


def test_a_tool_whose_worker_vanished_is_not_run_again():
    """The model is told that the outcome is unknown; that is all anybody knows."""
    ledger = Ledger()
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "I will check."]))
    job_id = fleet.enqueue(ledger.agent(), "hi")
    run_until(fleet, job_id, "1.0")
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [UNKNOWN_EFFECT])


def test_an_approval_is_for_one_try():
    """Approved, begun, worker gone: an effect may have happened, so the old word is not enough to run it again."""
    ledger = Ledger()
    agent = ledger.agent(escalation=[Escalation(when="tool_approval")])
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "I will check."]))
    job_id = fleet.enqueue(agent, "hi")
    assert fleet.run(job_id).status is JobStatus.PARKED
    fleet.operations.decide(job_id, approve=True)
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [UNKNOWN_EFFECT])


def test_a_human_may_say_that_it_shall_run_again():
    """With an escalation for unknown effects the call is parked; approved, it runs once."""
    ledger = Ledger()
    agent = ledger.agent(escalation=[Escalation(when="unknown_effect")])
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "Done."]))
    job_id = fleet.enqueue(agent, "hi")
    run_until(fleet, job_id, "1.0")
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.PARKED
    fleet.operations.decide(job_id, approve=True)
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert len(ledger.did) == 1


def test_that_it_had_begun_is_remembered_by_workers_that_do_not_know_the_agent():
    """A rolling deployment: the worker dies in the tool, one without the agent defers it, one with it takes over."""
    ledger = Ledger()
    agent = ledger.agent()
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "I will check."]))
    job_id = fleet.enqueue(agent, "hi")
    run_until(fleet, job_id, "1.0")
    vanish(fleet, job_id, "1.0")
    fleet.runner.services.agents._agents.clear()
    outcome = fleet.runner.run(fleet.published.popleft())
    assert isinstance(outcome, Defer)
    fleet.runner.services.agents.add(agent)
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [UNKNOWN_EFFECT])


def test_inline_calls_hold_their_own_leases():
    """The turn's row goes with its commit: what is renewed is each call, also while it waits for its turn."""
    held = []

    @tool(inline=True)
    def note(text: str) -> str:
        """Write a note."""
        assert {"1.0", "1.1"} <= {claim.ref.step for claim in held}
        return "noted"

    fleet = InlineFleet(model=ScriptedModel([[call("note", text="a"), call("note", text="b")], "Done."]))
    hold = fleet.runner.services.leases.hold

    @contextmanager
    def watched(claim, at_most_ms):
        with hold(claim, at_most_ms) as one:
            held.append(claim)
            yield one

    fleet.runner.services.leases.hold = watched
    job_id = fleet.enqueue(Agent("clerk", "scripted:m-1", "You help.", tools=[note]), "hi")
    fleet.run(job_id)
    assert results(fleet, job_id) == ["noted", "noted"]


def test_an_inline_call_that_may_be_repeated_is_put_back_as_a_task_of_its_own():
    """Its siblings are committed; the job goes on when it has worked."""
    tries = []

    @tool(inline=True, idempotent=True, retry=RetryConfig(retry_on=["tool_error"]))
    def ping() -> str:
        """Ping."""
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no route")
        return "pong"

    @tool(inline=True)
    def note(text: str) -> str:
        """Write a note."""
        return "noted"

    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[ping, note])
    fleet = InlineFleet(model=ScriptedModel([[call("ping"), call("note", text="a")], "Done."]))
    job_id = fleet.enqueue(agent, "hi")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert results(fleet, job_id) == ["pong", "noted"]


# --- admission

REFUSED, FULL = (
    ModelReply(parts=(), stop=stop, usage=Usage(input_tokens=9, output_tokens=1), model="m-1")
    for stop in (Stop.REFUSAL, Stop.CONTEXT_FULL)
)


class Admissions(Gate):
    """A gate that remembers what it let in and what it was told of it, and refuses as often as it is told to."""

    def __init__(self, refuse=0, denial=None, settlement=None):
        self.open: list[Call] = []
        self.seen: list[str] = []
        self.reports: list[Report] = []
        self.refuse = refuse
        self.denial: Failure | None = denial
        self.settlement = settlement or Settlement()

    def admit(self, call):
        if self.denial:
            return self.denial
        if self.refuse:
            self.refuse -= 1
            return Defer(after_ms=500, reason="busy", counts_as_attempt=False)
        self.open.append(call)
        self.seen.append(call.downstream)
        return None

    def settle(self, call, report):
        self.open.remove(call)
        self.reports.append(report)
        return self.settlement if report.failure else Settlement()


def test_a_refusal_by_admission_is_no_attempt():
    """It is waited for as often as it takes, and the job's retries are untouched."""
    fleet = InlineFleet(model=ScriptedModel(["hi"]), gate=Admissions(refuse=30))
    job_id = fleet.enqueue(Ledger().agent(retry_config=RetryConfig(max_retries=0)), "hi")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert fleet.store.job(job_id).retries == 0
    assert len(fleet.trace(job_id)) == 31


@pytest.mark.parametrize("ends", [None, ToolError("no such order"), OSError("down")])
def test_whatever_was_admitted_is_settled(ends):
    """By success, by an answer that is an error, by a failure: a reservation that stays would starve the fleet."""

    @tool(downstream="shop")
    def buy(order: str) -> str:
        """Buy."""
        if ends:
            raise ends
        return "bought"

    gate = Admissions()
    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[buy])
    fleet = InlineFleet(model=ScriptedModel([call("buy", order="A"), FailureKind.OVERLOADED, "Done."]), gate=gate)
    fleet.run(fleet.enqueue(agent, "hi"))
    assert gate.seen == ["scripted:m-1", "shop", "scripted:m-1", "scripted:m-1"]
    assert gate.open == []
    assert [bool(report.usage) for report in gate.reports] == [True, False, False, True]
    assert gate.reports[2].failure.kind is FailureKind.OVERLOADED


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        pytest.param(REFUSED, "defer", id="given back, to be asked again"),
        pytest.param(FULL, "dead_letter", id="asked again at once"),
    ],
)
def test_a_reply_that_no_commit_follows_is_settled_all_the_same(reply, outcome):
    """Before the step is given back, and before it asks once more."""
    gate = Admissions()
    fleet = InlineFleet(model=ScriptedModel([reply, reply]), gate=gate)
    again = RetryConfig(retry_on=(FailureKind.REFUSED,))
    job_id = fleet.enqueue(Ledger().agent(retry_config=again), "hi")
    fleet.runner.run(fleet.published.popleft())
    assert fleet.trace(job_id)[0].outcome == outcome
    assert gate.reports
    assert gate.open == []


def test_a_defect_after_the_reply_leaves_nothing_reserved(monkeypatch):
    """The job ends with what was raised, and the coordinator has heard that its call went well."""
    gate = Admissions()
    fleet = InlineFleet(model=ScriptedModel(["Done."]), gate=gate)
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    monkeypatch.setattr(fleet.runner.services.estimator, "learn", None)
    assert fleet.run(job_id).failure.kind is FailureKind.INTERNAL
    assert [bool(report.usage) for report in gate.reports] == [True]
    assert gate.open == []


def test_a_lost_lease_leaves_nothing_reserved():
    """Another worker took the step while the model was asked: the work is dropped, its settlement is not."""

    def slowly(request):
        fleet.clock.advance(fleet.store.lease_ms + 1)
        vanish(fleet, job_id, "1")
        return "Done."

    gate = Admissions()
    fleet = InlineFleet(model=ScriptedModel([slowly]), gate=gate)
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    fleet.runner.run(fleet.published.popleft())
    assert fleet.trace(job_id) == []
    assert [bool(report.usage) for report in gate.reports] == [True]
    assert gate.open == []


def test_a_denial_by_admission_is_a_dead_letter_with_its_reason():
    """A budget that is used up, a spend cap: no waiting cures it, and the model is not asked."""
    denial = Failure(kind=FailureKind.BUDGET_EXCEEDED, detail="lineage_retry_budget: 11 retries on 1 calls")
    fleet = InlineFleet(model=ScriptedModel([]), gate=Admissions(denial=denial))
    result = fleet.run(fleet.enqueue(Ledger().agent(), "hi"))
    assert (result.status, result.failure) == (JobStatus.DEAD_LETTERED, denial)


def test_a_failure_that_is_the_downstreams_news_is_no_attempt_and_waits_until_it_opens():
    """A 429, a lost probe: tried again however few retries there are, not before the coordinator says so."""
    gate = Admissions(settlement=Settlement(closed_ms=20_000, why="paused", free=True))
    fleet = InlineFleet(model=ScriptedModel([FailureKind.RATE_LIMITED, "hi"]), gate=gate)
    job_id = fleet.enqueue(Ledger().agent(retry_config=RetryConfig(max_retries=0)), "hi")
    before_ms = fleet.clock.monotonic_ms()
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert fleet.store.job(job_id).retries == 0
    assert fleet.clock.monotonic_ms() - before_ms >= 20_000


def test_tokens_of_a_reply_that_was_not_acceptable_are_paid_for_all_the_same():
    """They count against the job's ceiling."""
    fleet = InlineFleet(model=ScriptedModel(["", "", ""]))
    result = fleet.run(fleet.enqueue(Ledger().agent(), "hi"))
    assert result.failure.kind is FailureKind.OUTPUT_INVALID
    assert result.usage.output_tokens == sum(record.usage.output_tokens for record in fleet.trace(result.job_id))
    assert result.usage.output_tokens == 3 * (result.usage.output_tokens // 3) > 0


def test_the_step_ceiling_ends_a_job_that_never_ends():
    """As a dead letter: a replay grants as many turns once more."""
    limits = RunLimits(max_steps=4)
    fleet = InlineFleet(model=ScriptedModel([call("charge", order=str(n)) for n in range(6)] + ["Done."]))
    job_id = fleet.enqueue(Ledger().agent(limits=limits), "hi")
    result = fleet.run(job_id)
    assert (result.status, result.steps) == (JobStatus.DEAD_LETTERED, 4)
    assert "step_limit: 4" in result.failure.detail
    assert fleet.operations.replay(job_id, max_steps=4)
    assert fleet.run(job_id).status is JobStatus.COMPLETED


def test_a_child_job_is_a_tool_call():
    """The parent waits without a worker and gets the child's output; a child that fails is an error it can read."""
    scout = Agent("scout", "scripted:m-1", "You scout.")
    chief = Agent("chief", "scripted:m-1", "You lead.", children=[scout])
    script = [
        [call("scout", input="north"), call("scout", input="south")],
        "Snow.",
        FailureKind.AUTH_ERROR,
        "North it is.",
    ]
    fleet = InlineFleet(chief, model=ScriptedModel(script))
    job_id = fleet.enqueue(chief, "where?")
    result = fleet.run(job_id)
    assert (result.status, result.output) == (JobStatus.COMPLETED, "North it is.")
    good, bad = results(fleet, job_id)
    assert good == "Snow."
    assert "auth_error" in bad
    assert fleet.store.job(job_id).children == 2
