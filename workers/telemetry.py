"""Logging: structlog lines that hold ids and numbers, and no prompt, answer, argument or key."""

from __future__ import annotations

import logging
import sys
import threading
import time

import structlog

from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.workers.settings import Settings


def configure(settings: Settings) -> None:
    """Write one line per event to stderr, for events of structlog and of the standard library."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if settings.log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
                _hide_passwords,
            ],
        )
    )
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # The SDKs log whole prompts at DEBUG, and Celery logs a line per task at INFO. Both are suppressed.
    for name in ("anthropic", "openai", "httpx2", "httpcore2", "celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _hide_passwords(_logger: object, _name: str, line: object) -> str:
    """Hide the passwords of URLs in a finished line, also in its traceback."""
    return hide_passwords(str(line))


FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
REMEMBERED_LINES = 500


class RepeatFilter(logging.Filter):
    """Slows down warnings and errors that repeat word for word: they are written after 1, 2, 4 … 60 s, with their number.

    A loop that fails twice a second would otherwise fill a disk with one traceback. A line that names a job is always written: it
    belongs to the job's history, and the tries of a job are bounded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[object, tuple[float, float, int]] = {}
        """Line -> when it is written next, the pause after that, and how often it was held back since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line that is held back."""
        if record.levelno < logging.WARNING or (isinstance(record.msg, dict) and "job_id" in record.msg):
            return True
        line, now_s = _line_of(record), time.monotonic()
        with self._lock:
            due_s, pause_s, held = self._seen.pop(line, (0.0, FIRST_PAUSE_S, 0))
            if now_s < due_s:
                self._seen[line] = (due_s, pause_s, held + 1)
                return False
            if now_s > due_s + LONGEST_PAUSE_S:  # quiet for a while: it is new
                pause_s = FIRST_PAUSE_S
            self._seen[line] = (now_s + pause_s, min(LONGEST_PAUSE_S, 2 * pause_s), 0)
            if len(self._seen) > REMEMBERED_LINES:
                del self._seen[next(iter(self._seen))]
        if held:
            _add_number(record, held)
        return True


def _line_of(record: logging.LogRecord) -> object:
    """Return the key of a line: all its fields but the time."""
    fields = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
    given = record.exc_info or fields.get("exc_info")
    raised = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    texts = sorted(f"{name}={value}" for name, value in fields.items() if name not in ("timestamp", "exc_info"))
    return (record.name, record.levelno, *texts, f"{type(raised).__name__}: {raised}")


def _add_number(record: logging.LogRecord, held: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**record.msg, "repeated": held}
    else:
        record.msg, record.args = f"{record.getMessage()} (repeated {held} times)", None
