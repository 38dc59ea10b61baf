"""Naive fleets, the baseline of `bench judged`: Celery tasks that call a vendor's SDK, as in tutorials.

`bench.judged.trial` runs it as `celery -A midwatch.workers.bench.judged.naive worker`, with the server in NAIVE_REDIS_URL
and the vendors' variables. It is not part of the product, which uses the SDKs through `workers.providers` only.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

import redis
from celery import Celery
from celery.signals import task_failure, task_success

URL_VARIABLE = "NAIVE_REDIS_URL"
URL = os.environ.get(URL_VARIABLE, "redis://127.0.0.1:6379/0")
ANSWERED, LOST = "naive:answered", "naive:lost"
"""Keys with the number of answered and lost tasks."""

app = Celery("naive", broker=URL)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)

store = redis.Redis.from_url(URL)


@cache
def client(vendor: str) -> Any:
    """Return the vendor's client with its defaults. It retries twice and obeys Retry-After."""
    sdk = importlib.import_module(vendor)
    return sdk.Anthropic() if vendor == "anthropic" else sdk.OpenAI()


def ask(vendor: str, question: str) -> None:
    """Make one call."""
    if vendor == "anthropic":
        messages = [{"role": "user", "content": question}]
        client(vendor).messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=messages)
    else:
        client(vendor).responses.create(model="gpt-5-2025-08-07", max_output_tokens=50, input=question)


@app.task(name="naive.sdk")
def sdk(vendor: str, question: str) -> None:
    """Make a call with the SDK's retries only."""
    ask(vendor, question)


@app.task(name="naive.autoretry", autoretry_for=(Exception,), retry_backoff=True, retry_jitter=True, max_retries=3)
def autoretry(vendor: str, question: str) -> None:
    """Make a call with Celery's exponential backoff and full jitter on top of the SDK's retries, as in Celery's guide."""
    ask(vendor, question)


@task_success.connect
def _count_answered(**_: object) -> None:
    store.incr(ANSWERED)


@task_failure.connect
def _count_lost(**_: object) -> None:
    store.incr(LOST)
