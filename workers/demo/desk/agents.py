"""The desk's tools, and two agents that use them, one for each of two vendors.

The tools show two ways to declare an input: by the function's signature, and by a given JSON Schema. Every write passes the
idempotency key of its call to the desk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from midwatch import Agent, ContextBudget, GoalContract, RetryConfig, RunLimits, ToolContext, tool
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.demo.desk.desk import Desk, ServiceFaults

TicketId = Annotated[str, Field(pattern=r"^T-\d{4,5}$", description="Ticket number, such as T-0042.")]
OrderId = Annotated[str, Field(pattern=r"^O-\d{6}$", description="Order number, such as O-100423.")]

AGAIN = RetryConfig(max_retries=4, base_s=0.2, cap_s=3.0, retry_on=(FailureKind.CONNECTION, FailureKind.TIMEOUT))
"""A call to a service that is down is retried with the same key, so its effect counts once."""

PROMPT = """\
You work the support desk of Tallow & Tide, a mail-order shop. You are given one ticket; see it through to its end.

Read the ticket, look up what it is about, and find the policy for it with search_knowledge ("policy ..."). Decide by
the policy, not by sympathy. What the policy lets the desk do, do; hand everything else to the team that it names.
Answer questions about the goods from the knowledge base, and cite the page. Never speak about an order to anyone but
the customer who placed it. When a call fails, look whether it took effect before you make it again.
Close or hand over the ticket last. Then answer with the resolution, as JSON and nothing else."""


class Resolution(BaseModel):
    """The final answer: how the ticket ended."""

    model_config = ConfigDict(extra="forbid")

    ticket: str
    resolution: Literal["refunded", "address_changed", "answered", "declined", "escalated", "unfinished"]
    refund_cents: int
    team: str


@dataclass(frozen=True)
class Address:
    """The address of a parcel."""

    street: str
    town: str
    postcode: str


def open_demo_desk() -> Desk:
    """Open the desk of `MIDWATCH_DEMO_DB`. `MIDWATCH_DEMO_FLAKY` and `_SLOW_MS` set the faults of its services."""
    path = os.environ.get("MIDWATCH_DEMO_DB")
    if not path:
        raise ConfigError(
            "MIDWATCH_DEMO_DB: expected the path of the demo's desk, got nothing; `midwatch demo` sets this variable"
        )
    faults = ServiceFaults(
        flaky=float(os.environ.get("MIDWATCH_DEMO_FLAKY", "0")),
        slow_ms=int(os.environ.get("MIDWATCH_DEMO_SLOW_MS", "20")),
        seed=int(os.environ.get("MIDWATCH_DEMO_SEED", "0")),
    )
    return Desk(path, faults)


@tool(
    name="search_tickets",
    description="Search tickets, newest first, by part of the sender's address, the subject or the text. Shows what a "
    "customer wrote before. To read a ticket whose number is known, use get_ticket.",
    validator=JSONSchemaValidator(
        {
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 3, "maxLength": 200, "description": "What to look for."},
                "status": {"type": "string", "enum": ["open", "closed", "escalated", "any"]},
                "limit": {"type": "integer", "minimum": 1, "maximum": 20},
            },
            "required": ["query", "status", "limit"],
            "additionalProperties": False,
        }
    ),
    idempotent=True,
)
def search_tickets(query: str, status: str, limit: int) -> list[JsonObject]:
    """Search tickets that contain the query."""
    return open_demo_desk().search_tickets(query, status, limit)


@tool(idempotent=True)
def get_ticket(ticket: TicketId) -> JsonObject:
    """Read one ticket: the letter, its status, and how it was answered."""
    return open_demo_desk().ticket(ticket)


@tool(idempotent=True)
def find_customer(email: str) -> JsonObject:
    """Find a customer by e-mail address, with a list of their orders.

    Args:
        email: the address the ticket came from.
    """
    return open_demo_desk().customer(email)


@tool(idempotent=True)
def get_order(order: OrderId) -> JsonObject:
    """Read one order: item, status, dates, address, payments, and the refunds made for it."""
    return open_demo_desk().order(order)


@tool(idempotent=True, inline=True)
def search_knowledge(query: str, limit: Annotated[int, Field(ge=1, le=5)] = 3) -> list[JsonObject]:
    """Search the knowledge base: policies of the house, and care and use of the goods.

    Args:
        query: the customer's question, or "policy" and what it is about.
        limit: how many articles at most, the nearest first.
    """
    return open_demo_desk().search_knowledge(query, limit)


@tool(
    name="issue_refund",
    description="Pay back part or all of an order to the customer. Only what the policy allows the desk.",
    validator=JSONSchemaValidator(
        {
            "type": "object",
            "properties": {
                "ticket": {"type": "string", "pattern": r"^T-\d{4,5}$"},
                "order": {"type": "string", "pattern": r"^O-\d{6}$"},
                "amount_cents": {"type": "integer", "minimum": 1, "maximum": 100_000, "description": "49.90 is 4990."},
                "reason": {"type": "string", "enum": ["policy", "goodwill"]},
            },
            "required": ["ticket", "order", "amount_cents", "reason"],
            "additionalProperties": False,
        }
    ),
    idempotent=True,
    downstream="payments",
    retry=AGAIN,
)
def issue_refund(context: ToolContext, ticket: str, order: str, amount_cents: int, reason: str) -> JsonObject:
    """Pay a refund. It is paid once for the key of this call."""
    key, attempt = context.idempotency_key, context.attempt
    done = open_demo_desk().issue_refund(
        key=key, ticket=ticket, order=order, amount_cents=amount_cents, attempt=attempt
    )
    return {"refund": f"R-{done.id}", "order": order, "amount_cents": done.amount_cents, "reason": reason}


@tool(idempotent=True, retry=AGAIN)
def change_address(context: ToolContext, ticket: TicketId, order: OrderId, address: Address) -> JsonObject:
    """Send an order to another address. Works while the order is processing or packed."""
    where = {"street": address.street, "town": address.town, "postcode": address.postcode}
    key, attempt = context.idempotency_key, context.attempt
    done = open_demo_desk().change_address(key=key, ticket=ticket, order=order, attempt=attempt, **where)
    return {"relabelled": f"A-{done.id}", "order": order, **where}


@tool(idempotent=True, retry=AGAIN)
def escalate(
    context: ToolContext,
    ticket: TicketId,
    team: Literal["refunds", "shipping", "payments", "workshop", "complaints", "security", "lead"],
    priority: Literal["normal", "high"],
    summary: Annotated[str, Field(min_length=1, max_length=2_000)],
) -> JsonObject:
    """Hand a ticket to a team of people, with a summary of what was found. Ends the desk's own work on it."""
    key = context.idempotency_key
    done = open_demo_desk().escalate(key=key, ticket=ticket, team=team, priority=priority, summary=summary)
    return {"handed_over": f"E-{done.id}", "ticket": ticket, "team": team}


@tool(idempotent=True, retry=AGAIN)
def reply_and_close(
    context: ToolContext,
    ticket: TicketId,
    reply: Annotated[str, Field(min_length=1, max_length=4_000, description="What the customer reads.")],
    cites: Annotated[list[str], Field(description="Ids of the articles and tickets the reply rests on; may be empty.")],
) -> JsonObject:
    """Answer the customer and close the ticket."""
    done = open_demo_desk().reply_and_close(key=context.idempotency_key, ticket=ticket, reply=reply, cites=cites)
    return {"closed": f"X-{done.id}", "ticket": ticket}


TOOLS = (
    search_tickets,
    get_ticket,
    find_customer,
    get_order,
    search_knowledge,
    issue_refund,
    change_address,
    escalate,
    reply_and_close,
)
"""The tools in the order in which the model sees them."""


def _agent(name: str, model: str) -> Agent:
    return Agent(
        name=name,
        model=model,
        system_prompt=PROMPT,
        tools=TOOLS,
        retry_config=RetryConfig(max_retries=8, base_s=0.5, cap_s=20.0),
        context_budget=ContextBudget(max_tokens=32_000, reserve_output=2_000),
        limits=RunLimits(max_steps=30, session_timeout_s=900.0, call_timeout_s=20.0),
        output_schema=Resolution,
        goal=GoalContract(
            objective="See one ticket through to its end, by the policy.",
            deliverables=("the ticket closed or handed over", "its resolution as JSON"),
        ),
    )


claude = _agent("desk-claude", "claude-sonnet-4-6")
gpt = _agent("desk-gpt", "gpt-5.5-2026-04-23")
