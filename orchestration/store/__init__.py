"""The truth in Redis: one script per decision, its contract above it in `lua/`."""

from __future__ import annotations

from orchestration.store.operations import Operations
from orchestration.store.redis_store import RedisStore

__all__ = ["Operations", "RedisStore"]
