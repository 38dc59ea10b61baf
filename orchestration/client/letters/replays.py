"""Replay many dead letters in one round trip, and find out what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.protocol.reading import explain
from midwatch.orchestration.store.operations import Operations, log
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.script_calls import operate
from midwatch.orchestration.store.scripts import UNAVAILABLE, unavailable
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority, StepRef


class Verdict(StrEnum):
    """The result of a replay."""

    UNDER_WAY = "under_way"
    """The step that failed is still being tried."""
    PASSED = "passed"
    """The job got past the step that failed, or it has ended otherwise."""
    FAILED = "failed"
    """The step failed again: there is a new letter."""


class Replayed(NamedTuple):
    """A replayed letter: where its job stopped."""

    job_id: str
    session_id: str
    step: str

    @classmethod
    def of(cls, letter: DeadLetterRecord) -> Replayed:
        """The place of a letter."""
        return cls(letter.job_id, letter.session_id, letter.step)


class Grant(NamedTuple):
    """What a replayed job may use from now on."""

    steps: int = 50
    """Model turns after its last one."""
    time_ms: int | None = None
    """How long it may work. None: its limit starts again."""
    wait_ms: int | None = None
    """How long others may hold it. None: its limit starts again."""


USUAL_GRANT = Grant()


class Replays:
    """Replays many letters at once, below live work, and finds out which of them fail again."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def replay_each(
        self, letters: Sequence[Replayed], *, redriven: bool = False, grant: Grant = USUAL_GRANT
    ) -> list[bool]:
        """Resume these jobs below live work. False for a job that was no dead letter any more, or that can't be read.

        Each replay is a script. If this process ends meanwhile, stewards publish the steps of those that ran.

        Raises:
            StoreUnavailable: the server can't be reached, or is full. Some of the jobs may be resumed.

        """
        refs = [StepRef(job_id=one.job_id, session_id=one.session_id, step="1") for one in letters]
        keys = self._operations.keys
        calls = [
            operate.replay(
                step_keys(keys, ref), job=ref.job_id, session=ref.session_id, lane=Priority.REPLAY, redriven=redriven,
                steps_granted=grant.steps, time_granted_ms=grant.time_ms, wait_granted_ms=grant.wait_ms,
            )
            for ref in refs
        ]  # fmt: skip
        done: list[bool] = []
        owed: list[StepRef] = []
        replies = self._operations.run_each(calls)
        for ref, reply in zip(refs, replies, strict=True):
            if isinstance(reply, Exception):
                log.warning("replay.failed", job_id=ref.job_id, error=explain(reply))
            elif reply.replayed:
                owed += (ref.model_copy(update={"step": step, "priority": reply.priority}) for step in reply.owed_steps)
            done.append(not isinstance(reply, Exception) and reply.replayed)
        self._publish(owed)
        if full := next((reply for reply in replies if isinstance(reply, UNAVAILABLE)), None):
            raise unavailable(full) from full
        return done

    def judge(self, letters: Sequence[Replayed]) -> list[Verdict]:
        """What became of these letters so far."""
        if not letters:
            return []
        keys = self._operations.keys
        pipe = self._operations.client.pipeline(transaction=False)
        for one in letters:
            pipe.hget(keys.job(one.session_id, one.job_id), "status")
            pipe.hexists(keys.steps(one.session_id, one.job_id), one.step)
        replies = run_pipeline(pipe, with_errors=True)
        return [_judge(status, has_row) for status, has_row in zip(replies[::2], replies[1::2], strict=True)]

    def _publish(self, owed: Sequence[StepRef]) -> None:
        """Publish these steps. If this fails, a steward publishes them later."""
        try:
            self._operations.publish(owed)
        except StoreUnavailable as error:
            log.warning("publish.failed", steps=len(owed), error=str(error))


def _judge(status: object, has_row: object) -> Verdict:
    """Judge one job. The row of a step exists until its result is committed, and stays with a dead letter."""
    if status == JobStatus.QUEUED.encode():
        return Verdict.UNDER_WAY
    if has_row and not isinstance(has_row, Exception):
        return Verdict.FAILED if status == JobStatus.DEAD_LETTERED.encode() else Verdict.UNDER_WAY
    return Verdict.PASSED
