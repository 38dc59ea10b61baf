"""Naive fleets, the yardstick of `bench judged`: Celery tasks that call a vendor's SDK, as tutorials write them.

`bench.judged.trial` runs it as `celery -A midwatch.workers.bench.judged.naive worker`, with the server in NAIVE_REDIS_URL
and the vendors' own variables. It is not part of the product, which reaches the SDKs through `workers.providers` only.
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
"""How many tasks ended so."""

app = Celery("naive", broker=URL)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)

store = redis.Redis.from_url(URL)


@cache
def client(vendor: str) -> Any:
    """The vendor's client with its defaults: two retries of its own, which obey Retry-After."""
    sdk = importlib.import_module(vendor)
    return sdk.Anthropic() if vendor == "anthropic" else sdk.OpenAI()


def ask(vendor: str, question: str) -> None:
    """One call."""
    if vendor == "anthropic":
        messages = [{"role": "user", "content": question}]
        client(vendor).messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=messages)
    else:
        client(vendor).responses.create(model="gpt-5-2025-08-07", max_output_tokens=50, input=question)


@app.task(name="naive.sdk")
def sdk(vendor: str, question: str) -> None:
    """The SDK's retries, and no others."""
    ask(vendor, question)


@app.task(name="naive.autoretry", autoretry_for=(Exception,), retry_backoff=True, retry_jitter=True, max_retries=3)
def autoretry(vendor: str, question: str) -> None:
    """Celery's exponential backoff with full jitter over the SDK's retries: its documentation's own example."""
    ask(vendor, question)


@task_success.connect
def _answered(**_: object) -> None:
    store.incr(ANSWERED)


@task_failure.connect
def _lost(**_: object) -> None:
    store.incr(LOST)
