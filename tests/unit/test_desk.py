"""The desk of the demo: the same for everybody, and every effect once for its key."""

from __future__ import annotations

import sqlite3
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from operator import methodcaller
from pathlib import Path

import pytest

from midwatch.workers.demo.desk.data import CUSTOMERS, KNOWLEDGE, ORDERS, shop
from midwatch.workers.demo.desk.desk import MAX_STRIKES, Desk, DeskError, Effect, ServiceDown, ServiceFaults
from midwatch.workers.demo.desk.tickets import Ticket, make_tickets, open_desk

SEED = 11
AT_ONCE = ServiceFaults(slow_ms=0)


@pytest.fixture(scope="module")
def tickets() -> list[Ticket]:
    return make_tickets(22, SEED)


@pytest.fixture
def desk(tmp_path: Path, tickets: list[Ticket]) -> Desk:
    return open_desk(tmp_path / "desk.sqlite3", tickets, SEED, AT_ONCE)


def about(tickets: list[Ticket], kind: str) -> Ticket:
    return next(ticket for ticket in tickets if ticket.kind == kind)


def dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        lines = list(db.iterdump())
    db.close()
    return lines


def test_a_seed_makes_one_desk(tmp_path: Path) -> None:
    """The same seed gives the same file, row for row; another seed gives another."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        open_desk(tmp_path / name, make_tickets(40, seed), seed)
    assert dump(tmp_path / "a") == dump(tmp_path / "b") != dump(tmp_path / "c")


def test_the_shop_is_complete() -> None:
    """300 customers, 800 orders, 40 articles; no id and no address twice, no figure left open in an article."""
    world = shop(SEED)
    assert (len(world.customers), len(world.orders), len(world.articles)) == (CUSTOMERS, ORDERS, 40)
    for ids in ([c.email for c in world.customers], [o.id for o in world.orders], [a.id for a in world.articles]):
        assert len(set(ids)) == len(ids)
    assert not any("{" in article.body or not article.body for article in world.articles)


def test_every_question_finds_its_article(desk: Desk) -> None:
    """A customer's question brings the page that answers it first, and a policy is found by its name."""
    for article in KNOWLEDGE:
        asked = article.question or article.title.lower().replace(":", "")
        assert desk.search_knowledge(asked, 1)[0]["id"] == article.id, asked


def test_what_is_not_there_is_said_so(desk: Desk, tmp_path: Path) -> None:
    """An unknown id and a missing file are errors that say what to do; a search just finds nothing."""
    for look_up, name in ((desk.order, "O-000000"), (desk.ticket, "T-0000"), (desk.customer, "nobody@example.net")):
        with pytest.raises(DeskError, match=f"{name}.*check the spelling"):
            look_up(name)
    assert desk.search_knowledge("zzz") == desk.search_tickets("zzz") == []
    with pytest.raises(DeskError, match=r"expected a desk at .*nowhere.*midwatch demo"):
        Desk(tmp_path / "nowhere").ticket("T-0001")


def test_a_key_works_once(desk: Desk, tickets: list[Ticket]) -> None:
    """The same key gets the first result back and adds no effect, for each of the four writes."""
    paid, moved = about(tickets, "wrong_item"), next(t for t in tickets if t.expected.address)
    street, town, postcode = moved.expected.address
    writes = (
        methodcaller("issue_refund", key="k1", ticket=paid.id, order=paid.order, amount_cents=100),
        methodcaller(
            "change_address", key="k2", ticket=moved.id, order=moved.order, street=street, town=town, postcode=postcode
        ),
        methodcaller("escalate", key="k3", ticket=moved.id, team="lead", priority="high", summary="Look."),
        methodcaller("reply_and_close", key="k4", ticket=paid.id, reply="Done.", cites=["KB-03"]),
    )
    first = [write(desk) for write in writes]
    assert [write(desk) for write in writes] == first == desk.effects()
    assert [effect.kind for effect in first] == ["refund", "address", "escalation", "close"]
    assert desk.order(paid.order)["refunds"] == [{"ticket": paid.id, "amount_cents": 100}]
    assert desk.order(moved.order)["street"] == street
    assert (desk.ticket(moved.id)["status"], desk.ticket(moved.id)["team"]) == ("escalated", "lead")
    assert (desk.ticket(paid.id)["status"], desk.ticket(paid.id)["cites"]) == ("closed", ["KB-03"])


def test_a_key_is_for_one_call(desk: Desk, tickets: list[Ticket]) -> None:
    """A key that comes back with other arguments is refused, and a write without a key too."""
    one, other = about(tickets, "wrong_item"), about(tickets, "return")
    desk.issue_refund(key="k", ticket=one.id, order=one.order, amount_cents=100)
    with pytest.raises(DeskError, match="a key is for one call"):
        desk.issue_refund(key="k", ticket=other.id, order=other.order, amount_cents=100)
    with pytest.raises(DeskError, match="expected an idempotency key"):
        desk.reply_and_close(key="", ticket=one.id, reply="Done.", cites=[])
    assert len(desk.effects()) == 1


def test_a_refused_write_changes_nothing(desk: Desk, tickets: list[Ticket]) -> None:
    """More than was paid, a parcel that has left, an unknown ticket: refused, no effect, and the key stays free."""
    one = about(tickets, "wrong_item")
    with pytest.raises(DeskError, match="expected 1 to"):
        desk.issue_refund(key="k", ticket=one.id, order=one.order, amount_cents=10_000_000)
    with pytest.raises(DeskError, match="processing or packed"):
        desk.change_address(key="k", ticket=one.id, order=one.order, street="1 X", town="Y", postcode="1234")
    with pytest.raises(DeskError, match="no ticket 'T-7777'"):
        desk.escalate(key="k", ticket="T-7777", team="lead", priority="high", summary="?")
    assert desk.effects() == []
    assert desk.issue_refund(key="k", ticket=one.id, order=one.order, amount_cents=1).amount_cents == 1


def test_another_key_is_a_duplicate(desk: Desk, tickets: list[Ticket]) -> None:
    """The same refund under two keys is made twice, and the desk can tell."""
    one = about(tickets, "wrong_item")
    for key in ("k1", "k2", "k2"):
        desk.issue_refund(key=key, ticket=one.id, order=one.order, amount_cents=100)
    (found,) = desk.duplicate_effects()
    assert (found.ticket, found.kind, found.ref, found.times) == (one.id, "refund", one.order, 2)


def test_evidence_stays(desk: Desk, tickets: list[Ticket]) -> None:
    """Effects can be neither changed nor deleted, not even by SQL."""
    desk.reply_and_close(key="k", ticket=tickets[0].id, reply="Done.", cites=[])
    with sqlite3.connect(desk.path) as db:
        for sql in ("UPDATE effects SET amount = 1", "DELETE FROM effects"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(sql)
    db.close()


def same_refunds_from_everywhere(
    desk: Desk, tickets: list[Ticket], pool: ProcessPoolExecutor | ThreadPoolExecutor
) -> None:
    """Five refunds, each asked for eight times at once under its key: five effects, and the same answer to all."""
    paid = [ticket for ticket in tickets if ticket.order][:5]
    asked: list[Future[Effect]] = []
    for turn in range(40):
        ticket = paid[turn % 5]
        refund = methodcaller("issue_refund", key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=100)
        asked.append(pool.submit(refund, desk))
    came = Counter(future.result(timeout=60) for future in asked)
    assert set(came) == set(desk.effects())
    assert sorted(came.values()) == [8] * 5
    assert desk.duplicate_effects() == []


def test_eight_threads_apply_a_key_once(desk: Desk, tickets: list[Ticket]) -> None:
    """One key from eight threads at once is one effect."""
    with ThreadPoolExecutor(8) as pool:
        same_refunds_from_everywhere(desk, tickets, pool)


def test_eight_processes_apply_a_key_once(desk: Desk, tickets: list[Ticket]) -> None:
    """One key from eight processes at once is one effect."""
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        same_refunds_from_everywhere(desk, tickets, pool)


def test_a_flaky_service_gives_in_to_the_same_key(tmp_path: Path, tickets: list[Ticket]) -> None:
    """With services that always fail, every key gets through after two failures, and each refund was made once."""
    desk = open_desk(tmp_path / "flaky.sqlite3", tickets, SEED, ServiceFaults(flaky=1.0, slow_ms=0))
    for ticket in (ticket for ticket in tickets if ticket.order):
        for attempt in range(MAX_STRIKES):
            with pytest.raises(ServiceDown, match="payment service"):
                desk.issue_refund(key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=1, attempt=attempt)
        desk.issue_refund(key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=1, attempt=MAX_STRIKES)
    assert len(desk.effects()) == sum(bool(ticket.order) for ticket in tickets)
    assert desk.duplicate_effects() == []


def test_faults_are_decided_by_key_and_attempt() -> None:
    """The share holds over many keys, half of the failures lose the answer, and the same call meets the same fate."""
    faults = ServiceFaults(flaky=0.2, seed=5)
    met = Counter(faults.strike(f"key {number}", 0) for number in range(4_000))
    assert 700 < met["before"] + met["after"] < 900
    assert 0.8 < met["before"] / met["after"] < 1.25
    assert met == Counter(faults.strike(f"key {number}", 0) for number in range(4_000))
