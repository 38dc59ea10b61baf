"""What each field of each policy does: one probe a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch import Agent, ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.errors import SessionBusy
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.contract import Policy
from midwatch.schemas.message import NoteMessage
from midwatch.schemas.step import Defer, WaitOwner
from midwatch.testing import ManualClock, call
from tests.unit.field_stage import Broken, Play, Probe, differs, refused, shown_by
from tests.unit.longtalk import Talk, Talker, budget, clerk

LOOK_UP = [call("look_up"), call("look_up"), "Done."]


@tool(idempotent=True)
def look_up() -> str:
    """Find an order."""
    return "found"


@tool
def pay() -> str:
    """Pay for it."""
    return "paid"


def limited(*script: Any, tools: Any = (look_up,), **limits: Any) -> Play:
    """Play with these `RunLimits`."""
    return Play(*(script or LOOK_UP), tools=tools, limits=RunLimits(**limits))


def is_refused(**limits: Any) -> bool:
    """Is a call of these answered without running?"""
    return any(getattr(message, "refused", None) == "limit" for message in _messages(limited(**limits)))


def _messages(play: Play) -> tuple[Any, ...]:
    return play.fleet.messages(play.job_id)


def slow(work_s: float = 100.0, **limits: Any) -> str:
    """The status of a job whose tool works so long."""
    clock = ManualClock()

    @tool(idempotent=True, timeout_s=3_600, inline=True)
    def work() -> str:
        """Work."""
        clock.advance(int(work_s * 1_000))
        return "worked"

    play = Play(call("work"), call("work"), "Done.", tools=[work], clock=clock, limits=RunLimits(**limits))
    return str(play.result.status)


class Shut(OpenGate):
    """A gate that admits no call in the first 100 s."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.opens_ms = clock, clock.monotonic_ms() + 100_000

    def admit(self, call: Call) -> Defer | None:
        """See `ports.Gate`."""
        left_ms = self.opens_ms - self.clock.monotonic_ms()
        if left_ms <= 0:
            return None
        return Defer(
            after_ms=left_ms, reason="shut", counts_as_attempt=False, owner=WaitOwner.DOWNSTREAM, downstream="shop"
        )


def held(**limits: Any) -> str:
    """The status of a job that a downstream holds for 100 s."""
    clock = ManualClock()
    return str(Play("Done.", clock=clock, gate=Shut(clock), limits=RunLimits(**limits)).result.status)


def answered(**rule: Any) -> str:
    """The status of a job whose question nobody answers."""
    rules = [Escalation("tool_approval", **rule)]
    play = Play(call("pay"), "Done.", tools=[pay], escalation=rules)
    assert play.result.status == "parked"
    play.clock.advance(61_000)
    return str(play.fleet.run(play.job_id).status)


def starts_children(**limits: Any) -> bool:
    """May an agent with these limits start a child?"""
    child = Agent("child", "scripted:m-1", "You help.")
    play = Play(call("child", input="Go."), "Done.", children=[child], limits=RunLimits(**limits))
    return not any(getattr(message, "refused", None) == "limit" for message in _messages(play))


def what_a_busy_session_does(policy: str) -> str:
    """What happens to a second job of a session that runs a job."""
    play = Play("Done.", limits=RunLimits(on_busy=policy))
    first = play.fleet.enqueue(play.agent, "First.", session_id="s2")
    try:
        play.fleet.enqueue(play.agent, "Second.", session_id="s2")
    except SessionBusy:
        return "rejected"
    return str(play.fleet.store.job(first).status)


def first_memory(**fields: Any) -> int:
    """The number of the first request with a memory. No compaction runs beside the job."""
    talk = Talk(clerk(context_budget=budget(**fields)), Talker(14), in_background=False)
    talk.run()
    return next(at for at, one in enumerate(talk.model.requests) if isinstance(one.messages[0], NoteMessage))


def first_request_of_a_compaction(**fields: Any) -> str:
    """The step that first requested a compaction beside the job."""
    talk = Talk(clerk(context_budget=budget(**fields)), Talker(14))
    talk.run()
    return talk.asked[0]


def live_messages(**fields: Any) -> int:
    """The number of messages in the first request with a memory."""
    talk = Talk(clerk(context_budget=budget(**fields)), Talker(14))
    talk.run()
    return next(len(one.messages) for one in talk.model.requests if isinstance(one.messages[0], NoteMessage))


def overflow(value: str) -> tuple[str, int]:
    """How a long job ends, and how often it was compacted."""
    talk = Talk(clerk(context_budget=budget(on_overflow=value)), Talker(20))
    return str(talk.run().status), talk.compactions


def summaries(model: str | None) -> int:
    """The number of calls of the summarizer."""
    talk = Talk(clerk(context_budget=budget(summary_model=model)), Talker(14))
    talk.model.summarize = lambda request: talk.model.reply(request, [])
    talk.run()
    return len(talk.model.summaries)


def declares(model: str, **policy: Any) -> bool:
    """Is an agent of this model accepted with this `ModelPolicy`?"""
    try:
        return bool(Agent("clerk", model, "You help.", model_policy=ModelPolicy(**policy)))
    except ValueError:
        return False


def parks(**rule: Any) -> bool:
    """Is a job parked that calls `pay`, with this `Escalation`?"""
    play = Play(call("pay"), "Done.", tools=[pay, look_up], escalation=[Escalation(**rule)])
    return play.result.status == "parked"


def system(**goal: Any) -> str:
    """The system prompt with this `GoalContract`."""
    return Play("Done.", goal=GoalContract(**{"objective": "Win.", **goal})).request.system


def _exceeds_tokens(**limits: Any) -> None:
    assert limited(**limits).result.failure is not None


def _waits(**config: Any) -> list[float]:
    return Broken().waits_s(**config)


def _is_fatal(kinds: list[str]) -> str:
    return str(Broken().play(retry_on=[], fail_hard_on=kinds).result.status)


LETTERS = "tests/unit/test_letter_cause.py"

PROBES: Mapping[type[Policy], Mapping[str, Probe]] = {
    RetryConfig: {
        "max_retries": differs(lambda n: len(_waits(max_retries=n)), 1, 3),
        "backoff_factor": differs(lambda n: _waits(backoff_factor=n), 2.0, 3.0),
        "base_s": differs(lambda n: _waits(base_s=n), 1.0, 2.0),
        "cap_s": differs(lambda n: _waits(cap_s=n), 60.0, 1.5),
        "jitter": differs(lambda value: _waits(jitter=value), "none", "full"),
        "retry_on": differs(lambda kinds: len(_waits(retry_on=kinds)), ["tool_error"], ["overloaded"]),
        "fail_hard_on": differs(_is_fatal, [], ["tool_error"]),
        "redrive": shown_by(f"{LETTERS}::test_letter_is_not_redriven_by_default"),
        "max_redrives": shown_by(f"{LETTERS}::test_policy_of_a_tool_decides_for_its_failures"),
    },
    ContextBudget: {
        "max_tokens": differs(lambda n: first_memory(max_tokens=n), 6_000, 7_000),
        "on_overflow": differs(overflow, "summarize_and_trim", "fail"),
        "act_at": differs(lambda share: first_request_of_a_compaction(act_at=share), 0.55, 0.8),
        "wait_at": differs(lambda share: first_memory(wait_at=share), 0.80, 1.0),
        "shrink_to": differs(lambda share: live_messages(shrink_to=share), 0.3, 0.7),
        "reserve_output": differs(lambda n: first_memory(reserve_output=n), 500, 1_500),
        "summary_model": differs(summaries, None, "scripted:s-1"),
        "pin": differs(lambda texts: clerk(context_budget=budget(pin=texts)).system, (), ("EUR",)),
    },
    RunLimits: {
        "max_steps": differs(lambda n: str(limited(max_steps=n).result.status), 2, 3),
        "session_timeout_s": differs(lambda n: slow(session_timeout_s=n), 50.0, 1_000.0),
        "max_tool_calls": differs(lambda n: is_refused(max_tool_calls=n), 1, {"look_up": 2}),
        "max_input_tokens": differs(lambda n: str(limited(max_input_tokens=n).result.status), 150, 100_000),
        "max_output_tokens": differs(lambda n: str(limited(max_output_tokens=n).result.status), 30, 1_000_000),
        "max_cost_usd": refused(lambda: RunLimits(max_cost_usd=1.0), "not built yet"),
        "max_children": differs(lambda n: starts_children(max_children=n), 0, 1),
        "max_depth": differs(lambda n: starts_children(max_depth=n), 0, 1),
        "call_timeout_s": differs(lambda n: limited(call_timeout_s=n).request.timeout_s, 10.0, 20.0),
        "max_wait_s": differs(lambda n: held(max_wait_s=n), 50.0, 1_000.0),
        "deadline_s": differs(lambda n: held(deadline_s=n), 50.0, 1_000.0),
        "on_busy": differs(what_a_busy_session_does, "enqueue", "reject"),
    },
    ModelPolicy: {
        "allow_alias": differs(lambda value: declares("gpt-5", allow_alias=value), False, True),
        "on_change": refused(lambda: ModelPolicy(on_change="warn"), "not built yet"),
        "on_version_change": refused(lambda: ModelPolicy(on_version_change="adopt"), "not built yet"),
        "allow_retired": differs(
            lambda value: declares("claude-3-5-sonnet-20241022", allow_retired=value), False, True
        ),
    },
    Escalation: {
        "when": differs(lambda value: parks(when=value), "tool_approval", "unknown_effect"),
        "tools": differs(lambda names: parks(when="tool_approval", tools=names), ["pay"], ["look_up"]),
        "expires_s": differs(lambda n: answered(expires_s=n), None, 60.0),
        "on_expiry": differs(lambda value: answered(expires_s=60.0, on_expiry=value), "reject", "dead_letter"),
        "share": refused(lambda: Escalation("tool_approval", share=0.5), "not built yet"),
        "risk": refused(lambda: Escalation("tool_approval", risk="high"), "not built yet"),
    },
    GoalContract: {
        "objective": differs(lambda text: system(objective=text), "Win.", "Draw."),
        "deliverables": differs(lambda texts: system(deliverables=texts), [], ["A report."]),
        "constraints": differs(lambda texts: system(constraints=texts), [], ["No refunds."]),
    },
}
