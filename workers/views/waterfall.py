"""The waterfall of a job: one row for each attempt at a step, with its place in time and the reason for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from midwatch.schemas.job import Job
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.views.conversation import Said


@dataclass(frozen=True)
class Row:
    """One attempt at one step. Times are in ms since the job was enqueued."""

    step: str
    kind: StepKind
    what: str
    """The model that answered, or the tool."""
    attempt: int
    """1 for the first."""
    outcome: str
    offset_ms: int
    took_ms: int
    waited_ms: int
    """How long the step lay aside afterwards, before it was tried again; 0 when it was not."""
    usage: Usage | None
    why: str


def rows(job: Job, records: Sequence[TraceRecord], said: Said) -> list[Row]:
    """The job's trace in order of time."""
    ordered = sorted(records, key=lambda record: (record.started_ms, record.ended_ms, record.attempt))
    return [_row(job, record, ordered[place + 1 :], said) for place, record in enumerate(ordered)]


def _row(job: Job, record: TraceRecord, later: Sequence[TraceRecord], said: Said) -> Row:
    again = next((each for each in later if each.step == record.step and each.started_ms >= record.ended_ms), None)
    lay_aside = record.outcome in ("defer", "park", "dead_letter")
    return Row(
        step=record.step,
        kind=record.kind,
        what=(record.tool or "tool") if record.kind is StepKind.TOOL else (record.model or record.kind.value),
        attempt=record.attempt + 1,
        outcome=record.outcome,
        offset_ms=record.started_ms - job.created_ms,
        took_ms=max(0, record.ended_ms - record.started_ms),
        waited_ms=again.started_ms - record.ended_ms if again and lay_aside else 0,
        usage=record.usage,
        why=why(record, said),
    )


def why(record: TraceRecord, said: Said) -> str:
    """The reason for what happened: a failure, what is waited for, what the model said, what the tool answered."""
    if record.failure is not None:
        return f"{record.failure.kind}: {record.failure.detail}"
    if record.reason:
        return record.reason
    if record.kind is StepKind.TOOL:
        result = said.results.get(record.step)
        effect = "effect unknown; " if record.effect == "unknown" else ""
        return effect + (result.content if result and result.is_error else "")
    parts = [f"refused: {problem}" for problem in record.invalid]
    text = said.texts.get(record.step, "").strip()
    if text:
        parts.insert(0, f"“{text}”")
    elif record.tools:
        parts.insert(0, f"calls {_tally(record.tools)}")
    if record.asked:
        parts.append(f"asked with {record.asked}")
    return "; ".join(parts)


def _tally(names: Sequence[str]) -> str:
    """`search ×6, refund`: six calls of one tool in one turn are worth seeing as six."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(name if times == 1 else f"{name} ×{times}" for name, times in counts.items())


class Timeline:
    """From moments to columns: work is to scale, a stretch in which nothing ran is at most as long as the longest step.

    Beside two hours of waiting for a human, the seconds that the job worked could not be told apart.

    Args:
        spans: when something ran, as (from, to) in ms.
        columns: how wide the drawing is.

    """

    def __init__(self, spans: Sequence[tuple[int, int]], columns: int) -> None:
        busy = _merged(spans)
        longest_gap_ms = max([1, *(end - start for start, end in spans)])
        self._moments, self._places = [0], [0.0]
        for start, end in busy:
            self._add(start, longest_gap_ms)
            self._add(end, end - start)
        self._scale = columns / (self._places[-1] or 1.0)

    def _add(self, moment: int, longest_ms: int) -> None:
        self._places.append(self._places[-1] + min(moment - self._moments[-1], longest_ms))
        self._moments.append(moment)

    def at(self, moment: int) -> float:
        """The column of a moment; moments outside lie on the edges."""
        after = bisect_right(self._moments, moment)
        if after >= len(self._moments):
            return self._places[-1] * self._scale
        if after == 0:
            return 0.0
        start, end = self._moments[after - 1], self._moments[after]
        share = (moment - start) / (end - start)
        return (self._places[after - 1] + share * (self._places[after] - self._places[after - 1])) * self._scale

    def bar(self, row: Row, columns: int, *, work: str, wait: str) -> str:
        """The row's work, then how long it lay aside."""
        end_ms = row.offset_ms + row.took_ms
        begin = min(int(self.at(row.offset_ms)), columns - 1)
        end = min(max(round(self.at(end_ms)), begin + 1), columns)
        again = min(round(self.at(end_ms + row.waited_ms)), columns) if row.waited_ms else end
        return (" " * begin + work * (end - begin) + wait * (again - end)).ljust(columns)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans without their overlaps, none before 0."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((max(0, start), max(0, end)) for start, end in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
