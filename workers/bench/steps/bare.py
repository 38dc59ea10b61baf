"""The bare Celery loop: an agent as a competent user writes it by hand, the yardstick of `bench steps`.

It keeps the whole history after every step and carries on from there, and that is all: nothing claims a step or notices
a duplicate, nothing is validated, nobody brings back what a dead worker held. `midwatch.workers.bench.steps.baseline` runs it as
`celery -A midwatch.workers.bench.steps.bare worker`, with the server in BARE_REDIS_URL.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import redis
from celery import Celery

URL = os.environ.get("BARE_REDIS_URL", "redis://127.0.0.1:6379/0")
READ_HISTORY = os.environ.get("BARE_READ_HISTORY") == "1"
"""Whether a step reads and decodes the conversation, as one that calls a real model must. Without, it asks for the
length only: the variant most favourable to bare Celery."""

TICKET = "Ticket 4711: the parcel was left with a neighbour who has moved. "
RESULT_BYTES = 1_024

app = Celery("bare", broker=URL)
app.conf.update(task_ignore_result=True, task_serializer="json", accept_content=["json"])

store = redis.Redis.from_url(URL)


def ask_model(known: int, left: int) -> dict[str, Any]:
    """A model that answers at once: a tool call with small arguments, and with the last step the final answer."""
    if left == 1:
        return {"role": "assistant", "content": f"Found it after {known} messages."}
    call = {"name": "search_tickets", "arguments": json.dumps({"query": "parcel", "status": "open"})}
    return {"role": "assistant", "tool_calls": [{"id": f"call_{known}", "type": "function", "function": call}]}


def search_tickets(query: str, status: str) -> str:
    """A trivial tool with a result of 1 KB."""
    return (f"{status} {query}: " + TICKET * (RESULT_BYTES // len(TICKET) + 1))[:RESULT_BYTES]


@app.task(name="bare.step")
def step(job_id: str, left: int) -> None:
    """One model turn and its tool call, made durable together; then the next step. `left` counts down to the last."""
    history = f"bare:{job_id}:history"
    known = len([json.loads(row) for row in store.lrange(history, 0, -1)]) if READ_HISTORY else store.llen(history)
    reply = ask_model(known, left)
    messages = [reply]
    for call in reply.get("tool_calls", ()):
        result = search_tickets(**json.loads(call["function"]["arguments"]))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    reply["at_s"] = time.time()
    with store.pipeline() as pipe:
        pipe.rpush(history, *map(json.dumps, messages))
        pipe.hincrby(f"bare:{job_id}", "steps", 1)
        if left == 1:
            pipe.rpush("bare:done", job_id)
        pipe.execute()
    if left > 1:
        step.delay(job_id, left - 1)
