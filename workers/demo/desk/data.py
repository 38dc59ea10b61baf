"""The data of the shop, made from a seed: customers, orders, payments, and forty knowledge-base articles.

Tallow & Tide, its people, streets, goods and rules are invented. The shop's rules are constants here. The policy pages in
`knowledge.md` get their numbers from these constants, so pages and constants always agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random

TODAY = date(2026, 3, 2)
"""The desk's date never changes, so a ticket has the same right outcome on every day."""

CUSTOMERS = 300
ORDERS = 800

RETURN_DAYS = 30
WARRANTY_DAYS = 730
LATE_DAYS = 7
LOST_DAYS = 21
SHIPPING_FEE_CENTS = 490
DESK_LIMIT_CENTS = 15_000
"""The largest refund that the desk may pay without a human team."""
DOUBLE_CHARGE_LIMIT_CENTS = 40_000

OPEN_STATES = ("processing", "packed")
"""Order states in which the parcel has not left, so its address can be changed."""

_FIRST = ("Ada", "Bela", "Corin", "Dunja", "Edda", "Fabio", "Greta", "Hanno", "Ilka", "Jonas", "Kaja", "Levin", "Nuri")
_LAST = ("Ahlborn", "Brook", "Castell", "Dross", "Elmroot", "Gant", "Hollin", "Ivarson", "Juniper", "Kessel", "Oakes")
_STREETS = ("Heron Lane", "Coopers Rise", "Saltmarsh Road", "Lantern Street", "Weir Walk", "Ferry Steps", "Elder Close")
_TOWNS = ("Brackwater", "Ottersby", "Quillhaven", "Sandholm", "Upper Thorning", "Marrowmere", "Eddingport")

PRODUCTS = {
    "Skerry table lamp": 6_900,
    "Gannet storm lantern": 4_450,
    "Brine camp stove": 8_990,
    "Cuddy kettle": 3_690,
    "Kelpie wool blanket": 11_900,
    "Halyard clothes line": 1_890,
    "Bosun tool roll": 5_400,
    "Ferrule pocket torch": 2_490,
    "Windrow tent": 18_900,
    "Moorhen dry bag": 3_290,
    "Sextant wall clock": 7_900,
    "Tideline water filter": 9_650,
    "Cormorant binoculars": 16_500,
    "Oakum sleeping mat": 6_250,
    "Lugger hammock": 5_980,
    "Dory bread tin": 2_850,
}
"""Name -> price in cents."""


@dataclass(frozen=True)
class Customer:
    """A customer of the shop."""

    id: str
    name: str
    email: str
    street: str
    town: str
    postcode: str


@dataclass(frozen=True)
class Order:
    """One order of one item. Dates are ISO 8601. `delivered_on` is None if it was not delivered."""

    id: str
    customer: str
    item: str
    quantity: int
    total_cents: int
    status: str
    placed_on: str
    promised_on: str
    delivered_on: str | None
    street: str
    town: str
    postcode: str
    payments_cents: tuple[int, ...]
    """The payments. If there are two payments of the whole amount, the customer was charged twice."""

    @property
    def days_late(self) -> int:
        """Days between the promised day and today."""
        return (TODAY - date.fromisoformat(self.promised_on)).days

    @property
    def days_held(self) -> int:
        """Days since the delivery, or -1 if it was not delivered."""
        return (TODAY - date.fromisoformat(self.delivered_on)).days if self.delivered_on else -1


@dataclass(frozen=True)
class Article:
    """One page of the knowledge base. `question` is a customer's question that it answers; policies have none."""

    id: str
    title: str
    body: str
    question: str = ""


@dataclass(frozen=True)
class Shop:
    """All data except tickets."""

    customers: tuple[Customer, ...]
    orders: tuple[Order, ...]
    articles: tuple[Article, ...]


def make_shop(seed: int) -> Shop:
    """Make the shop of a seed. It is the same in every process."""
    rng = Random(f"shop {seed}")
    customers = tuple(_customer(rng, number) for number in range(1, CUSTOMERS + 1))
    orders = tuple(_order(rng, number, rng.choice(customers)) for number in range(ORDERS))
    return Shop(customers, orders, KNOWLEDGE)


def make_address(rng: Random) -> tuple[str, str, str]:
    """Make an address: street with number, town, postcode."""
    return f"{rng.randint(1, 98)} {rng.choice(_STREETS)}", rng.choice(_TOWNS), f"{rng.randint(1000, 9899)}"


def format_money(cents: int) -> str:
    """Format cents as an amount: 4.90."""
    return f"{cents // 100}.{cents % 100:02d}"


def _customer(rng: Random, number: int) -> Customer:
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    return Customer(
        f"C-{number:04d}", f"{first} {last}", f"{first}.{last}{number}@example.net".lower(), *make_address(rng)
    )


def _order(rng: Random, number: int, customer: Customer) -> Order:
    """Make an order. The number selects one of twenty patterns, so every kind of ticket has orders for every seed."""
    slot = number % 20
    item, price = rng.choice(list(PRODUCTS.items()))
    quantity = rng.choice((1, 1, 1, 2, 3))
    total = price * quantity + SHIPPING_FEE_CENTS
    twice = slot in (4, 5, 9, 10)
    if slot < 4:
        status, placed, delivered = rng.choice(OPEN_STATES), TODAY - timedelta(days=rng.randint(0, 4)), None
    elif slot < 9:
        status, placed, delivered = "shipped", TODAY - timedelta(days=rng.randint(3, 45)), None
    else:
        held = rng.randint(1, RETURN_DAYS) if slot < 15 else rng.randint(RETURN_DAYS + 5, WARRANTY_DAYS + 400)
        status, delivered = "delivered", TODAY - timedelta(days=held)
        placed = delivered - timedelta(days=rng.randint(2, 9))
    return Order(
        id=f"O-{100_000 + number * 7 + rng.randint(0, 6)}",
        customer=customer.id,
        item=item,
        quantity=quantity,
        total_cents=total,
        status=status,
        placed_on=placed.isoformat(),
        promised_on=(placed + timedelta(days=5)).isoformat(),
        delivered_on=delivered.isoformat() if delivered else None,
        street=customer.street,
        town=customer.town,
        postcode=customer.postcode,
        payments_cents=(total, total) if twice else (total,),
    )


def _parse_articles(text: str) -> tuple[Article, ...]:
    """Parse the pages of `knowledge.md`: a heading, an optional question, a body."""
    pages = [page.strip().split("\n", 1) for page in text.split("\n## ")[1:]]
    parts = [(title, *_split_question(rest.strip())) for title, rest in pages]
    return tuple(Article(f"KB-{n:02d}", title, body, question) for n, (title, question, body) in enumerate(parts, 1))


def _split_question(page: str) -> tuple[str, str]:
    question, _, rest = page.partition("\n") if page.startswith("> ") else ("", "", page)
    return question.removeprefix("> "), " ".join(rest.split())


KNOWLEDGE = _parse_articles(
    (Path(__file__).parent / "knowledge.md")
    .read_text(encoding="utf-8")
    .format(
        return_days=RETURN_DAYS,
        warranty_days=WARRANTY_DAYS,
        late_days=LATE_DAYS,
        lost_days=LOST_DAYS,
        shipping_fee=format_money(SHIPPING_FEE_CENTS),
        desk_limit=format_money(DESK_LIMIT_CENTS),
        double_charge_limit=format_money(DOUBLE_CHARGE_LIMIT_CENTS),
    )
)
"""Eight policies, then thirty-two pages that answer customers' questions."""
