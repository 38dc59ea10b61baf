"""Look over the jobs of all partitions: restore lost entries of indexes and lines, and end jobs that have lost a record.

A message reaches a step because the step is in `due` or `owed`. If such an entry is lost alone, no worker would look at the job
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis

from midwatch.orchestration.errors import MidwatchError, NotFound, RecordLost, StoreUnavailable, UnreadableRecord
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace, partition
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.store.damage.burying import bury
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.reads import Reads
from midwatch.orchestration.store.records import ref_of
from midwatch.orchestration.store.script_calls import bring_back
from midwatch.orchestration.store.script_calls.script_call import ScriptCall
from midwatch.orchestration.store.scripts import Scripts
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import StepRef

log = get_logger("midwatch.records")

NEWEST, OLDER = 100, 100
"""How many jobs of each partition one look covers: the newest ones each time, and older ones in turn."""

NO_FAILURE = Failure(kind=FailureKind.INTERNAL, detail="the job's record names no failure")


@dataclass
class LookingOver:
    """One for each steward. It remembers how far it has come in each partition."""

    client: redis.Redis
    keys: Keyspace
    dispatcher: Dispatcher
    worker: str = "steward"
    _ranks: list[int] = field(default_factory=lambda: [NEWEST] * PARTITIONS)

    def look(self) -> int:
        """Look at jobs of all partitions. Returns how many entries were restored and how many jobs were ended.

        Raises:
            StoreUnavailable: Redis can't be reached.

        """
        calls: list[ScriptCall[Any]] = [
            bring_back.look_over(self.keys, p, newest=NEWEST, first=rank, older=OLDER)
            for p, rank in enumerate(self._ranks)
        ]
        restored = buried = 0
        for p, reply in enumerate(Scripts(self.client).run_each(calls)):
            if isinstance(reply, Exception):  # an index is of a wrong type
                log.warning("records.not_looked_over", partition=p, error=f"{type(reply).__name__}: {reply}"[:200])
                continue
            self._ranks[p] = reply.next_rank
            restored += reply.restored + sum(self._restore_letter(session, job) for session, job in reply.unlisted)
            buried += sum(self._bury(what, ref_of(member)) for what, member in reply.lost)
        if restored:
            log.warning("records.restored", entries=restored)
        return restored + buried

    def _bury(self, what: str, ref: StepRef) -> bool:
        lost = RecordLost(what)
        log.error("record.lost", job_id=ref.job_id, step=ref.step, session_id=ref.session_id, lost=what)
        try:
            bury(self.client, self.keys, self.dispatcher, ref, lost, worker=self.worker)
        except StoreUnavailable:
            raise
        except MidwatchError as error:
            log.warning("record.not_buried", job_id=ref.job_id, error=str(error)[:200])
            return False
        return True

    def _restore_letter(self, session_id: str, job_id: str) -> bool:
        """Write the letter of a dead-lettered job again, from the job's record.

        The new letter has no tries: they are only in the trace.
        """
        try:
            job = Reads(self.client, self.keys).job(job_id)
        except (NotFound, UnreadableRecord):
            return False
        ref = StepRef(
            job_id=job_id, session_id=session_id, step=self._dead_step(session_id, job_id) or str(job.turn or 1)
        )
        letter = DeadLetterRecord(
            job_id=job_id,
            session_id=session_id,
            agent=job.agent,
            step=ref.step,
            kind=ref.kind,
            failure=job.failure or NO_FAILURE,
            dead_ms=job.finished_ms or 0,
            agent_version=job.agent_version,
            generation=job.redrives,
        )
        pipe = self.client.pipeline(transaction=False)
        pipe.hsetnx(
            self.keys.index(partition(session_id), "letters"), job_id, letter.model_dump_json(exclude_none=True)
        )
        return bool(run_pipeline(pipe)[0])

    def _dead_step(self, session_id: str, job_id: str) -> str | None:
        pipe = self.client.pipeline(transaction=False)
        pipe.hgetall(self.keys.steps(session_id, job_id))
        reply = run_pipeline(pipe, with_errors=True)[0]
        rows = {} if isinstance(reply, Exception) else reply
        return next((step.decode() for step, row in rows.items() if row.startswith(b"dead|")), None)
