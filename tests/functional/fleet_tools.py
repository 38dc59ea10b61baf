"""The tools of the functional tests, one for each way in which a tool may behave. Worker processes load them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from midwatch import RetryConfig, ToolContext, ToolError, tool
from midwatch.validators import JSONSchemaValidator
from tests.functional.fleet_marks import is_open, mark, marks, until


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def greet(name: str) -> str:
    """Greet a person, in a coroutine."""
    await asyncio.sleep(0)
    return f"Good evening, {name}."


@tool
def ping(text: str = "pong") -> str:
    """Answer. All arguments are optional."""
    return text


@tool(inline=True)
def peek(place: str, context: ToolContext) -> str:
    """Look at a place, as an inline call."""
    mark(f"peek-{context.job_id}", place)
    if place == "nowhere":
        raise ToolError("there is no such place")
    return f"{place}: nothing new"


@tool(inline=True, idempotent=True)
def flicker(context: ToolContext) -> str:
    """Look, as an inline call. The first call fails."""
    mark(f"flicker-{context.job_id}", [context.attempt, context.idempotency_key])
    if len(marks(f"flicker-{context.job_id}")) == 1:
        raise ConnectionError("the lamp went out")
    return "the lamp burns"


@tool
def who(context: ToolContext) -> dict[str, Any]:
    """Return what a tool may know of its call."""
    return {
        "job_id": context.job_id,
        "step_id": context.step_id,
        "session_id": context.session_id,
        "tenant": context.tenant,
        "idempotency_key": context.idempotency_key,
        "attempt": context.attempt,
        "in_time": 0 < context.remaining_s() <= 30 and context.deadline > time.monotonic(),
        "cancelled": context.cancelled(),
        "artifact": context.artifact("note.txt", "kept beside the session"),
    }


@tool
def meet(number: int, of: int, context: ToolContext) -> str:
    """Wait until `of` calls run at the same time, then leave one after the other, the last one first."""
    came, left = f"came-{context.job_id}", f"left-{context.job_id}"
    mark(came, number)
    if not until(lambda: len(marks(came)) >= of):
        raise RuntimeError(f"only {len(marks(came))} of {of} calls ran at the same time")
    until(lambda: len(marks(left)) >= of - number)
    mark(left, number)
    return f"call {number} of {of}"


@tool
def find_order(number: str) -> str:
    """Find an order."""
    raise ToolError(f"there is no order {number}; ask for the number on the receipt")


@tool(idempotent=True)
def unsteady(failures: int, context: ToolContext) -> str:
    """Fail a number of times, then work. May be repeated."""
    name = f"unsteady-{context.job_id}"
    mark(name, [context.attempt, context.idempotency_key])
    if len(marks(name)) <= failures:
        raise ConnectionError("the order system does not answer")
    return f"answered at try {len(marks(name))}"


@tool
def unrepeatable(context: ToolContext) -> str:
    """Fail. Must not be repeated."""
    mark(f"unrepeatable-{context.job_id}", context.attempt)
    raise ConnectionError("the payment system does not answer")


@tool(retry=RetryConfig(max_retries=0, retry_on=(), fail_hard_on=("tool_error",)))
def vital(context: ToolContext) -> str:
    """Fail in a way that ends the job, until a mark says that it is repaired."""
    mark(f"vital-{context.job_id}", context.attempt)
    if not is_open("vital-mended"):
        raise RuntimeError("the vault is closed")
    return "the vault is open"


def numbered_lines(size_bytes: int) -> str:
    """Return a text in which every place is different from every other."""
    return "".join(f"line {number:08d}\n" for number in range(size_bytes // 14 + 1))[:size_bytes]


@tool(max_result_tokens=200)
def report(size_bytes: int) -> str:
    """Return a long text of numbered lines."""
    return numbered_lines(size_bytes)


@tool
def measure() -> dict[str, float]:
    """Return a value that JSON does not have."""
    return {"depth": float("nan")}


@tool(timeout_s=0.2)
def drowse(context: ToolContext) -> str:
    """Run longer than the tool's timeout."""
    mark(f"drowse-{context.job_id}", context.attempt)
    until(lambda: False, 0.6)
    return "too late"


@tool(timeout_s=0.1, inline=True)
def nod() -> str:
    """Run longer than the timeout, as an inline call."""
    until(lambda: False, 0.3)
    return "too late"


@tool(timeout_s=2, idempotent=True, retry=RetryConfig(max_retries=1, base_s=0.05, cap_s=0.05, retry_on=("timeout",)))
async def drowse_once(context: ToolContext) -> str:
    """Run longer than the timeout at the first attempt, in a coroutine."""
    mark(f"drowse-once-{context.job_id}", context.attempt)
    if len(marks(f"drowse-once-{context.job_id}")) == 1:
        await asyncio.sleep(60)
    return "awake"


@tool(
    name="search",
    description="Search the shelves.",
    validator=JSONSchemaValidator(
        {
            "type": "object",
            "properties": {
                "shelf": {"enum": ["north", "south"]},
                "rows": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            },
            "required": ["shelf", "rows"],
            "additionalProperties": False,
        }
    ),
)
def search(context: ToolContext, **arguments: Any) -> str:
    """Search. Counts how often it ran."""
    mark(f"search-{context.job_id}", arguments)
    return f"{arguments['shelf']} {arguments['rows']}: two books"


@tool
def long_haul(context: ToolContext) -> str:
    """Work in pieces, and check between them whether the job was cancelled."""
    mark(f"haul-{context.job_id}", "begun")
    seen = until(context.cancelled)
    mark(f"haul-{context.job_id}", "told" if seen else "never told")
    return "given up"


@tool
def idle(gate: str) -> str:
    """Run until the gate is open."""
    until(lambda: is_open(gate))
    return "rested"


@tool(idempotent=True)
def stall(gate: str) -> str:
    """Run until the gate is open, then fail."""
    until(lambda: is_open(gate))
    raise ConnectionError("the line is dead")


@tool
def nest(kind: Literal["run", "enqueue"]) -> str:
    """Try to wait for a job of the same fleet."""
    from tests.functional.fleet_agents import plain

    if kind == "run":
        return str(plain.run("a job within a job", timeout_s=1).output)
    return plain.enqueue("a job beside a job").id


@tool(requires_approval=True)
def wipe(target: str, context: ToolContext) -> str:
    """Wipe something. A human must always approve."""
    mark(f"wipe-{context.job_id}", target)
    return f"wiped {target}"


@tool(requires_approval=lambda arguments: bool(arguments["amount"] > 100))
def pay(amount: int, context: ToolContext) -> str:
    """Pay. A human must approve large amounts."""
    mark(f"pay-{context.job_id}", amount)
    return f"paid {amount}"


def _undecided(arguments: dict[str, Any]) -> bool:
    raise KeyError("amount")


@tool(requires_approval=_undecided)
def gamble(context: ToolContext) -> str:
    """Run with an approval rule that has a bug."""
    mark(f"gamble-{context.job_id}", True)
    return "won"


@tool(inline=True)
def ship(parcel: str, context: ToolContext) -> str:
    """Ship a parcel. The agent's policy lets a human approve it."""
    mark(f"ship-{context.job_id}", parcel)
    return f"shipped {parcel}"
