"""The waterfall of a job: one row for each attempt at a step, with its times and the reason for its outcome."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from midwatch.schemas.job import Job
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.views.conversation import JobConversation


@dataclass(frozen=True)
class Row:
    """One attempt at one step. Times are in ms since the job was enqueued."""

    step: str
    kind: StepKind
    what: str
    """Name of the model that answered, or of the tool."""
    attempt: int
    """1 for the first attempt."""
    outcome: str
    offset_ms: int
    took_ms: int
    waited_ms: int
    """How long the step waited after this attempt until the next attempt. 0 if there was none."""
    usage: Usage | None
    reason: str


def make_rows(job: Job, records: Sequence[TraceRecord], conversation: JobConversation) -> list[Row]:
    """Return the rows of the job's trace in order of time."""
    ordered = sorted(records, key=lambda record: (record.started_ms, record.ended_ms, record.attempt))
    return [_make_row(job, record, ordered[place + 1 :], conversation) for place, record in enumerate(ordered)]


def _make_row(job: Job, record: TraceRecord, later: Sequence[TraceRecord], conversation: JobConversation) -> Row:
    again = next((each for each in later if each.step == record.step and each.started_ms >= record.ended_ms), None)
    has_waited = record.outcome in ("defer", "park", "dead_letter")
    return Row(
        step=record.step,
        kind=record.kind,
        what=(record.tool or "tool") if record.kind is StepKind.TOOL else (record.model or record.kind.value),
        attempt=record.attempt + 1,
        outcome=record.outcome,
        offset_ms=record.started_ms - job.created_ms,
        took_ms=max(0, record.ended_ms - record.started_ms),
        waited_ms=again.started_ms - record.ended_ms if again and has_waited else 0,
        usage=record.usage,
        reason=explain(record, conversation),
    )


def explain(record: TraceRecord, conversation: JobConversation) -> str:
    """Explain a row: by its failure, its reason for waiting, the model's text, or the tool's error."""
    if record.failure is not None:
        return f"{record.failure.kind}: {record.failure.detail}"
    if record.reason:
        return record.reason
    if record.kind is StepKind.TOOL:
        result = conversation.results.get(record.step)
        effect = "effect unknown; " if record.effect == "unknown" else ""
        return effect + (result.content if result and result.is_error else "")
    parts = [f"refused: {problem}" for problem in record.invalid]
    text = conversation.texts.get(record.step, "").strip()
    if text:
        parts.insert(0, f"“{text}”")
    elif record.tools:
        parts.insert(0, f"calls {_count_names(record.tools)}")
    if record.prompt_cut:
        parts.append("the prompt was cut: it does not fit into the budget")
    if record.asked:
        parts.append(f"asked with {record.asked}")
    return "; ".join(parts)


def _count_names(names: Sequence[str]) -> str:
    """List each name once with its count: `search ×6, refund`."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(name if times == 1 else f"{name} ×{times}" for name, times in counts.items())


class Timeline:
    """Maps times to columns of a drawing.

    Work is drawn to scale. Idle time is cut to the length of the longest step: next to two hours of waiting for a human,
    the seconds of work would not be visible.

    Args:
        spans: when steps ran, as (from, to) in ms.
        columns: the width of the drawing.

    """

    def __init__(self, spans: Sequence[tuple[int, int]], columns: int) -> None:
        busy = _merge(spans)
        longest_gap_ms = max([1, *(end - start for start, end in spans)])
        self._times, self._places = [0], [0.0]
        for start, end in busy:
            self._add(start, longest_gap_ms)
            self._add(end, end - start)
        self._scale = columns / (self._places[-1] or 1.0)

    def _add(self, time_ms: int, longest_ms: int) -> None:
        self._places.append(self._places[-1] + min(time_ms - self._times[-1], longest_ms))
        self._times.append(time_ms)

    def column_at(self, time_ms: int) -> float:
        """Return the column of a time. Times outside the drawing are at its edges."""
        after = bisect_right(self._times, time_ms)
        if after >= len(self._times):
            return self._places[-1] * self._scale
        if after == 0:
            return 0.0
        start, end = self._times[after - 1], self._times[after]
        share = (time_ms - start) / (end - start)
        return (self._places[after - 1] + share * (self._places[after] - self._places[after - 1])) * self._scale

    def bar(self, row: Row, columns: int, *, work: str, wait: str) -> str:
        """Draw a row's bar: its work, then its waiting time."""
        end_ms = row.offset_ms + row.took_ms
        begin = min(int(self.column_at(row.offset_ms)), columns - 1)
        end = min(max(round(self.column_at(end_ms)), begin + 1), columns)
        again = min(round(self.column_at(end_ms + row.waited_ms)), columns) if row.waited_ms else end
        return (" " * begin + work * (end - begin) + wait * (again - end)).ljust(columns)


def _merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge overlapping spans, and cut them at 0."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((max(0, start), max(0, end)) for start, end in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
