"""The agent of `bench replay`: one model call, through a vendor's SDK. Its dead letters are redriven."""

from __future__ import annotations

import os

from midwatch import Agent, RetryConfig, RunLimits
from midwatch.workers.bench.replay.plan import Plan
from midwatch.workers.bench.storm_real.call import MODEL

PLAN = Plan.model_validate_json(os.environ.get(Plan.VARIABLE, "{}"))

agent = Agent(
    "replay",
    MODEL,
    "You do as you are told.",
    retry_config=RetryConfig(redrive="auto"),
    limits=RunLimits(session_timeout_s=3_600, max_wait_s=PLAN.max_wait_s),
)
