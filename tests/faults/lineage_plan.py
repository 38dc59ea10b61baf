"""What a captain and its porters do, and the captain's limits: see `lineage_agents.py`."""

from __future__ import annotations

PORTERS = 8
LOADS = 3
"""Turns in which a porter carries, before it reports."""
MAX_TOOL_CALLS = 9
MAX_STEPS = 20
