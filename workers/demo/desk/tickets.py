"""Tickets for the demo's jobs with their expected outcomes, and a checker of the real outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from random import Random

from midwatch.orchestration.client.job_result import JobResult
from midwatch.schemas.job import JobStatus
from midwatch.workers.demo.desk.data import TODAY, Article, Customer, Order, make_address, make_shop
from midwatch.workers.demo.desk.desk import Desk, Duplicate, Effect, ServiceFaults
from midwatch.workers.demo.desk.kinds import KINDS, Outcome

MAX_TICKETS = 3_000
"""With more tickets, two of them would move one order to two addresses, and either could come last."""


@dataclass(frozen=True)
class Ticket:
    """A letter to the desk, and its expected outcome."""

    id: str
    kind: str
    email: str
    subject: str
    body: str
    order: str
    expected: Outcome
    earlier: tuple[str, ...] = ()
    """The table row of an older ticket, if this ticket follows up on one."""

    @property
    def input(self) -> str:
        """The job's input."""
        return f'Ticket {self.id} has come in from {self.email}: "{self.subject}". Work it to its end by the rules.'

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows for the desk's table of tickets."""
        row = (self.id, self.email, self.subject, self.body, TODAY.isoformat(), "open", "", "", "", "")
        return (self.earlier, row) if self.earlier else (row,)

    @property
    def effects(self) -> frozenset[tuple[str, str, int]]:
        """(kind, ref, cents) of each expected effect. There must be no others."""
        want = self.expected
        refund = [("refund", self.order, want.refund_cents)] if want.refund_cents else []
        moved = [("address", self.order, 0)] if want.address else []
        ending = ("escalation", want.team, 0) if want.team else ("close", self.id, 0)
        return frozenset([*refund, *moved, ending])


@dataclass(frozen=True)
class CheckReport:
    """The result of the checker. Each ticket counts in one of `lost`, `set_aside`, `wrong` and `solved`."""

    solved: int
    lost: tuple[str, ...]
    """Tickets whose job has not ended."""
    duplicate_effects: tuple[Duplicate, ...]
    wrong: tuple[str, ...]
    """A sentence for each ticket whose job completed with a wrong outcome. It gives the expected and the actual outcome."""
    set_aside: tuple[str, ...] = ()
    """Tickets whose job is dead-lettered, parked, cancelled or timed out. They wait for a human and are not checked."""

    @property
    def ok(self) -> bool:
        """Is nothing lost, done twice or wrong?"""
        return not (self.lost or self.duplicate_effects or self.wrong)


def make_tickets(n: int, seed: int) -> list[Ticket]:
    """Make the first `n` tickets of a seed. Kinds take turns. Orders come from the shop of the same seed."""
    if not 0 <= n <= MAX_TICKETS:
        raise ValueError(f"expected 0 to {MAX_TICKETS} tickets, got {n}")
    writer = _Writer(seed)
    kinds = cycle([*KINDS, "how_to", "follow_up"])
    return [writer.write(f"T-{number:04d}", next(kinds)) for number in range(1, n + 1)]


def open_desk(path: Path | str, tickets: Sequence[Ticket], seed: int, faults: ServiceFaults | None = None) -> Desk:
    """Create a desk file with the shop of a seed and these tickets, all open."""
    Desk.create(path, make_shop(seed), [row for ticket in tickets for row in ticket.rows])
    return Desk(path, faults)


class _Writer:
    """Writes letters. Each kind has a separate random sequence of orders."""

    def __init__(self, seed: int) -> None:
        world = make_shop(seed)
        self.rng = Random(f"tickets {seed}")
        self.customers = {customer.id: customer for customer in world.customers}
        self.bought = [(order.customer, order.item) for order in world.orders]
        self.orders = {name: self._shuffled([o for o in world.orders if kind.suits(o)]) for name, kind in KINDS.items()}
        self.any_order = self._shuffled(list(world.orders))
        self.pages = [page for page in world.articles if page.question]

    def _shuffled(self, orders: list[Order]) -> Iterator[Order]:
        self.rng.shuffle(orders)
        return cycle(orders)

    def write(self, id: str, kind: str) -> Ticket:
        if kind == "how_to":
            return self._how_to(id, self.rng.choice(self.pages))
        return self._follow_up(id, next(self.any_order)) if kind == "follow_up" else self._about_order(id, kind)

    def _about_order(self, id: str, kind: str) -> Ticket:
        order = next(self.orders[kind])
        subject, letter = self.rng.choice(KINDS[kind].letters)
        sender = self.customers[order.customer]
        if kind == "somebody_else":
            sender = self.rng.choice([other for other in self.customers.values() if other.id != order.customer])
        new = make_address(self.rng)
        named = f"my order {order.id}"
        if kind != "somebody_else" and self.bought.count((order.customer, order.item)) == 1 and self.rng.random() < 0.3:
            named = f"my {order.item}"
        text = letter.format(
            ref=named, item=order.item, promised=order.promised_on, address=f"{new[0]}, {new[2]} {new[1]}"
        )
        expected = KINDS[kind].outcome(order)
        if expected.resolution == "address_changed":
            expected = replace(expected, address=new)
        return self._ticket(id, kind, sender, subject, text, order.id, expected)

    def _how_to(self, id: str, page: Article) -> Ticket:
        sender = self.rng.choice(list(self.customers.values()))
        text = f"{self.rng.choice(('A short one:', 'I could not find it anywhere.'))} {page.question}"
        return self._ticket(id, "how_to", sender, "A question", text, "", Outcome("answered", cites=page.id))

    def _follow_up(self, id: str, order: Order) -> Ticket:
        sender = self.customers[order.customer]
        older, subject = f"T-9{id[2:]}", f"Question about {order.id}"
        team = self.rng.choice(("shipping", "workshop", ""))
        state = (
            ("escalated", team, "normal", "Being looked into.", "") if team else ("closed", "", "", "All is well.", "")
        )
        row = (
            older,
            sender.email,
            subject,
            f"What about my {order.item}?",
            (TODAY - timedelta(days=9)).isoformat(),
            *state,
        )
        text = f'Last week I wrote to you: "{subject}". Is there any news?'
        expected = Outcome("escalated", team=team) if team else Outcome("answered", cites=older)
        return replace(self._ticket(id, "follow_up", sender, "Any news?", text, "", expected), earlier=row)

    def _ticket(
        self, id: str, kind: str, sender: Customer, subject: str, text: str, order: str, want: Outcome
    ) -> Ticket:
        return Ticket(id, kind, sender.email, subject, f"Hello,\n{text}\nRegards, {sender.name}", order, want)


def check(desk: Desk, tickets: Sequence[Ticket], results: Mapping[str, JobResult | None]) -> CheckReport:
    """Compare the desk with the expected outcomes. `results` is ticket id -> result of its job."""
    lost, aside, wrong = [], [], []
    done: dict[str, list[Effect]] = {}
    for effect in desk.effects():
        done.setdefault(effect.ticket, []).append(effect)
    for ticket in tickets:
        result = results.get(ticket.id)
        if result is None or not (result.status.ended or result.status is JobStatus.PARKED):
            lost.append(ticket.id)
        elif result.status is not JobStatus.COMPLETED:
            aside.append(ticket.id)
        elif faults := list(_find_faults(desk, ticket, done.get(ticket.id, []), result.output_or_none or "")):
            wrong.append(f"{ticket.id} ({ticket.kind}): {'; '.join(faults)}")
    solved = len(tickets) - len(lost) - len(aside) - len(wrong)
    return CheckReport(solved, tuple(lost), tuple(desk.duplicate_effects()), tuple(wrong), tuple(aside))


def _find_faults(desk: Desk, ticket: Ticket, effects: Sequence[Effect], output: str) -> Iterator[str]:
    """Yield each difference between the expected outcome and the effects, the desk's rows and the job's output."""
    want = ticket.expected
    found = {(effect.kind, effect.ref, effect.amount_cents) for effect in effects}
    if found != ticket.effects:
        yield f"expected effects {sorted(ticket.effects)}, got {sorted(found)}"
    if want.cites and want.cites not in desk.ticket(ticket.id)["cites"]:
        yield f"expected the reply to cite {want.cites}, got {desk.ticket(ticket.id)['cites']}"
    if want.address:
        order = desk.order(ticket.order)
        if want.address != (now := (order["street"], order["town"], order["postcode"])):
            yield f"expected the address {want.address}, got {now}"
    try:
        resolution = json.loads(output)["resolution"]
    except (ValueError, KeyError, TypeError):
        resolution = "no resolution"
    if resolution != want.resolution:
        yield f"expected the answer {want.resolution!r}, got {resolution!r}"
