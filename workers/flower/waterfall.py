"""The waterfall of a job for the page Job: bars in percent, idle time cut short, each step with its why. Pure.

What was said and where time goes is worked out where `midwatch trace` does it: both show the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from midwatch.schemas.job import Job
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.views.conversation import Said, said
from midwatch.workers.views.waterfall import Timeline, why

MOST_ROWS = 200
"""A page with more freezes browsers; the rest is a link away."""

NARROWEST_PERCENT = 0.3
"""So that the quickest step can be seen."""


@dataclass(frozen=True)
class Row:
    """One attempt at one step, where it is drawn. `left` and `width` are percent of the axis."""

    record: TraceRecord
    left: float
    width: float
    waited_ms: int
    """From the end of the step's last attempt to this one."""
    why: str

    @property
    def is_call(self) -> bool:
        """True for a tool call: drawn under its turn."""
        return self.record.kind is StepKind.TOOL

    @property
    def took_ms(self) -> int:
        """How long it worked."""
        return max(0, self.record.ended_ms - self.record.started_ms)

    @property
    def tone(self) -> str:
        """Colour of its outcome."""
        tones = {"continue": "active", "complete": "good", "defer": "warning", "park": "warning"}
        return tones.get(self.record.outcome, "bad")


@dataclass(frozen=True)
class Waterfall:
    """All that the page draws."""

    rows: Sequence[Row]
    hidden: int
    """Rows left out; the oldest go first."""
    calls: Sequence[tuple[str, int]]
    """How often each tool was called, the most called first."""


def draw(
    job: Job, records: Sequence[TraceRecord], messages: Sequence[Message], most_rows: int = MOST_ROWS
) -> Waterfall:
    """In the order of the steps' own numbers, which no late commit changes."""
    spoken = said(job, records, messages)
    line = Timeline([_span(job, record) for record in records], 100)
    ended_ms: dict[str, int] = {}
    rows = []
    for record in sorted(records, key=_place):
        rows.append(_row(job, record, line, ended_ms.get(record.step), spoken))
        ended_ms[record.step] = record.ended_ms
    calls = Counter({record.step: record.tool for record in records if record.tool}.values())
    shown = rows[-most_rows:]
    return Waterfall(shown, len(rows) - len(shown), calls.most_common())


def _row(job: Job, record: TraceRecord, line: Timeline, before_ms: int | None, spoken: Said) -> Row:
    left, right = map(line.at, _span(job, record))
    waited_ms = max(0, record.started_ms - before_ms) if before_ms is not None else 0
    width = max(right - left, NARROWEST_PERCENT)
    return Row(record, round(min(left, 100 - width), 2), round(width, 2), waited_ms, why(record, spoken))


def _span(job: Job, record: TraceRecord) -> tuple[int, int]:
    start = record.started_ms - job.created_ms
    return start, max(start + 1, record.ended_ms - job.created_ms)


def _place(record: TraceRecord) -> tuple[int, int]:
    turn, _, ordinal = record.step.partition(".")
    return int(turn), int(ordinal) if ordinal else -1
