"""The exception tree.

MidwatchError
  + ConfigError            a declaration is wrong: raised where it is made
  |   + UnknownAgent       no agent of that name is loaded here
  + Refused                the request is understood and refused
  |   + SessionBusy        the session runs another job, and the policy is `reject`
  |   + RunInsideTool      agent.run inside a tool: a worker must not wait for the fleet
  + NotFound               no such job, dead letter, session
  + JobTimeout             result(timeout_s) ran out; the job goes on
  + StoreUnavailable       Redis can't be reached, or refuses to write
  + ModelError             a provider call failed; `failure` says how
  + ToolError              raised BY a tool: its request was wrong, and the model is told
  + ToolFailed             a tool raised anything else or ran out of time; `failure` says how
  + LeaseLost              someone else holds the step now: drop the work
"""

from __future__ import annotations

from collections.abc import Mapping

from midwatch.schemas.failure import Failure


class MidwatchError(Exception):
    """Root of everything this package raises."""


class ConfigError(MidwatchError, ValueError):
    """Raised when a declaration is wrong: says what was expected, what came, what to do."""


class UnknownAgent(ConfigError):
    """Raised when an agent is named that this process has not loaded."""


class Refused(MidwatchError):
    """Raised when a request is understood and refused."""


class SessionBusy(Refused):
    """Raised when a session runs another job and the agent's policy is `reject`."""


class RunInsideTool(Refused):
    """Raised when `agent.run` is called inside a tool; `agent.as_tool()` is the way."""


class NotFound(MidwatchError, LookupError):
    """Raised when a job, dead letter or session does not exist (or its retention has passed)."""


class JobTimeout(MidwatchError, TimeoutError):
    """Raised when `result(timeout_s)` runs out. The job goes on."""


class StoreUnavailable(MidwatchError, ConnectionError):
    """Raised when Redis can't be reached or refuses to write. Nothing was recorded."""


class ModelError(MidwatchError):
    """Raised by a provider. Picklable; holds neither key nor prompt nor the SDK's own exception."""

    def __init__(self, failure: Failure, ratelimit: Mapping[str, str] | None = None, sent: bool = True) -> None:
        super().__init__(failure, ratelimit, sent)
        self.failure = failure
        self.ratelimit = ratelimit or {}
        """The provider's rate-limit headers, for the coordinator."""
        self.sent = sent
        """False: the provider never saw the call, so it costs nothing."""

    def __str__(self) -> str:
        return f"{self.failure.kind}: {self.failure.detail}"


class ToolError(MidwatchError):
    """Raise this in a tool to tell the model what was wrong with its request (no such order, not allowed, too late).

    It is an answer, not a fault: never retried, never a dead letter.
    """


class ToolFailed(MidwatchError):
    """Raised when a tool raised or ran out of time."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.kind}: {self.failure.detail}"


class LeaseLost(MidwatchError):
    """Raised when a step was claimed by someone else meanwhile. The work is dropped, without a trace of it in the session."""
