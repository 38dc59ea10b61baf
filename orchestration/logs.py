"""Loggers that import structlog at their first line of log.

A command that lists jobs, or a producer, logs nothing. The import would cost it as much CPU as the rest of its work (0.15 s).
"""

from __future__ import annotations

import sys
from typing import Any

_to_stderr = False


class LazyLogger:
    """A structlog logger that is made at its first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def __getattr__(self, method: str) -> Any:
        if self._logger is None:
            import structlog

            if _to_stderr and not structlog.is_configured():
                structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
            self._logger = structlog.get_logger(self._name)
        return getattr(self._logger, method)


def get_logger(name: str) -> Any:
    """Return a logger. This is structlog's function, imported at its first use."""
    return LazyLogger(name)


def log_to_stderr() -> None:
    """Let this process log to stderr, unless it configures structlog. structlog's default is stdout, where data goes."""
    global _to_stderr
    _to_stderr = True
