"""The keys that every script of the step machine takes, by name."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.schemas.step import StepRef


class StepKeys(NamedTuple):
    """KEYS of one step, all in the slot of its session. `lua/prelude.lua` describes each key."""

    job: str
    steps: str
    session: str
    log: str
    trace: str
    due: str
    owed: str
    counters: str
    waiting: str
    jobs: str
    dead: str
    letters: str
    model_queue: str = ""
    """For hand-off only: the model queue of the job's priority."""
    tools_queue: str = ""
    """For hand-off only: the tools queue of the job's priority."""

    def used(self) -> tuple[str, ...]:
        """KEYS in the order in which the scripts name them. Without hand-off, the queues are left out."""
        return self if self.model_queue else self[:-2]


def step_keys(keys: Keyspace, ref: StepRef, queues: tuple[str, str] | None = None) -> StepKeys:
    """The keys of a step. `queues` are the model queue and the tools queue, for a script that may hand off steps."""
    return _job_keys(keys, ref.session_id, ref.job_id, queues)


@lru_cache(maxsize=256)  # a step needs these keys three times, and the job's next step needs the same keys
def _job_keys(keys: Keyspace, session_id: str, job_id: str, queues: tuple[str, str] | None) -> StepKeys:
    job = keys.job(session_id, job_id)
    session = keys.session(session_id)
    index = keys.index(partition(session_id), "")
    model_queue, tools_queue = queues or ("", "")
    return StepKeys(
        job=job,
        steps=job + ":steps",
        session=session,
        log=session + ":log",
        trace=job + ":trace",
        due=index + "due",
        owed=index + "owed",
        counters=index + "counters",
        waiting=session + ":waiting",
        jobs=index + "jobs",
        dead=index + "dead",
        letters=index + "letters",
        model_queue=model_queue,
        tools_queue=tools_queue,
    )


def keys_of_partition(keys: Keyspace, p: int) -> StepKeys:
    """The keys of a partition, for a script that finds jobs and sessions itself. Those of a job and a session do not exist."""
    index, unused = keys.index(p, ""), keys.index(p, "unused")
    parts = (unused, unused, unused, unused, unused, "due", "owed", "counters", unused, "jobs", "dead", "letters")
    return StepKeys(*(part if part is unused else index + part for part in parts))
