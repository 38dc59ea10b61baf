"""The desk of the demo: a seed gives the same desk, and a key has one effect."""

from __future__ import annotations

import sqlite3
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from operator import methodcaller
from pathlib import Path

import pytest

from midwatch.workers.demo.desk.data import CUSTOMERS, KNOWLEDGE, ORDERS, make_shop
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
    """The same seed gives the same file, row by row. Another seed gives another file."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        open_desk(tmp_path / name, make_tickets(40, seed), seed)
    assert dump(tmp_path / "a") == dump(tmp_path / "b") != dump(tmp_path / "c")


def test_the_shop_is_complete() -> None:
    """There are 300 customers, 800 orders and 40 articles. Ids and addresses are unique. Articles have no placeholder left."""
    world = make_shop(SEED)
    assert (len(world.customers), len(world.orders), len(world.articles)) == (CUSTOMERS, ORDERS, 40)
    for ids in ([c.email for c in world.customers], [o.id for o in world.orders], [a.id for a in world.articles]):
        assert len(set(ids)) == len(ids)
    assert not any("{" in article.body or not article.body for article in world.articles)


def test_every_question_finds_its_article(desk: Desk) -> None:
    """A customer's question finds the page that answers it, and a policy is found by its name."""
    for article in KNOWLEDGE:
        query = article.question or article.title.lower().replace(":", "")
        assert desk.search_knowledge(query, 1)[0]["id"] == article.id, query


def test_an_unknown_id_is_an_error_with_advice(desk: Desk, tmp_path: Path) -> None:
    """A missing file is an error too. A search without results returns an empty list."""
    for look_up, name in ((desk.order, "O-000000"), (desk.ticket, "T-0000"), (desk.customer, "nobody@example.net")):
        with pytest.raises(DeskError, match=f"{name}.*check the spelling"):
            look_up(name)
    assert desk.search_knowledge("zzz") == desk.search_tickets("zzz") == []
    with pytest.raises(DeskError, match=r"expected a desk at .*nowhere.*midwatch demo"):
        Desk(tmp_path / "nowhere").ticket("T-0001")


def test_a_key_works_once(desk: Desk, tickets: list[Ticket]) -> None:
    """For each of the four writes, the same key returns the first result and adds no effect."""
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
    """A key with other arguments is refused. A write without a key is refused too."""
    one, other = about(tickets, "wrong_item"), about(tickets, "return")
    desk.issue_refund(key="k", ticket=one.id, order=one.order, amount_cents=100)
    with pytest.raises(DeskError, match="a key is for one call"):
        desk.issue_refund(key="k", ticket=other.id, order=other.order, amount_cents=100)
    with pytest.raises(DeskError, match="expected an idempotency key"):
        desk.reply_and_close(key="", ticket=one.id, reply="Done.", cites=[])
    assert len(desk.effects()) == 1


def test_a_refused_write_changes_nothing(desk: Desk, tickets: list[Ticket]) -> None:
    """A refund above the payment, a parcel that has left and an unknown ticket are refused. The key can be used again."""
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
    """The same refund with two keys is paid twice, and the desk reports it."""
    one = about(tickets, "wrong_item")
    for key in ("k1", "k2", "k2"):
        desk.issue_refund(key=key, ticket=one.id, order=one.order, amount_cents=100)
    (found,) = desk.duplicate_effects()
    assert (found.ticket, found.kind, found.ref, found.times) == (one.id, "refund", one.order, 2)


def test_effects_are_append_only(desk: Desk, tickets: list[Ticket]) -> None:
    """Effects can't be changed or deleted, not even by SQL."""
    desk.reply_and_close(key="k", ticket=tickets[0].id, reply="Done.", cites=[])
    with sqlite3.connect(desk.path) as db:
        for sql in ("UPDATE effects SET amount = 1", "DELETE FROM effects"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(sql)
    db.close()


def refund_concurrently(desk: Desk, tickets: list[Ticket], pool: ProcessPoolExecutor | ThreadPoolExecutor) -> None:
    """Make five refunds, each eight times at once with the same key: there are five effects, and equal answers."""
    paid = [ticket for ticket in tickets if ticket.order][:5]
    futures: list[Future[Effect]] = []
    for turn in range(40):
        ticket = paid[turn % 5]
        refund = methodcaller("issue_refund", key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=100)
        futures.append(pool.submit(refund, desk))
    results = Counter(future.result(timeout=60) for future in futures)
    assert set(results) == set(desk.effects())
    assert sorted(results.values()) == [8] * 5
    assert desk.duplicate_effects() == []


def test_eight_threads_apply_a_key_once(desk: Desk, tickets: list[Ticket]) -> None:
    """One key, used by eight threads at once, has one effect."""
    with ThreadPoolExecutor(8) as pool:
        refund_concurrently(desk, tickets, pool)


@pytest.mark.process
def test_eight_processes_apply_a_key_once(desk: Desk, tickets: list[Ticket]) -> None:
    """One key, used by eight processes at once, has one effect."""
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        refund_concurrently(desk, tickets, pool)


def test_a_flaky_service_works_after_two_failures_of_a_key(tmp_path: Path, tickets: list[Ticket]) -> None:
    """With services that always fail, every key succeeds after two failures, and each refund is paid once."""
    desk = open_desk(tmp_path / "flaky.sqlite3", tickets, SEED, ServiceFaults(flaky=1.0, slow_ms=0))
    for ticket in (ticket for ticket in tickets if ticket.order):
        for attempt in range(MAX_STRIKES):
            with pytest.raises(ServiceDown, match="payment service"):
                desk.issue_refund(key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=1, attempt=attempt)
        desk.issue_refund(key=ticket.id, ticket=ticket.id, order=ticket.order, amount_cents=1, attempt=MAX_STRIKES)
    assert len(desk.effects()) == sum(bool(ticket.order) for ticket in tickets)
    assert desk.duplicate_effects() == []


def test_faults_are_decided_by_key_and_attempt() -> None:
    """The share is right over many keys. Half of the failures lose the answer. The same call always gets the same fault."""
    faults = ServiceFaults(flaky=0.2, seed=5)
    counts = Counter(faults.strike(f"key {number}", 0) for number in range(4_000))
    assert 700 < counts["before"] + counts["after"] < 900
    assert 0.8 < counts["before"] / counts["after"] < 1.25
    assert counts == Counter(faults.strike(f"key {number}", 0) for number in range(4_000))
