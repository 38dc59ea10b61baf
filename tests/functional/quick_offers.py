"""An agent module whose worker offers an unreadable step again at once, because a test can't wait a minute for the last try."""

from __future__ import annotations

from midwatch.orchestration.steps import runner
from tests.functional.fleet_agents import agent

runner.UNREADABLE_WAIT_MS = 20

hasty_reader = agent("hasty-reader")
