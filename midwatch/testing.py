"""Run an agent in a plain test, without a server, a network or waiting."""

from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.orchestration.testing.run_inline import forbid_real_models, run_inline
from midwatch.orchestration.testing.scripted_model import ScriptedModel, call

__all__ = ["InlineFleet", "ManualClock", "ScriptedModel", "call", "forbid_real_models", "run_inline"]
