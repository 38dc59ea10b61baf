"""The keys that every script of the step machine takes, by name."""

from __future__ import annotations

from typing import NamedTuple

from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.schemas.step import StepRef


class StepKeys(NamedTuple):
    """KEYS of one step, all in its session's slot. `lua/prelude.lua` says what each holds."""

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

    def as_list(self) -> list[str]:
        """KEYS, in the order in which the scripts name them."""
        return [key for key in self if key]


def step_keys(keys: Keyspace, ref: StepRef, queues: tuple[str, str] | None = None) -> StepKeys:
    """The keys of a step. `queues` are the model and tools queues, when the script may hand steps off."""
    job = keys.job(ref.session_id, ref.job_id)
    session = keys.session(ref.session_id)
    index = keys.index(partition(ref.session_id), "")
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
