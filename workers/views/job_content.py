"""The content of a job: its input, and the arguments of the call that failed or that a person must decide on.

Lists and cards leave it out, because it may hold a customer's words. `--content` and the page's link show it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.operations import Operations
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.message import UserMessage
from midwatch.workers.views.conversation import find_conversation


@dataclass(frozen=True)
class JobContent:
    """The input of a job, and the arguments of its last call."""

    input: str | None
    step: str | None = None
    tool: str | None = None
    arguments: str | None = None
    """The arguments, exactly as the model wrote them."""

    @property
    def call(self) -> str:
        """The call as one line. Empty if no call is known."""
        return f"{self.tool}({self.arguments})" if self.tool else ""


def read_content(operations: Operations, job: Job, step: str | None = None) -> JobContent:
    """Read the content of a job. `step` is the failing step; the default is the one that the job waits for.

    Returns what is still there: a compaction, or the end of the retention, removes messages.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    queued = operations.client.hget(operations.keys.job(job.session_id, job.job_id), "input")
    step = step or (job.waiting.step if job.waiting else None)
    try:
        messages = operations.messages(job.session_id)
    except NotFound:
        messages = Listing()
    conversation = find_conversation(job, operations.trace(job.job_id), messages)
    text = json.loads(queued) if isinstance(queued, bytes) else conversation.input
    if text is None and job.status in (JobStatus.RUNNING, JobStatus.PARKED, JobStatus.DEAD_LETTERED):
        # Before its first committed turn, the last input in the session is that of the job that holds the session.
        text = next((one.text for one in reversed(messages) if isinstance(one, UserMessage)), None)
    call = conversation.calls.get(step) if step else None
    return JobContent(text, step, call.name if call else None, call.raw_arguments if call else None)
