"""The desk's brain, run in this process. Its calls are validated and run as in the fleet, without HTTP or Redis."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from midwatch import ToolContext, ToolError
from midwatch.orchestration.client.job_result import JobResult
from midwatch.orchestration.errors import ToolFailed
from midwatch.orchestration.tools.run import run_tool
from midwatch.orchestration.tools.toolbox import RefusedCall, Toolbox, idempotency_key
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolCall
from midwatch.workers.demo.desk.agents import TOOLS, Resolution
from midwatch.workers.demo.desk.brain import solve
from midwatch.workers.demo.desk.case import MAX_CALLS
from midwatch.workers.demo.desk.tickets import CheckReport, Ticket, check, make_tickets, open_desk
from midwatch.workers.simulator.brains.brain import Answer, Conversation, ConversationTurn, Say, SimulatedCall

SEED = 23
TOOLBOX = Toolbox(TOOLS)
Spoil = Callable[[int, str, JsonObject], JsonObject]


def keep_arguments(turn: int, tool: str, arguments: JsonObject) -> JsonObject:
    return arguments


class Office:
    """A minimal fleet: a loop that calls the brain and runs its tool calls, without retries."""

    def __init__(self, path: Path, tickets: list[Ticket]) -> None:
        self.tickets = tickets
        self.desk = open_desk(path, tickets, SEED)
        self.talks: dict[str, list[ConversationTurn]] = {}
        self.results: dict[str, JobResult | None] = {}

    def work(self, spoil: Spoil = keep_arguments) -> CheckReport:
        for ticket in self.tickets:
            output = self.talk(ticket, spoil)
            Resolution.model_validate_json(output)
            done = JobResult(job_id=ticket.id, session_id=ticket.id, status=JobStatus.COMPLETED, output=output)
            self.results[ticket.id] = done
        return check(self.desk, self.tickets, self.results)

    def talk(self, ticket: Ticket, spoil: Spoil) -> str:
        turns = self.talks[ticket.id] = [ConversationTurn("user", ticket.input)]
        for number in range(1, 60):
            answer = ask(turns)
            if isinstance(answer, Say):
                return answer.text
            written = [(tool, spoil(number, tool, dict(as_object(arguments)))) for tool, arguments in answer.calls]
            calls = tuple(SimulatedCall("same id", tool, json.dumps(arguments)) for tool, arguments in written)
            turns.append(ConversationTurn("assistant", answer.text, calls))
            turns += [result(ticket.id, f"{number}.{place}", call) for place, call in enumerate(calls)]
        raise AssertionError(f"{ticket.id}: no end after 60 turns")

    def model_turns(self, ticket: Ticket) -> int:
        return 1 + sum(turn.role == "assistant" for turn in self.talks[ticket.id])


def ask(turns: list[ConversationTurn]) -> Answer:
    conversation = Conversation("openai-chat", "desk", "", tuple(turns))
    answer = solve(conversation)
    assert answer == solve(conversation), "the same conversation got two answers"
    return answer


def as_object(arguments: Mapping[str, object] | str) -> Mapping[str, object]:
    assert not isinstance(arguments, str)
    return arguments


def result(job: str, step: str, call: SimulatedCall) -> ConversationTurn:
    checked = TOOLBOX.check(ToolCall(id=call.id, name=call.name, raw_arguments=call.arguments))
    if isinstance(checked, RefusedCall):
        return ConversationTurn("tool", checked.message, call=call, is_error=True)
    context = ToolContext(
        job_id=job,
        step_id=step,
        session_id=job,
        tenant=None,
        idempotency_key=idempotency_key(job, step, call.name, checked.arguments),
        attempt=0,
        timeout_s=checked.tool.timeout_s,
        is_cancelled=lambda: False,
        keep=lambda name, body: name,
    )
    try:
        return ConversationTurn("tool", run_tool(checked.tool, checked.arguments, context).content, call=call)
    except ToolError as error:
        return ConversationTurn("tool", f"Error: {error}", call=call, is_error=True)
    except ToolFailed as error:
        return ConversationTurn("tool", f"Error: {error.failure.detail}", call=call, is_error=True)


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office(tmp_path / "desk.sqlite3", make_tickets(110, SEED))
    monkeypatch.setenv("MIDWATCH_DEMO_DB", str(office.desk.path))
    monkeypatch.setenv("MIDWATCH_DEMO_SLOW_MS", "0")
    return office


def test_every_kind_of_ticket_is_solved(office: Office) -> None:
    """Ten tickets of each kind reach their expected outcome in four to ten model turns, with parallel calls."""
    assert office.work() == CheckReport(solved=110, lost=(), duplicate_effects=(), wrong=())
    assert {office.model_turns(ticket) for ticket in office.tickets} <= set(range(4, 11))
    named = [talk for talk in office.talks.values() if "get_order" in tools(talk)[:2]]
    assert named
    assert all(any(len(turn.calls) > 1 for turn in talk) for talk in named)


def test_a_refused_call_is_made_again_at_once(office: Office) -> None:
    """In every second turn the calls lack a property. They are refused, and the next turn corrects them."""
    refused = set()

    def forgetful(turn: int, tool: str, arguments: JsonObject) -> JsonObject:
        if turn % 2:
            return arguments
        refused.add(tool)
        return dict(list(arguments.items())[1:])

    report = office.work(forgetful)
    assert report.ok, report
    assert report.solved == 110
    assert {"issue_refund", "change_address", "escalate", "reply_and_close", "search_knowledge"} <= refused
    for talk in office.talks.values():
        calls = [turn.calls for turn in talk if turn.calls]
        answered = [turn for turn in talk if turn.role == "tool"]
        failed = [turn.call for turn in answered if turn.is_error]
        assert all(call and call.name in [again.name for again in after(calls, call)] for call in failed)


def after(turns: list[tuple[SimulatedCall, ...]], call: SimulatedCall) -> tuple[SimulatedCall, ...]:
    """Return the calls of the turn after the turn with this call."""
    number = next(number for number, calls in enumerate(turns) if any(one is call for one in calls))
    return turns[number + 1]


def tools(talk: list[ConversationTurn]) -> list[str]:
    return [call.name for turn in talk for call in turn.calls]


def test_a_failed_write_is_checked_before_it_is_repeated(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services fail or lose their answers seven times in ten, and there are no retries below. Nothing is done twice.

    Every try of the model is a call with a new key, so only a check before the next try prevents a duplicate.
    """
    monkeypatch.setenv("MIDWATCH_DEMO_FLAKY", "0.7")
    report = office.work()
    assert report.duplicate_effects == ()
    assert report.solved == 110
    looked = [talk for talk in office.talks.values() if tools(talk).count("get_order") > 1]
    assert len(looked) > 10


def test_a_ticket_that_cant_be_solved_goes_to_the_lead(office: Office) -> None:
    """If refunds always fail, their tickets go to the lead after a bounded number of tries. The others are solved."""
    with sqlite3.connect(office.desk.path) as db:
        db.execute(
            "CREATE TRIGGER down BEFORE INSERT ON effects WHEN NEW.kind = 'refund' "
            "BEGIN SELECT RAISE(ABORT, 'the payment service is down for good'); END"
        )
    db.close()
    report = office.work()
    due = [ticket for ticket in office.tickets if ticket.expected.refund_cents]
    assert len(report.wrong) == len(due) == 110 - report.solved
    for ticket in due:
        assert [(effect.kind, effect.ref) for effect in office.desk.effects(ticket.id)] == [("escalation", "lead")]
        assert tools(office.talks[ticket.id]).count("issue_refund") == MAX_CALLS


def test_a_compacted_result_is_read_again(office: Office) -> None:
    """If compaction replaced a result by a stub, the brain makes the call again."""
    ticket = office.tickets[0]
    call = SimulatedCall("id", "get_ticket", json.dumps({"ticket": ticket.id}))
    turns = [
        ConversationTurn("user", ticket.input),
        ConversationTurn("assistant", calls=(call,)),
        ConversationTurn("tool", "[result dropped]", call=call),
    ]
    answer = ask(turns)
    assert not isinstance(answer, Say)
    assert answer == ask(turns[:1])


def test_a_missing_ticket_is_read_only_once(office: Office) -> None:
    """A ticket that does not exist goes to the lead after one read. If even that is refused, the job still ends."""
    output = office.talk(Ticket("T-9999", "", "", "", "", "", office.tickets[0].expected), keep_arguments)
    assert json.loads(output) == {"ticket": "T-9999", "resolution": "unfinished", "refund_cents": 0, "team": ""}
    assert tools(office.talks["T-9999"]) == ["get_ticket", "escalate"]


def test_a_message_without_a_ticket_gets_a_question() -> None:
    """The brain asks which ticket is meant."""
    answer = ask([ConversationTurn("user", "Hello?")])
    assert isinstance(answer, Say)
    assert "Which ticket?" in answer.text
