"""Keeps the SDKs' debug logs, which hold whole prompts, out of a worker that logs at DEBUG."""

from __future__ import annotations

import logging


def quiet(name: str) -> None:
    """Raise the SDK's logger to INFO, unless somebody set its level (`ANTHROPIC_LOG=debug`, `OPENAI_LOG=debug`)."""
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
