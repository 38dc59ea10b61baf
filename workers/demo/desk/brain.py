"""The rules that replace the desk's model in `midwatch simulate`. They use the tools as a model would.

An answer depends on the conversation alone, so a retried request gets the same answer. A call that the runtime refused has
no result, so it is made again. A failed write is checked before it is tried again (see `case`). The shop's policies are not
in this file: amounts and teams are read from the policy articles that the search returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from midwatch.schemas.contract import JsonObject
from midwatch.workers.demo.desk.case import Call, Case, Need, Stuck
from midwatch.workers.simulator.brains.brain import Answer, Conversation, Say, Use


@dataclass(frozen=True)
class Decision:
    """The decision about a ticket. With a team the ticket is handed over, otherwise it is answered and closed."""

    resolution: str
    reply: str
    refund_cents: int = 0
    team: str = ""
    priority: str = "normal"
    cites: tuple[str, ...] = ()
    order: str = ""
    address: JsonObject | None = None


@dataclass(frozen=True)
class Policy:
    """A policy article, and the numbers in it."""

    id: str
    text: str

    @property
    def days(self) -> list[int]:
        """All numbers of days in the text, in order."""
        return [int(days) for days in re.findall(r"(\d+)\s+days", self.text)]

    def cents(self, words: str) -> int:
        """Return the amount of money that follows these words, in cents."""
        found = re.search(words + r" (\d+)\.(\d\d)", self.text)
        return int(found[1] + found[2]) if found else 0

    @property
    def team(self) -> str:
        """The team that takes over."""
        found = re.search(r"team '(\w+)'", self.text)
        return found[1] if found else "lead"


Rule = Callable[[JsonObject, Policy, JsonObject], Decision]
"""(order, its policy, ticket) -> decision."""


def solve(conversation: Conversation) -> Answer:
    """Return the next answer. `midwatch simulate` loads it as `midwatch.workers.demo.desk.brain:solve`."""
    texts = [turn.text for turn in conversation.turns if turn.role == "user"]
    ticket_ids = re.findall(r"\bT-\d+", " ".join(texts))
    if not ticket_ids:
        return Say("Which ticket? None was named.")
    try:
        return Say(_work(Case(conversation), ticket_ids[-1]))
    except Need as need:
        return Use(need.calls, need.why)


def _work(case: Case, id: str) -> str:
    """Work on a ticket to its end. Returns the final answer as JSON."""
    try:
        decision = _decide(case, id)
        _carry_out(case, id, decision)
    except Stuck as stuck:
        decision = Decision("escalated", f"The desk can't finish this: {stuck}.", team="lead")
        try:
            _carry_out(case, id, decision)
        except Stuck:
            decision = Decision("unfinished", "")
    answer = {"ticket": id, "resolution": decision.resolution, "refund_cents": decision.refund_cents}
    return json.dumps({**answer, "team": decision.team})


def _decide(case: Case, id: str) -> Decision:
    (ticket,) = case.look_up("Reading the ticket.", ("get_ticket", {"ticket": id}))
    letter, who = ticket["body"], ("find_customer", {"email": ticket["email"]})
    if re.search(r"lawyer|ombudsman|newspaper", letter):
        wrote = ("search_tickets", {"query": ticket["email"], "status": "any", "limit": 5})
        case.look_up("A complaint with threats. Who is the customer, and what else did they write?", who, wrote)
        policy = _policy(case, "complaints and threats")
        return Decision("escalated", f"A complaint with threats: {letter}", team=policy.team, priority="high")
    if quoted := re.search(r'wrote to you: "(.+?)"', letter):
        return _follow_up(case, id, quoted[1])
    for pattern, topic, rule in _RULES:
        if re.search(pattern, letter):
            order, customer = _order_and_customer(case, letter, who)
            if order["customer"] != customer["id"]:
                policy = _policy(case, "orders of somebody else")
                return Decision("escalated", f"Asks about {order['id']} of another customer.", team=policy.team)
            return rule(order, _policy(case, topic), ticket)
    return _how_to(case, letter, who)


def _order_and_customer(case: Case, letter: str, who: Call) -> tuple[JsonObject, JsonObject]:
    """Find the order and the customer. If the letter names no order, it is found by customer and item."""
    number = re.search(r"\bO-\d+", letter)
    if number:
        order, customer = case.look_up("Looking up order and customer.", ("get_order", {"order": number[0]}), who)
        return order, customer
    (customer,) = case.look_up("No order number in it: which orders does the customer have?", who)
    ids = [order["id"] for order in customer["orders"] if order["item"] in letter]
    if not ids:
        raise Stuck("none of the customer's orders fits the letter")
    (order,) = case.look_up(f"It must be {ids[0]}.", ("get_order", {"order": ids[0]}))
    return order, customer


def _policy(case: Case, topic: str) -> Policy:
    call = ("search_knowledge", {"query": f"policy {topic}", "limit": 1})
    (pages,) = case.look_up(f"What are the rules for {topic}?", call)
    if not pages:
        raise Stuck(f"there is no policy for {topic}")
    return Policy(pages[0]["id"], pages[0]["body"])


def _how_to(case: Case, letter: str, who: Call) -> Decision:
    question = (re.findall(r"[^.!:?\n]+\?", letter) or [letter])[-1].strip()
    search = ("search_knowledge", {"query": question, "limit": 3})
    pages, customer = case.look_up("A question about the goods: searching the knowledge base.", search, who)
    if not pages:
        return Decision("escalated", f"The knowledge base has no answer to this: {question}", team="lead")
    return Decision("answered", f"Dear {customer['name']}, {pages[0]['body']}", cites=(pages[0]["id"],))


def _follow_up(case: Case, id: str, subject: str) -> Decision:
    search = ("search_tickets", {"query": subject, "status": "any", "limit": 5})
    (found,) = case.look_up("They wrote before. Looking for the older ticket.", search)
    older = next((row["id"] for row in found if row["subject"] == subject and row["id"] != id), None)
    if older is None:
        return Decision("escalated", f"There is no older ticket {subject!r}.", team="lead")
    (before,) = case.look_up("Reading the older ticket.", ("get_ticket", {"ticket": older}))
    if before["status"] == "escalated":
        return Decision("escalated", f"Asks for news of {older}, which is with you.", team=before["team"])
    return Decision("answered", f"We answered you in {older}: {before['reply']}", cites=(older,))


def _late(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    late_days = _days(order["promised_on"], ticket["opened_on"])
    patience, lost = policy.days
    if late_days > lost:
        return _refund(order, policy, order["total_cents"])
    if late_days > patience:
        return _refund(order, policy, policy.cents("shipping fee of"))
    return Decision("answered", f"{order['id']} is on its way; please give it a few more days.", cites=(policy.id,))


def _return(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    if _days(order["delivered_on"], ticket["opened_on"]) <= policy.days[0]:
        return _refund(order, policy, order["total_cents"])
    return Decision("declined", f"The time to return {order['id']} is over, we are sorry.", cites=(policy.id,))


def _wrong_item(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    return _refund(order, policy, order["total_cents"])


def _charge(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    if len(order["payments_cents"]) > 1:
        return _refund(order, policy, order["payments_cents"][1])
    return Decision("declined", f"{order['id']} was paid once; a reservation will lapse.", cites=(policy.id,))


def _warranty(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    if _days(order["delivered_on"], ticket["opened_on"]) <= policy.days[0]:
        return Decision("escalated", f"Warranty: {order['item']} of {order['id']} is defective.", team=policy.team)
    return Decision("declined", f"The warranty of {order['id']} has ended, we are sorry.", cites=(policy.id,))


def _address(order: JsonObject, policy: Policy, ticket: JsonObject) -> Decision:
    new = re.search(r"to: (.+?), (\d+) (.+?)\.", ticket["body"])
    if new and order["status"] in policy.text:
        address = {"street": new[1], "town": new[3], "postcode": new[2]}
        return Decision(
            "address_changed", f"{order['id']} goes to {new[1]}, {new[3]}.", order=order["id"], address=address
        )
    return Decision("declined", f"{order['id']} has left and can't be redirected.", cites=(policy.id,))


def _refund(order: JsonObject, policy: Policy, cents: int) -> Decision:
    if cents > policy.cents("refunds up to"):
        return Decision("escalated", f"A refund of {cents} cents for {order['id']} is due.", team=policy.team)
    reply = f"We are sorry. {cents / 100:.2f} for {order['id']} are on their way back to you."
    return Decision("refunded", reply, refund_cents=cents, order=order["id"], cites=(policy.id,))


_RULES: tuple[tuple[str, str, Rule], ...] = (
    (r"two payments|charged twice", "double charges", _charge),
    (r"address|have moved", "address changes", _address),
    (r"instead of|wrong item", "wrong item", _wrong_item),
    (r"warranty", "warranty", _warranty),
    (r"send back|to return", "returns", _return),
    (r"not arrived|still waiting", "late parcels", _late),
)
"""(pattern in the letter, topic of the policy, rule). The first match is used."""


def _carry_out(case: Case, id: str, decision: Decision) -> None:
    """Carry out the decision. The ticket is closed last, so a closed ticket means that everything is done."""
    read_order, read_ticket = ("get_order", {"order": decision.order}), ("get_ticket", {"ticket": id})
    about: JsonObject = {"ticket": id, "order": decision.order}
    if cents := decision.refund_cents:
        refund = ("issue_refund", {**about, "amount_cents": cents, "reason": "policy"})
        case.act("The rules allow a refund.", refund, read_order, lambda seen: id in _refunded(seen))
    if new := decision.address:
        move = ("change_address", {**about, "address": new})
        case.act(
            "The parcel is still here: relabel it.", move, read_order, lambda seen: seen["street"] == new["street"]
        )
    if team := decision.team:
        summary = {"priority": decision.priority, "summary": decision.reply}
        hand_over = ("escalate", {"ticket": id, "team": team, **summary})
        case.act(f"This is for the team {team}.", hand_over, read_ticket, lambda seen: seen["status"] == "escalated")
    else:
        close = ("reply_and_close", {"ticket": id, "reply": decision.reply, "cites": list(decision.cites)})
        case.act("Answering the customer.", close, read_ticket, lambda seen: seen["status"] == "closed")


def _refunded(order: JsonObject) -> list[str]:
    return [refund["ticket"] for refund in order["refunds"]]


def _days(since: str, until: str) -> int:
    return (date.fromisoformat(until) - date.fromisoformat(since)).days
