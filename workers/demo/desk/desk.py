"""The desk: one SQLite file that many processes read and write, with a table of all side effects.

Every operation with a side effect takes the idempotency key of the tool call and adds one row to `effects`, a table that
refuses updates and deletes. The same key again returns the first row and changes nothing. With a *different* key the desk
does the work again: if a refund is paid twice, `duplicate_effects` must show it. So the desk must not prevent it.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path

from midwatch.orchestration.errors import ToolError
from midwatch.schemas.contract import JsonObject
from midwatch.workers.demo.desk.data import OPEN_STATES, Shop

MAX_STRIKES = 2
"""A service fails at most this often for one key. So retries with the same key succeed."""


class DeskError(ToolError):
    """Raised when the desk refuses. Nothing was changed, and the same call will be refused again."""


class ServiceDown(ConnectionError):
    """Raised when a service behind the desk did not answer. It may have done its work; a retry with the same key is safe."""


@dataclass(frozen=True)
class Effect:
    """One side effect. `ref` is its object: an order, a team or a ticket."""

    id: int
    key: str
    kind: str
    ref: str
    amount_cents: int
    ticket: str
    at_ms: int


@dataclass(frozen=True)
class Duplicate:
    """An effect applied more than once for one ticket, under different keys."""

    ticket: str
    kind: str
    ref: str
    times: int


@dataclass(frozen=True)
class ServiceFaults:
    """Delay and faults of the services behind the desk."""

    flaky: float = 0.0
    """Share of calls that fail. Seed, key and attempt decide. Half of them fail after the work was done."""
    slow_ms: int = 20
    seed: int = 0

    def strike(self, key: str, attempt: int) -> str:
        """Return when the call fails: `before` or `after` the work, or "" for never. `attempt` counts earlier failures."""
        dice = sha256(f"{self.seed} {key} {attempt}".encode()).digest()
        if attempt >= MAX_STRIKES or int.from_bytes(dice[:4]) >= self.flaky * 2**32:
            return ""
        return "after" if dice[4] % 2 else "before"


class Desk:
    """The desk's operations. Each opens the file anew (90 µs), so threads and forked processes share no connection."""

    def __init__(self, path: Path | str, faults: ServiceFaults | None = None) -> None:
        self.path = Path(path)
        self.faults = faults or ServiceFaults()

    @classmethod
    def create(cls, path: Path | str, shop: Shop, tickets: Iterable[tuple[str, ...]]) -> Desk:
        """Create a desk with the data of a shop. A ticket is a row of the table `tickets`, from `id` to `cites`."""
        with (desk := cls(path))._open("rwc") as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript("BEGIN;" + Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
            db.executemany("INSERT INTO customers VALUES (?,?,?,?,?,?)", map(astuple, shop.customers))
            for order in shop.orders:
                *row, payments = astuple(order)
                db.execute("INSERT INTO orders VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row)
                db.executemany("INSERT INTO payments VALUES (NULL,?,?)", [(order.id, cents) for cents in payments])
            db.executemany("INSERT INTO articles VALUES (?,?,?)", [(a.id, a.title, a.body) for a in shop.articles])
            db.executemany("INSERT INTO tickets VALUES (?,?,?,?,?,?,?,?,?,?)", tickets)
            db.execute("COMMIT")
        return desk

    def ticket(self, ticket: str) -> JsonObject:
        """Return the ticket with its status and its answer, if there is one."""
        found = self._one("ticket", ticket, "SELECT * FROM tickets WHERE id = ?")
        return {**found, "cites": found["cites"].split()}

    def search_tickets(self, query: str, status: str = "any", limit: int = 5) -> list[JsonObject]:
        """Return tickets whose address, subject or text contains the query, newest first, without their texts."""
        sql = """SELECT id, email, subject, opened_on, status, team FROM tickets
            WHERE instr(lower(email || ' ' || subject || ' ' || body), lower(?)) AND ? IN (status, 'any')
            ORDER BY opened_on DESC, id DESC LIMIT ?"""
        return self._rows(sql, query, status, limit)

    def customer(self, email: str) -> JsonObject:
        """Return the customer with this address, and all their orders."""
        found = self._one("customer", email.strip().lower(), "SELECT * FROM customers WHERE email = ?")
        sql = "SELECT id, item, status, placed_on FROM orders WHERE customer = ? ORDER BY placed_on DESC, id"
        return {**found, "orders": self._rows(sql, found["id"])}

    def order(self, order: str) -> JsonObject:
        """Return the order with its payments and its refunds. A refund's `ticket` is the ticket it was made for."""
        found = self._one("order", order, "SELECT * FROM orders WHERE id = ?")
        paid = self._rows('SELECT captured_cents FROM payments WHERE "order" = ?', order)
        refunds = "SELECT ticket, amount AS amount_cents FROM effects WHERE kind = 'refund' AND ref = ? ORDER BY id"
        return {
            **found,
            "payments_cents": [row["captured_cents"] for row in paid],
            "refunds": self._rows(refunds, order),
        }

    def search_knowledge(self, query: str, limit: int = 3) -> list[JsonObject]:
        """Return the best articles for the query. Rare shared words count more, words in the title count three times."""
        pages = self._rows("SELECT * FROM articles ORDER BY id")
        words = [(_words(page["title"]), _words(page["title"] + " " + page["body"])) for page in pages]
        scores = [0.0] * len(pages)
        for word in _words(query):
            having = [number for number, (_, whole) in enumerate(words) if word in whole]
            for number in having:
                scores[number] += (3 if word in words[number][0] else 1) / len(having)
        best = sorted(range(len(pages)), key=lambda number: -scores[number])[:limit]
        return [pages[number] for number in best if scores[number]]

    def issue_refund(self, *, key: str, ticket: str, order: str, amount_cents: int, attempt: int = 0) -> Effect:
        """Pay back part or all of an order. Earlier refunds are not checked, see the docstring of this module."""

        def change(db: sqlite3.Connection) -> None:
            paid = db.execute('SELECT total(captured_cents) FROM payments WHERE "order" = ?', (order,)).fetchone()[0]
            if not 0 < amount_cents <= paid:
                raise DeskError(f"expected 1 to {paid:.0f} cents, what was paid for {order}; got {amount_cents}")

        with self._service("payment service", key, attempt):
            return self._once(key, "refund", order, amount_cents, ticket, change)

    def change_address(
        self, *, key: str, ticket: str, order: str, street: str, town: str, postcode: str, attempt: int = 0
    ) -> Effect:
        """Change an order's address, while the parcel has not left."""

        def change(db: sqlite3.Connection) -> None:
            sql = "UPDATE orders SET street = ?, town = ?, postcode = ? WHERE id = ? AND status IN (?, ?)"
            if not db.execute(sql, (street, town, postcode, order, *OPEN_STATES)).rowcount:
                raise DeskError(
                    f"expected an order that is {' or '.join(OPEN_STATES)}; {order} is not, leave it as it is"
                )

        with self._service("warehouse", key, attempt):
            return self._once(key, "address", order, 0, ticket, change)

    def escalate(self, *, key: str, ticket: str, team: str, priority: str, summary: str) -> Effect:
        """Hand a ticket to a team of people."""
        sql = "UPDATE tickets SET status = 'escalated', team = ?, priority = ?, reply = ? WHERE id = ?"
        values = (team, priority, summary, ticket)
        return self._once(key, "escalation", team, 0, ticket, lambda db: db.execute(sql, values))

    def reply_and_close(self, *, key: str, ticket: str, reply: str, cites: Iterable[str]) -> Effect:
        """Answer the customer, and close the ticket."""
        sql = "UPDATE tickets SET status = 'closed', reply = ?, cites = ? WHERE id = ?"
        values = (reply, " ".join(cites), ticket)
        return self._once(key, "close", ticket, 0, ticket, lambda db: db.execute(sql, values))

    def effects(self, ticket: str | None = None) -> list[Effect]:
        """Return the side effects of one ticket or of all, oldest first."""
        sql = "SELECT * FROM effects WHERE ? IS NULL OR ticket = ? ORDER BY id"
        return [Effect(*row.values()) for row in self._rows(sql, ticket, ticket)]

    def duplicate_effects(self) -> list[Duplicate]:
        """Return effects that were applied more than once for one (ticket, kind, ref), with different keys."""
        sql = "SELECT ticket, kind, ref, count(*) AS times FROM effects GROUP BY 1, 2, 3 HAVING times > 1"
        return [Duplicate(**row) for row in self._rows(sql)]

    def _once(
        self, key: str, kind: str, ref: str, cents: int, ticket: str, change: Callable[[sqlite3.Connection], object]
    ) -> Effect:
        """Make the change and add the effect in one transaction. If the key was used before, return its effect."""
        if not key:
            raise DeskError(f"expected an idempotency key for this {kind}, got none; pass the tool call's key")
        with self._open("rw") as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute("SELECT * FROM effects WHERE key = ?", (key,)).fetchone()
            if row is None:
                if not db.execute("SELECT 1 FROM tickets WHERE id = ?", (ticket,)).fetchone():
                    raise DeskError(f"there is no ticket {ticket!r}; check the spelling, or search for it")
                change(db)
                now = "CAST((julianday('now') - 2440587.5) * 86400000 AS INT)"
                sql = f"INSERT INTO effects VALUES (NULL, ?, ?, ?, ?, ?, {now})"  # noqa: S608
                db.execute(sql, (key, kind, ref, cents, ticket))
                row = db.execute("SELECT * FROM effects WHERE key = ?", (key,)).fetchone()
            db.execute("COMMIT")
        first = Effect(*row)
        if (first.kind, first.ref, first.amount_cents, first.ticket) != (kind, ref, cents, ticket):
            raise DeskError(
                f"this key belongs to the {first.kind} of {first.ref}; a key is for one call, not for {ref}"
            )
        return first

    @contextmanager
    def _service(self, name: str, key: str, attempt: int) -> Iterator[None]:
        """Simulate a slow service. It may fail before the work, or lose its answer after the work."""
        strike = self.faults.strike(key, attempt)
        time.sleep(self.faults.slow_ms / 1000)
        if strike == "before":
            raise ServiceDown(f"the {name} does not answer; try again")
        yield
        if strike == "after":
            raise ServiceDown(f"the {name} was cut off; it may have done its work, check before you try again")

    def _rows(self, sql: str, *values: object) -> list[JsonObject]:
        with self._open("rw") as db:
            return [dict(row) for row in db.execute(sql, values)]

    def _one(self, what: str, id: str, sql: str) -> JsonObject:
        for row in self._rows(sql, id):
            return row
        raise DeskError(f"there is no {what} {id!r}; check the spelling, or search for it")

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """Open the file. `timeout` waits for other writers. With NORMAL, writes survive a killed process."""
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            db = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise DeskError(f"expected a desk at {self.path}, got: {error}; `midwatch demo` makes one") from None
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")
            yield db
        finally:
            db.close()


def _words(text: str) -> set[str]:
    """Return the words of three or more letters, without a plural s. This is enough to search forty pages."""
    return {word.rstrip("s") for word in re.findall(r"[a-z]{3,}", text.lower())}
