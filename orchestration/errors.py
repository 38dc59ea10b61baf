"""All exceptions of this package.

MidwatchError
  + ConfigError            a declaration is wrong; raised where it is made
  |   + UnknownAgent       no agent of that name is loaded in this process
  + Refused                the request is valid, but not allowed now
  |   + SessionBusy        the session runs another job, and the policy is `reject`
  |   + RunInsideTool      agent.run was called inside a tool: a worker must not wait for the fleet
  |   + KeyReused          an idempotency key, or a job id, was used before for another input
  |   + WrongSession       a job was named together with another job's session
  + NotFound               no such job, dead letter or session
  + NoOutput               a job did not complete, so it has no output; `failure` says why
  + JobTimeout             result(timeout_s) ran out; the job goes on
  + StoreUnavailable       Redis can't be reached, or refuses to write
  |   + BrokerUnavailable  the broker, another server than Redis, does not take a message
  + UnreadableRecord       a stored record is of a newer release, or is damaged
  + RecordLost             a record of a job that goes on is gone
  + ModelError             a provider call failed; `failure` holds the kind and detail
  + ToolError              raised BY a tool: its request was wrong; the message is returned to the model
  + ToolFailed             a tool raised anything else or ran out of time; `failure` holds the kind and detail
  + LeaseLost              another worker holds the step now; drop the work
"""

from __future__ import annotations

from collections.abc import Mapping

from midwatch.schemas.failure import Failure


class MidwatchError(Exception):
    """Base class of every exception of this package."""


class ConfigError(MidwatchError, ValueError):
    """Raised when a declaration is wrong. The message says what was expected, what was given, and what to do."""


class UnknownAgent(ConfigError):
    """Raised when this process has not loaded the agent of that name."""


class Refused(MidwatchError):
    """Raised when a request is valid but not allowed now."""


class SessionBusy(Refused):
    """Raised when a session runs another job and the agent's policy is `reject`."""


class RunInsideTool(Refused):
    """Raised when `agent.run` is called inside a tool. Use `agent.as_tool()` instead."""


class KeyReused(Refused):
    """Raised when an idempotency key was used before for another input. The first job is not changed."""

    def __init__(self, job_id: str, first: str, given: str) -> None:
        super().__init__(job_id, first, given)
        self.job_id = job_id
        """The job that has the key."""

    def __str__(self) -> str:
        job_id, first, given = self.args
        return (
            f"this idempotency key belongs to job {job_id!r}, which was enqueued with another input: the digest of its input is "
            f"{first}, that of this one {given}. Use another key for another job; with the same input, the key returns that job"
        )


class WrongSession(Refused):
    """Raised when a job is named together with a session that is not its own. Nothing was read or written."""


class NotFound(MidwatchError, LookupError):
    """Raised when a job, dead letter or session does not exist (or its retention has passed)."""


class NoOutput(MidwatchError):
    """Raised by reading the output of a job that has none. Most often the job did not complete."""

    def __init__(self, job_id: str, status: str, failure: Failure | None, why: str) -> None:
        super().__init__(job_id, status, failure, why)
        self.job_id = job_id
        self.status = status
        self.failure = failure
        """Why the job did not complete. None if it was cancelled, waits for a human, or its session was deleted."""
        self.why = why

    def __str__(self) -> str:
        return f"job {self.job_id} is {self.status}: {self.why}; `midwatch trace {self.job_id}` shows its steps"


class JobTimeout(MidwatchError, TimeoutError):
    """Raised when `result(timeout_s)` runs out. The job goes on."""


class StoreUnavailable(MidwatchError, ConnectionError):
    """Raised when Redis can't be reached or refuses to write. The message says what is known of the request."""


class BrokerUnavailable(StoreUnavailable):
    """Raised when the broker does not take a message. What was stored stays stored: a steward publishes it later."""


class UnreadableRecord(MidwatchError):
    """Raised when this release can't read a stored record. `why` names fields and rules, but no value of the record."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what} can't be read: {self.why}"


class RecordLost(MidwatchError):
    """Raised when Redis no longer has a record that a step needs.

    `what` is the record: job, steps, log, memory or session.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"Redis has lost {_LOST.get(self.what, self.what)}"


_LOST = {
    "job": "the record of the job",
    "steps": "steps of the job's turn",
    "log": "messages of the conversation",
    "memory": "the memory of the conversation",
    "session": "the record of the session, and another job has the session since",
}


class ModelError(MidwatchError):
    """Raised by a provider. Picklable. Holds no key, no prompt, and not the SDK's own exception."""

    def __init__(
        self,
        failure: Failure,
        ratelimit: Mapping[str, str] | None = None,
        sent: bool = True,
        opaque_sent_to: str = "",
    ) -> None:
        super().__init__(failure, ratelimit, sent, opaque_sent_to)
        self.failure = failure
        self.ratelimit = ratelimit or {}
        """The provider's rate-limit headers, for the coordinator."""
        self.sent = sent
        """False if the provider never got the call, so that it costs nothing."""
        self.opaque_sent_to = opaque_sent_to
        """The server, if the request held opaque parts of earlier turns. It may have refused the call because of them."""

    def __str__(self) -> str:
        return f"{self.failure.kind}: {self.failure.detail}"


class ToolError(MidwatchError):
    """Raise this in a tool to tell the model what was wrong with its request (no such order, not allowed, too late).

    The message is the tool's answer to the model. The call is never retried and never becomes a dead letter.
    """


class ToolFailed(MidwatchError):
    """Raised when a tool raises something other than ToolError, or runs out of time."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.kind}: {self.failure.detail}"


class LeaseLost(MidwatchError):
    """Raised when another worker has claimed the step in the meantime. The work is dropped and leaves nothing in the session."""
