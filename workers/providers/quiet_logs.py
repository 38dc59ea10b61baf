"""Keeps the SDKs' debug logs out of a worker that logs at DEBUG, because they contain whole prompts."""

from __future__ import annotations

import logging


def silence_debug_logs(name: str) -> None:
    """Set the SDK's logger to INFO, unless its level is set already (`ANTHROPIC_LOG=debug`, `OPENAI_LOG=debug`)."""
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
