"""The kinds of tickets about an order: which orders fit, what customers write, and the right outcome.

The right outcome is computed here from the shop's data and constants. The agent has only its tools. It reads the same facts
from the desk and the same rules from the knowledge base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midwatch.workers.demo.desk.data import (
    DESK_LIMIT_CENTS,
    DOUBLE_CHARGE_LIMIT_CENTS,
    LATE_DAYS,
    LOST_DAYS,
    OPEN_STATES,
    RETURN_DAYS,
    SHIPPING_FEE_CENTS,
    WARRANTY_DAYS,
    Order,
)


@dataclass(frozen=True)
class Outcome:
    """The right outcome of a ticket. Without a team the ticket is answered and closed."""

    resolution: str
    """refunded, address_changed, answered, declined or escalated."""
    refund_cents: int = 0
    team: str = ""
    cites: str = ""
    """Id of the article or the older ticket that the reply must cite."""
    address: tuple[str, ...] = ()
    """Street, town and postcode of the order after the change."""


@dataclass(frozen=True)
class Kind:
    """One kind of ticket."""

    suits: Callable[[Order], bool]
    letters: tuple[tuple[str, str], ...]
    """(subject, text), with the placeholders {ref}, {item}, {promised} and {address}."""
    outcome: Callable[[Order], Outcome]


def _refund(cents: int, team: str, limit_cents: int = DESK_LIMIT_CENTS) -> Outcome:
    return Outcome("refunded", cents) if cents <= limit_cents else Outcome("escalated", team=team)


def _late(order: Order) -> Outcome:
    if order.days_late > LOST_DAYS:
        return _refund(order.total_cents, "shipping")
    return Outcome("refunded", SHIPPING_FEE_CENTS) if order.days_late > LATE_DAYS else Outcome("answered")


def _return(order: Order) -> Outcome:
    return _refund(order.total_cents, "refunds") if order.days_held <= RETURN_DAYS else Outcome("declined")


def _warranty(order: Order) -> Outcome:
    return Outcome("escalated", team="workshop") if order.days_held <= WARRANTY_DAYS else Outcome("declined")


def _charge(order: Order) -> Outcome:
    if len(order.payments_cents) == 1:
        return Outcome("declined")
    return _refund(order.payments_cents[1], "payments", DOUBLE_CHARGE_LIMIT_CENTS)


_CHARGED = (
    ("Charged twice", "My bank shows two payments for {ref}. Please give one of them back."),
    ("Two debits", "I was charged twice for {ref}, and that can't be right."),
)
_RETURNS = (
    ("I want to send it back", "The {item} does not suit me. I would like to return {ref}, please."),
    ("Return", "How do I send back {ref}? I changed my mind and want my money back."),
)

KINDS: dict[str, Kind] = {
    "late_parcel": Kind(
        lambda order: order.status == "shipped" and order.days_late > 0,
        (
            ("Where is my parcel?", "You promised {ref} for {promised}. It has not arrived. What now?"),
            ("Still waiting", "I am still waiting for {ref}, and the promised day is long gone."),
        ),
        _late,
    ),
    "return": Kind(lambda order: 0 <= order.days_held <= 10 * RETURN_DAYS, _RETURNS, _return),
    "wrong_item": Kind(
        lambda order: 0 <= order.days_held <= RETURN_DAYS,
        (
            ("Wrong thing in the box", "For {ref} you sent me a box of candles instead of the {item}!"),
            ("Not what I ordered", "I unpacked {ref}, and the {item} is not in it: it is the wrong item."),
        ),
        lambda order: _refund(order.total_cents, "refunds"),
    ),
    "address_change": Kind(
        lambda order: order.status in (*OPEN_STATES, "shipped"),
        (
            ("New address", "We have moved. Please send {ref} to: {address}."),
            ("Wrong address", "I gave you my old address for {ref}. It must go to: {address}. Thank you!"),
        ),
        lambda order: Outcome("address_changed" if order.status in OPEN_STATES else "declined"),
    ),
    "double_charge": Kind(lambda order: len(order.payments_cents) == 2, _CHARGED, _charge),
    "single_charge": Kind(lambda order: len(order.payments_cents) == 1 and order.days_held >= 0, _CHARGED, _charge),
    "warranty": Kind(
        lambda order: order.days_held > RETURN_DAYS,
        (
            ("It broke", "The {item} of {ref} stopped working last week. Is there still a warranty on it?"),
            ("Defect", "The {item} is defective, and I treated it well. I claim the warranty for {ref}."),
        ),
        _warranty,
    ),
    "complaint": Kind(
        lambda order: order.status == "shipped",
        (
            (
                "THIS IS OUTRAGEOUS",
                "Nobody answers me about {ref}. What a disgrace! You will hear from my lawyer.",
            ),
            ("Last warning", "If {ref} is not settled today I go to the ombudsman and to the newspapers."),
        ),
        lambda order: Outcome("escalated", team="complaints"),
    ),
    "somebody_else": Kind(
        lambda order: 0 <= order.days_held <= RETURN_DAYS, _RETURNS, lambda order: Outcome("escalated", team="security")
    ),
}
"""Kinds of tickets about an order. Two more kinds are not about an order: `how_to`, and `follow_up` on an older ticket."""
