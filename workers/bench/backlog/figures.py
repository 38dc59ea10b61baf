"""The figures of a run of `bench backlog`, from the traces of its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from midwatch.schemas.step import StepKind

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.job import Job


@dataclass(frozen=True)
class Span:
    """A job from its first model call to its end."""

    tenant: str
    created_ms: int
    begun_ms: int
    ended_ms: int

    @property
    def wait_ms(self) -> int:
        """Time from `enqueue` to the first model call."""
        return self.begun_ms - self.created_ms


def spans_of(client: Client, jobs: Iterable[Job]) -> list[Span]:
    """The spans of all jobs that made a model call."""
    spans: list[Span] = []
    for job in jobs:
        calls = [r for r in client.jobs.trace(job.job_id) if r.kind is StepKind.MODEL and r.outcome != "defer"]
        if calls and job.finished_ms:
            spans.append(Span(job.tenant or "", job.created_ms, calls[0].started_ms, job.finished_ms))
    return spans


def most_at_once(spans: Sequence[Span]) -> int:
    """The most jobs that had begun and not ended at one moment."""
    moments = sorted([(span.begun_ms, 1) for span in spans] + [(span.ended_ms, -1) for span in spans])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most
