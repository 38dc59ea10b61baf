"""A Celery application of other people, which shares its broker with a fleet. It has Celery's defaults."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="shop.add")
def add(one: int, other: int) -> int:
    """Add two numbers, and show the sum in the log."""
    print(f"sum {one + other}")
    return one + other
