"""The tools of the functional tests: one for each way in which a tool may behave. Loaded by worker processes."""

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
    """Greet somebody, in a coroutine."""
    await asyncio.sleep(0)
    return f"Good evening, {name}."


@tool
def ping(text: str = "pong") -> str:
    """Answer. Takes nothing that must be given."""
    return text


@tool(inline=True)
def peek(place: str, context: ToolContext) -> str:
    """Look at a place, within the model step."""
    mark(f"peek-{context.job_id}", place)
    if place == "nowhere":
        raise ToolError("there is no such place")
    return f"{place}: nothing new"


@tool(inline=True, idempotent=True)
def flicker(context: ToolContext) -> str:
    """Look, within the model step; the first look fails."""
    mark(f"flicker-{context.job_id}", [context.attempt, context.idempotency_key])
    if len(marks(f"flicker-{context.job_id}")) == 1:
        raise ConnectionError("the lamp went out")
    return "the lamp burns"


@tool
def who(context: ToolContext) -> dict[str, Any]:
    """Tell what a tool may know of its call."""
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
    """Wait until all have come, then leave one after the other, the last one first: only parallel calls get through."""
    came, left = f"came-{context.job_id}", f"left-{context.job_id}"
    mark(came, number)
    if not until(lambda: len(marks(came)) >= of):
        raise RuntimeError(f"only {len(marks(came))} of {of} calls ran beside each other")
    until(lambda: len(marks(left)) >= of - number)
    mark(left, number)
    return f"call {number} of {of}"


@tool
def find_order(number: str) -> str:
    """Find an order."""
    raise ToolError(f"there is no order {number}; ask for the number on the receipt")


@tool(idempotent=True)
def unsteady(failures: int, context: ToolContext) -> str:
    """Fail so many times, then work. May be repeated."""
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
    """Fail, in a way that ends the job, until it is mended."""
    mark(f"vital-{context.job_id}", context.attempt)
    if not is_open("vital-mended"):
        raise RuntimeError("the vault is closed")
    return "the vault is open"


def numbered_lines(size_bytes: int) -> str:
    """A text in which every place can be told from every other."""
    return "".join(f"line {number:08d}\n" for number in range(size_bytes // 14 + 1))[:size_bytes]


@tool(max_result_tokens=200)
def report(size_bytes: int) -> str:
    """Return a long text of numbered lines."""
    return numbered_lines(size_bytes)


@tool
def measure() -> dict[str, float]:
    """Return what JSON can't say."""
    return {"depth": float("nan")}


@tool(timeout_s=0.2)
def drowse(context: ToolContext) -> str:
    """Take longer than it may."""
    mark(f"drowse-{context.job_id}", context.attempt)
    until(lambda: False, 0.6)
    return "too late"


@tool(timeout_s=0.1, inline=True)
def nod() -> str:
    """Take longer than it may, within the model step."""
    until(lambda: False, 0.3)
    return "too late"


@tool(timeout_s=2, idempotent=True, retry=RetryConfig(max_retries=1, base_s=0.05, cap_s=0.05, retry_on=("timeout",)))
async def drowse_once(context: ToolContext) -> str:
    """Take longer than it may at the first try, in a coroutine."""
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
    """Search. Counts how often it really ran."""
    mark(f"search-{context.job_id}", arguments)
    return f"{arguments['shelf']} {arguments['rows']}: two books"


@tool
def long_haul(context: ToolContext) -> str:
    """Work in pieces, and look between them whether the result is still wanted."""
    mark(f"haul-{context.job_id}", "begun")
    seen = until(context.cancelled)
    mark(f"haul-{context.job_id}", "told" if seen else "never told")
    return "given up"


@tool
def idle(gate: str) -> str:
    """Take its time, until the gate is open."""
    until(lambda: is_open(gate))
    return "rested"


@tool(idempotent=True)
def stall(gate: str) -> str:
    """Take its time, until the gate is open, and fail."""
    until(lambda: is_open(gate))
    raise ConnectionError("the line is dead")


@tool
def nest(kind: Literal["run", "enqueue"]) -> str:
    """Try to wait for the fleet from inside the fleet."""
    from tests.functional.fleet_agents import plain

    if kind == "run":
        return str(plain.run("a job within a job", timeout_s=1).output)
    return plain.enqueue("a job beside a job").id


@tool(requires_approval=True)
def wipe(target: str, context: ToolContext) -> str:
    """Wipe something. A human is asked, always."""
    mark(f"wipe-{context.job_id}", target)
    return f"wiped {target}"


@tool(requires_approval=lambda arguments: bool(arguments["amount"] > 100))
def pay(amount: int, context: ToolContext) -> str:
    """Pay. A human is asked about large amounts."""
    mark(f"pay-{context.job_id}", amount)
    return f"paid {amount}"


def _undecided(arguments: dict[str, Any]) -> bool:
    raise KeyError("amount")


@tool(requires_approval=_undecided)
def gamble(context: ToolContext) -> str:
    """Ask a rule that is broken itself."""
    mark(f"gamble-{context.job_id}", True)
    return "won"


@tool(inline=True)
def ship(parcel: str, context: ToolContext) -> str:
    """Ship a parcel. The agent's policy asks a human."""
    mark(f"ship-{context.job_id}", parcel)
    return f"shipped {parcel}"
