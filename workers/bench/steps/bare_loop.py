"""The bare Celery loop: an agent as a good developer would write it by hand. It is the baseline of `bench steps`.

It stores the history after every step and continues from it. It does not claim steps, find duplicates, validate calls or
recover the steps of a dead worker. `midwatch.workers.bench.steps.baseline` runs it as
`celery -A midwatch.workers.bench.steps.bare_loop worker`, with the server in BARE_REDIS_URL.
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
"""Does a step read and decode the conversation? A step with a real model must. Otherwise it reads only the length, which is
the most favourable variant for bare Celery."""

TICKET = "Ticket 4711: the parcel was left with a neighbour who has moved. "
RESULT_BYTES = 1_024

app = Celery("bare", broker=URL)
app.conf.update(task_ignore_result=True, task_serializer="json", accept_content=["json"])

store = redis.Redis.from_url(URL)


def call_model(known: int, left: int) -> dict[str, Any]:
    """Answer at once: with a tool call with small arguments, and in the last step with the final answer."""
    if left == 1:
        return {"role": "assistant", "content": f"Found it after {known} messages."}
    call = {"name": "search_tickets", "arguments": json.dumps({"query": "parcel", "status": "open"})}
    return {"role": "assistant", "tool_calls": [{"id": f"call_{known}", "type": "function", "function": call}]}


def search_tickets(query: str, status: str) -> str:
    """Return a result of 1 KB."""
    return (f"{status} {query}: " + TICKET * (RESULT_BYTES // len(TICKET) + 1))[:RESULT_BYTES]


@app.task(name="bare.step")
def step(job_id: str, left: int) -> None:
    """Run one model turn and its tool call, store both, and send the next step. `left` counts the remaining steps."""
    history = f"bare:{job_id}:history"
    known = len([json.loads(row) for row in store.lrange(history, 0, -1)]) if READ_HISTORY else store.llen(history)
    reply = call_model(known, left)
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
