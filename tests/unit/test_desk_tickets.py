"""A seed gives the same tickets, and the checker finds what is missing, done twice or wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from midwatch.orchestration.client.job_result import JobResult
from midwatch.schemas.job import JobStatus
from midwatch.workers.demo.desk.desk import ServiceFaults
from midwatch.workers.demo.desk.kinds import KINDS
from midwatch.workers.demo.desk.tickets import MAX_TICKETS, CheckReport, Ticket, check, make_tickets, open_desk

SEED = 7


class Work:
    """A desk where every ticket has its expected outcome, except for the test's changes."""

    def __init__(self, path: Path, skip: tuple[str, str] = ("", "")) -> None:
        self.tickets = make_tickets(22, SEED)
        self.desk = open_desk(path, self.tickets, SEED, ServiceFaults(slow_ms=0))
        self.results: dict[str, JobResult | None] = {}
        for ticket in self.tickets:
            for kind, ref, cents in ticket.effects:
                if (ticket.id, kind) != skip:
                    self.apply(ticket, kind, ref, cents)
            self.results[ticket.id] = ended(ticket, JobStatus.COMPLETED)

    def apply(self, ticket: Ticket, kind: str, ref: str, cents: int, key: str = "") -> None:
        key = key or f"{ticket.id} {kind}"
        if kind == "refund":
            self.desk.issue_refund(key=key, ticket=ticket.id, order=ref, amount_cents=cents)
        elif kind == "address":
            street, town, postcode = ticket.expected.address
            self.desk.change_address(key=key, ticket=ticket.id, order=ref, street=street, town=town, postcode=postcode)
        elif kind == "escalation":
            self.desk.escalate(key=key, ticket=ticket.id, team=ref, priority="normal", summary="Please.")
        else:
            self.desk.reply_and_close(key=key, ticket=ticket.id, reply="Done.", cites=[ticket.expected.cites])

    def check(self) -> CheckReport:
        return check(self.desk, self.tickets, self.results)

    def refunded(self) -> Ticket:
        return next(ticket for ticket in self.tickets if ticket.expected.refund_cents)


def ended(ticket: Ticket, status: JobStatus) -> JobResult:
    output = json.dumps({"ticket": ticket.id, "resolution": ticket.expected.resolution})
    return JobResult(job_id=ticket.id, session_id=ticket.id, status=status, output=output)


def test_tickets_are_made_from_a_seed() -> None:
    """The same seed gives the same tickets, and a longer list begins with them. Another seed gives other tickets."""
    assert make_tickets(30, SEED) == make_tickets(60, SEED)[:30]
    assert make_tickets(30, SEED) != make_tickets(30, SEED + 1)


def test_all_kinds_and_endings_occur() -> None:
    """A few hundred tickets have every kind, every resolution, and letters that don't name their order."""
    tickets = make_tickets(330, SEED)
    assert {ticket.kind for ticket in tickets} == {*KINDS, "how_to", "follow_up"}
    assert {ticket.expected.resolution for ticket in tickets} == {
        "refunded", "address_changed", "answered", "declined", "escalated"
    }  # fmt: skip
    unnamed = [ticket for ticket in tickets if ticket.order and ticket.order not in ticket.body]
    assert len(unnamed) > 30
    assert not any("{" in ticket.body for ticket in tickets)


def test_no_order_is_moved_to_two_addresses() -> None:
    """With the maximum of tickets each order moves at most once. `make_tickets` refuses more tickets."""
    moved = [ticket.order for ticket in make_tickets(MAX_TICKETS, SEED) if ticket.expected.address]
    assert len(set(moved)) == len(moved)
    with pytest.raises(ValueError, match=f"expected 0 to {MAX_TICKETS} tickets, got {MAX_TICKETS + 1}"):
        make_tickets(MAX_TICKETS + 1, SEED)


def test_good_work_passes(tmp_path: Path) -> None:
    """If all outcomes are right, the report has no faults and counts every ticket as solved."""
    work = Work(tmp_path / "desk")
    assert work.check() == CheckReport(solved=22, lost=(), duplicate_effects=(), wrong=())
    assert work.check().ok


def test_a_planted_duplicate_is_found(tmp_path: Path) -> None:
    """A refund that is paid again with another key is reported once as a duplicate."""
    work = Work(tmp_path / "desk")
    ticket = work.refunded()
    work.apply(ticket, "refund", ticket.order, ticket.expected.refund_cents, key="another key")
    report = work.check()
    assert [(found.ticket, found.kind, found.times) for found in report.duplicate_effects] == [(ticket.id, "refund", 2)]
    assert not report.ok
    assert report.wrong == ()


def test_a_planted_missing_effect_is_found(tmp_path: Path) -> None:
    """A job that answers `refunded` without a refund is wrong. The report names the missing effect."""
    ticket = Work(tmp_path / "whole").refunded()
    report = Work(tmp_path / "desk", skip=(ticket.id, "refund")).check()
    assert not report.ok
    (sentence,) = report.wrong
    assert sentence.startswith(f"{ticket.id} ({ticket.kind}): expected effects")
    assert f"('refund', '{ticket.order}', {ticket.expected.refund_cents})" in sentence


def test_wrong_amounts_addresses_and_words_are_found(tmp_path: Path) -> None:
    """An extra refund, a wrong address, a reply without its source and an invalid answer are all reported."""
    work = Work(tmp_path / "desk")
    moved = next(ticket for ticket in work.tickets if ticket.expected.address)
    cited = next(ticket for ticket in work.tickets if ticket.expected.cites)
    other = next(ticket for ticket in work.tickets if ticket.kind == "warranty")
    silent = next(ticket for ticket in work.tickets if ticket.kind == "complaint")
    work.desk.change_address(key="k1", ticket=moved.id, order=moved.order, street="1 X", town="Y", postcode="1234")
    work.desk.reply_and_close(key="k2", ticket=cited.id, reply="Because.", cites=[])
    work.desk.issue_refund(key="k3", ticket=other.id, order=other.order, amount_cents=5)
    work.results[silent.id] = ended(silent, JobStatus.COMPLETED).model_copy(update={"output_or_none": "done!"})
    report = work.check()
    assert {sentence.split()[0] for sentence in report.wrong} == {moved.id, cited.id, other.id, silent.id}
    assert report.solved == 18


def test_a_job_without_an_ending_is_lost(tmp_path: Path) -> None:
    """A job without a result or still running is lost. A dead letter or a parked job is set aside for a human."""
    work = Work(tmp_path / "desk")
    first, second, third, fourth = work.tickets[:4]
    work.results[first.id] = None
    work.results[second.id] = ended(second, JobStatus.RUNNING)
    work.results[third.id] = ended(third, JobStatus.DEAD_LETTERED)
    work.results[fourth.id] = ended(fourth, JobStatus.PARKED)
    report = work.check()
    assert report.lost == (first.id, second.id)
    assert report.set_aside == (third.id, fourth.id)
    assert report.solved == 18
    assert not report.ok
