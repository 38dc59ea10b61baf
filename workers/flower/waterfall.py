"""The waterfall on the page Job: bars in percent of the axis, shortened idle time, and the reason for each step.

Messages and times come from `workers.views`, which `midwatch trace` uses as well. So both show the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from midwatch.schemas.job import Job
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.views.conversation import JobConversation, find_conversation
from midwatch.workers.views.waterfall import Timeline, explain

MOST_ROWS = 200
"""Most rows of a page. More rows freeze browsers; a link on the page shows all."""

NARROWEST_PERCENT = 0.3
"""Least width of a bar, so that the quickest step is visible."""


@dataclass(frozen=True)
class Row:
    """The drawing of one attempt at one step. `left` and `width` are percent of the axis."""

    record: TraceRecord
    left: float
    width: float
    waited_ms: int
    """Time from the end of the step's previous attempt to the start of this one."""
    reason: str

    @property
    def is_call(self) -> bool:
        """Is it a tool call? Tool calls are drawn under their turn."""
        return self.record.kind is StepKind.TOOL

    @property
    def took_ms(self) -> int:
        """How long the attempt ran."""
        return max(0, self.record.ended_ms - self.record.started_ms)

    @property
    def tone(self) -> str:
        """Colour of the outcome."""
        tones = {"continue": "active", "complete": "good", "defer": "warning", "park": "warning"}
        return tones.get(self.record.outcome, "bad")


@dataclass(frozen=True)
class Waterfall:
    """The data that the page draws."""

    rows: Sequence[Row]
    hidden: int
    """Number of rows left out. The oldest rows are left out first."""
    calls: Sequence[tuple[str, int]]
    """Tool and number of its calls, the largest number first."""


def draw(
    job: Job, records: Sequence[TraceRecord], messages: Sequence[Message], most_rows: int = MOST_ROWS
) -> Waterfall:
    """Make the waterfall. Rows are in the order of step numbers, so a late commit does not change the order."""
    conversation = find_conversation(job, records, messages)
    line = Timeline([_span(job, record) for record in records], 100)
    ended_ms: dict[str, int] = {}
    rows = []
    for record in sorted(records, key=_place):
        rows.append(_make_row(job, record, line, ended_ms.get(record.step), conversation))
        ended_ms[record.step] = record.ended_ms
    calls = Counter({record.step: record.tool for record in records if record.tool}.values())
    shown = rows[-most_rows:]
    return Waterfall(shown, len(rows) - len(shown), calls.most_common())


def _make_row(
    job: Job, record: TraceRecord, line: Timeline, before_ms: int | None, conversation: JobConversation
) -> Row:
    left, right = map(line.column_at, _span(job, record))
    waited_ms = max(0, record.started_ms - before_ms) if before_ms is not None else 0
    width = max(right - left, NARROWEST_PERCENT)
    return Row(record, round(min(left, 100 - width), 2), round(width, 2), waited_ms, explain(record, conversation))


def _span(job: Job, record: TraceRecord) -> tuple[int, int]:
    start = record.started_ms - job.created_ms
    return start, max(start + 1, record.ended_ms - job.created_ms)


def _place(record: TraceRecord) -> tuple[int, int]:
    turn, _, ordinal = record.step.partition(".")
    return _number(turn), _number(ordinal)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
