"""A model whose calls drift out of their schema: nothing fails silently, nearly every job ends well, the drift is counted."""

from __future__ import annotations

import json
import random

from midwatch import Agent, ContextBudget, RunLimits, tool
from midwatch.orchestration.drift.counts import drift_rows
from midwatch.schemas.message import Text, ToolCall
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.testing import InlineFleet

JOBS = 1_000
TURNS = 4
DRIFT = 0.08
LARGE_TOKENS = 50_000
INSTRUCTIONS = "Book. " + "Read each order twice, then book the amount in cents and nothing else. " * 1_800
"""Their weight is about 25,000, so that the reported 40,000 and 60,000 tokens can be true (`find_impossible`)."""

ran: list[dict[str, object]] = []


@tool
def book(order_id: str, amount: int) -> str:
    """Book an amount.

    Args:
        order_id: Which order.
        amount: In cents.

    """
    ran.append({"order_id": order_id, "amount": amount})
    return "booked"


class Drifting:
    """Above 50,000 tokens, 8 % of its calls are wrong in one of the ways that real models were seen to be."""

    name = "drifting"

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.wrong = 0

    def complete(self, request: ModelRequest) -> ModelReply:
        """Books four times, then says so."""
        asked = request.messages[0].text
        tokens = int(asked.partition(" ")[0])
        booked = sum(message.role == "tool" and not message.is_error for message in request.messages)
        usage = Usage(input_tokens=tokens + booked, output_tokens=10)
        if booked >= TURNS:
            return ModelReply(parts=(Text(text=f"Booked {booked}."),), stop=Stop.END, usage=usage, model="m")
        arguments = json.dumps({"order_id": f"W{booked}", "amount": 100})
        if tokens > LARGE_TOKENS and self.rng.random() < DRIFT:
            self.wrong += 1
            arguments = self.rng.choice(
                [
                    "{}",
                    '{"order_id":"W1","amount":"100"}',
                    '{"order_id":null,"amount":1}',
                    arguments[:-4],
                    "{'order_id': 1}",
                ]
            )
        call = ToolCall(id="same", name="book", raw_arguments=arguments)
        return ModelReply(parts=(call,), stop=Stop.TOOLS, usage=usage, model="m")

    def count(self, request: ModelRequest) -> None:
        """It has no counter."""


def test_a_thousand_jobs_of_a_drifting_model() -> None:
    """No job fails silently. At least 99 % complete, the others are dead letters with a reason. The findings have the rate."""
    ran.clear()
    model = Drifting(7)
    agent = Agent(
        "clerk", "openai:gpt-5-2025-08-07", INSTRUCTIONS, [book], limits=RunLimits(max_steps=30),
        context_budget=ContextBudget(max_tokens=200_000),
    )  # fmt: skip
    fleet = InlineFleet(agent, model=model)
    results = [fleet.run(fleet.enqueue(agent, f"{40_000 if n % 2 else 60_000} tokens, job {n}")) for n in range(JOBS)]
    done = [result for result in results if result.status == "completed"]
    dead = [result for result in results if result.status == "dead_lettered"]
    assert len(done) + len(dead) == JOBS
    assert len(done) >= 0.99 * JOBS
    assert all(result.failure and result.failure.detail.startswith("repeated_failure") for result in dead)
    assert all(result.output == f"Booked {TURNS}." for result in done)
    assert all(isinstance(call["order_id"], str) and type(call["amount"]) is int for call in ran)
    large, small = drift_rows((name, count) for (_, name), count in fleet.store.drift_counters(2).items())
    assert (large.tool, large.band, small.band) == ("book", "50k-100k", "10k-50k")
    assert (large.invalid, small.invalid) == (model.wrong, 0)
    assert 0.05 < large.rate < 0.11
