"""One step from its claim to its end, where something fails.

Every failure has its outcome, and none leaves the step as an exception.
"""

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
    """Let another worker claim the step and vanish."""
    fleet.store.claim(step_of(fleet, job_id, step), "a worker that dies")
    fleet.clock.advance(fleet.store.lease_ms + 1)


def run_until(fleet, job_id, step):
    """Run steps until the next one is `step`."""
    while (ref := fleet.published[0]).step != step:
        fleet.published.popleft()
        fleet.runner.run(ref)


# --- unexpected errors


def test_an_unexpected_error_of_a_provider_is_a_dead_letter():
    """The letter names the exception's class. No exception leaves the step, and the reservation is settled."""

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


def test_an_approval_rule_that_raises_asks_a_human():
    """The tool does not run before a human has approved the call."""
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


def test_only_an_unavailable_store_raises_above_the_step():
    """The step stays owed, because the store and not the message says what must run."""
    fleet = InlineFleet(model=ScriptedModel(["hi"]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")

    def away(*args):
        raise StoreUnavailable("Redis is away")

    fleet.store.finish = away
    with pytest.raises(StoreUnavailable):
        fleet.run(job_id)
    assert fleet.store.job(job_id).status is JobStatus.RUNNING


def test_a_step_of_an_unknown_agent_is_deferred():
    """A rolling deployment may take minutes. After that the step becomes a dead letter that says what to do."""
    fleet = InlineFleet(model=ScriptedModel([]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    fleet.runner.services.agents._agents.clear()
    result = fleet.run(job_id)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.INTERNAL)
    assert "MIDWATCH_AGENTS" in result.failure.detail
    assert [record.outcome for record in fleet.trace(job_id)] == ["defer"] * 5 + ["dead_letter"]


def test_a_cancelled_job_ends_even_if_its_agent_is_unknown():
    """The ending needs nothing of the agent."""
    fleet = InlineFleet(model=ScriptedModel([]))
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    fleet.runner.services.agents._agents.clear()
    fleet.runner.run(fleet.published.popleft())
    fleet.operations.cancel(job_id)
    assert fleet.run(job_id).status is JobStatus.CANCELLED


# --- a human's decision


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
def test_a_humans_text_is_not_read_as_protocol(words):
    """A call that never ran is recorded as such, even if the human's reason begins like the runtime's own text."""
    ledger = Ledger()
    agent = ledger.agent(escalation=[Escalation(when="tool_approval")])
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "As you say."]))
    job_id = fleet.enqueue(agent, "hi")
    fleet.run(job_id)
    fleet.operations.decide(job_id, approve=False, reason=words)
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [f"A human rejected this call: {words}"])
    assert [record.effect for record in fleet.trace(job_id) if record.step == "1.0" and record.effect] == ["none"]


def test_a_tools_text_is_not_read_as_protocol():
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
    """The model reads that the outcome is unknown, because no worker can know it."""
    ledger = Ledger()
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "I will check."]))
    job_id = fleet.enqueue(ledger.agent(), "hi")
    run_until(fleet, job_id, "1.0")
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [UNKNOWN_EFFECT])


def test_an_approval_is_valid_for_one_try():
    """An approved call began and its worker vanished.

    It may have had an effect, so the old approval does not allow a second run.
    """
    ledger = Ledger()
    agent = ledger.agent(escalation=[Escalation(when="tool_approval")])
    fleet = InlineFleet(model=ScriptedModel([call("charge", order="A"), "I will check."]))
    job_id = fleet.enqueue(agent, "hi")
    assert fleet.run(job_id).status is JobStatus.PARKED
    fleet.operations.decide(job_id, approve=True)
    vanish(fleet, job_id, "1.0")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert (ledger.did, results(fleet, job_id)) == ([], [UNKNOWN_EFFECT])


def test_a_human_may_approve_another_run_of_an_unknown_effect():
    """With an escalation for unknown effects the call is parked. Once approved, it runs once."""
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


def test_workers_without_the_agent_remember_that_a_step_had_begun():
    """In a rolling deployment, a worker dies in the tool, a worker without the agent defers it, and one with it takes over."""
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


def test_inline_calls_renew_their_own_leases():
    """The turn's row is deleted by its commit, so each call is renewed, also while it waits for its turn."""
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


def test_a_failed_repeatable_inline_call_becomes_a_separate_task():
    """The other inline calls are committed. The job goes on when the failed call has succeeded."""
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
    """A gate that stores what it admitted and which reports it got. It refuses as often as a test says."""

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


def test_a_refusal_by_admission_is_not_an_attempt():
    """The step waits as often as needed, and the job's retries stay unused."""
    fleet = InlineFleet(model=ScriptedModel(["hi"]), gate=Admissions(refuse=30))
    job_id = fleet.enqueue(Ledger().agent(retry_config=RetryConfig(max_retries=0)), "hi")
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert fleet.store.job(job_id).retries == 0
    assert len(fleet.trace(job_id)) == 31


@pytest.mark.parametrize("ends", [None, ToolError("no such order"), OSError("down")])
def test_every_admitted_call_is_settled(ends):
    """The result may be a success, an error or a failure. A reservation that stays would leave the fleet without tokens."""

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
def test_a_reply_without_a_commit_is_settled(reply, outcome):
    """The call is settled before the step is deferred, and before the model is called again."""
    gate = Admissions()
    fleet = InlineFleet(model=ScriptedModel([reply, reply]), gate=gate)
    again = RetryConfig(retry_on=(FailureKind.REFUSED,))
    job_id = fleet.enqueue(Ledger().agent(retry_config=again), "hi")
    fleet.runner.run(fleet.published.popleft())
    assert fleet.trace(job_id)[0].outcome == outcome
    assert gate.reports
    assert gate.open == []


def test_an_error_after_the_reply_leaves_nothing_reserved(monkeypatch):
    """The job ends with the exception's class, and the coordinator gets a report of a successful call."""
    gate = Admissions()
    fleet = InlineFleet(model=ScriptedModel(["Done."]), gate=gate)
    job_id = fleet.enqueue(Ledger().agent(), "hi")
    monkeypatch.setattr(fleet.runner.services.estimator, "learn", None)
    assert fleet.run(job_id).failure.kind is FailureKind.INTERNAL
    assert [bool(report.usage) for report in gate.reports] == [True]
    assert gate.open == []


def test_a_lost_lease_leaves_nothing_reserved():
    """Another worker took the step during the model call. The reply is dropped, and its call is settled."""

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
    """After a used-up budget or a spend cap no wait would help, and the model is not called."""
    denial = Failure(kind=FailureKind.BUDGET_EXCEEDED, detail="lineage_retry_budget: 11 retries on 1 calls")
    fleet = InlineFleet(model=ScriptedModel([]), gate=Admissions(denial=denial))
    result = fleet.run(fleet.enqueue(Ledger().agent(), "hi"))
    assert (result.status, result.failure) == (JobStatus.DEAD_LETTERED, denial)


def test_a_failure_of_the_downstream_is_no_attempt_and_waits():
    """A 429 or a lost probe is retried, however few retries are left, but not before the time that the coordinator names."""
    gate = Admissions(settlement=Settlement(closed_ms=20_000, why="paused", free=True))
    fleet = InlineFleet(model=ScriptedModel([FailureKind.RATE_LIMITED, "hi"]), gate=gate)
    job_id = fleet.enqueue(Ledger().agent(retry_config=RetryConfig(max_retries=0)), "hi")
    before_ms = fleet.clock.monotonic_ms()
    assert fleet.run(job_id).status is JobStatus.COMPLETED
    assert fleet.store.job(job_id).retries == 0
    assert fleet.clock.monotonic_ms() - before_ms >= 20_000


def test_tokens_of_an_unusable_reply_are_counted():
    """Tokens of an unusable reply count against the job's ceiling."""
    fleet = InlineFleet(model=ScriptedModel(["", "", ""]))
    result = fleet.run(fleet.enqueue(Ledger().agent(), "hi"))
    assert result.failure.kind is FailureKind.OUTPUT_INVALID
    assert result.usage.output_tokens == sum(record.usage.output_tokens for record in fleet.trace(result.job_id))
    assert result.usage.output_tokens == 3 * (result.usage.output_tokens // 3) > 0


def test_the_step_ceiling_ends_a_job_that_never_ends():
    """The job becomes a dead letter. A replay grants the same number of turns again."""
    limits = RunLimits(max_steps=4)
    fleet = InlineFleet(model=ScriptedModel([call("charge", order=str(n)) for n in range(6)] + ["Done."]))
    job_id = fleet.enqueue(Ledger().agent(limits=limits), "hi")
    result = fleet.run(job_id)
    assert (result.status, result.steps) == (JobStatus.DEAD_LETTERED, 4)
    assert "step_limit: 4" in result.failure.detail
    assert fleet.operations.replay(job_id, max_steps=4)
    assert fleet.run(job_id).status is JobStatus.COMPLETED


def test_a_child_job_is_a_tool_call():
    """The parent waits without a worker and gets the child's output. A failed child gives an error that the model can read."""
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
