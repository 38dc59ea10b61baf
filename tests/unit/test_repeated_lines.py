"""Warnings and errors that repeat word for word are slowed down."""

from __future__ import annotations

import logging

import pytest

from midwatch.workers import telemetry


class Clock:
    """A clock that a test moves."""

    now_s = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the filter."""
    made = Clock()
    monkeypatch.setattr(telemetry, "time", made)
    return made


def record(event: str, level: int = logging.ERROR, **fields: object) -> logging.LogRecord:
    """Make a line as structlog makes it."""
    message = {"event": event, "timestamp": str(object()), **fields}
    return logging.LogRecord("midwatch.steward", level, "file", 1, message, (), None)  # type: ignore[arg-type]


def test_a_line_twice_a_second_is_written_seven_times_in_two_minutes(clock: Clock) -> None:
    """After 1, 2, 4, 8, 16, 32 and 60 s. The number of lines between is not lost."""
    repeats, written, numbers = telemetry.RepeatFilter(), 0, 0
    for _ in range(240):
        line = record("steward.broke", exc_info=ValueError("the same"))
        if repeats.filter(line):
            written += 1
            numbers += line.msg.get("repeated", 0)  # type: ignore[attr-defined]
        clock.now_s += 0.5
    assert written == 7
    assert written + numbers > 120


def test_lines_that_differ_are_all_written(clock: Clock) -> None:
    """In a field, in an exception's text, or in their level. A line of information is never held back."""
    repeats = telemetry.RepeatFilter()
    lines = [
        *(record("step.lost", job_id=f"job-{n}") for n in range(5)),
        *(record("steward.broke", exc_info=ValueError(str(n))) for n in range(5)),
        *(record("worker.prepared", logging.INFO) for _ in range(5)),
    ]
    assert all(repeats.filter(line) for line in lines)


def test_after_a_quiet_time_a_line_is_new(clock: Clock) -> None:
    """The next outage is reported at once, and again after a second."""
    repeats = telemetry.RepeatFilter()
    written = []
    for step_s in (0.0, 0.5, 300.0, 1.1, 1.1):
        clock.now_s += step_s
        written.append(repeats.filter(record("steward.broke")))
    assert written == [True, False, True, True, False]
