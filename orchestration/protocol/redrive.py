"""Which dead letters may be replayed without a human, and which of them have one cause: a group."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.policy import TRANSIENT

CODE_KINDS = (
    FailureKind.TOOL_ERROR,
    FailureKind.FORMAT_ERROR,
    FailureKind.OUTPUT_INVALID,
    FailureKind.INTERNAL,
    FailureKind.WORKER_LOST,
)
"""Kinds whose cause may be in the code. They are replayed when a worker has loaded other code."""


class Cause(StrEnum):
    """What must have passed before a letter may be replayed."""

    AWAY = "away"
    """A downstream that did not answer, or a transient failure of a tool. A probe finds out whether it answers again."""
    CAPPED = "capped"
    """A spend cap, or a block of a downstream. The coordinator says when it is lifted."""
    CODE = "code"
    """The code of the agent or of its tools. Other code must be loaded."""


@dataclass(frozen=True)
class RedriveGroup:
    """Letters that have one cause. A few of them are replayed first, as probes for all."""

    cause: Cause
    agent: str = ""
    kind: str = ""
    tool: str = ""
    code: str = ""
    """With CODE: the version of the code that failed. See `agents.code_version`."""
    downstream: str = ""

    def __str__(self) -> str:
        # The downstream is last, because it is the only part that may contain a bar.
        return "|".join((self.cause, self.agent, self.kind, self.tool, self.code, self.downstream))

    @classmethod
    def parse(cls, text: str) -> RedriveGroup:
        """Read a group from its text. Raises ValueError."""
        cause, *rest = text.split("|", 5)
        if len(rest) != 5:
            raise ValueError("expected six parts")
        return cls(Cause(cause), *rest)

    def describe(self) -> str:
        """Describe the group for people: `anthropic:claude-x is away`."""
        where = self.downstream or f"{self.tool or self.agent}"
        match self.cause:
            case Cause.AWAY:
                return f"{where} is away" if self.downstream else f"{where} fails ({self.kind})"
            case Cause.CAPPED:
                return f"{where} is capped or blocked"
            case Cause.CODE:
                return f"{self.agent}{f', {self.tool}' if self.tool else ''}: {self.kind}"


def group_of(letter: DeadLetterRecord, code: str) -> RedriveGroup | None:
    """The group of a letter. None if its cause does not pass without a human.

    A limit that the user set is the user's will, and a wrong key needs a person who changes it.
    """
    kind, downstream = letter.failure.kind, letter.downstream
    if kind is FailureKind.WAITED_TOO_LONG and letter.failure.limit == "max_wait_s":
        if downstream:
            return RedriveGroup(Cause.AWAY, downstream=downstream)
        return RedriveGroup(Cause.AWAY, agent=letter.agent, kind=kind)  # it waited for a worker
    if letter.failure.limit:
        return None
    if kind is FailureKind.QUOTA_EXHAUSTED:
        return RedriveGroup(Cause.CAPPED, downstream=downstream) if downstream else None
    if kind in TRANSIENT:
        if downstream:
            return RedriveGroup(Cause.AWAY, downstream=downstream)
        return RedriveGroup(Cause.AWAY, agent=letter.agent, kind=kind, tool=letter.tool or "")
    if kind in CODE_KINDS:
        return RedriveGroup(Cause.CODE, agent=letter.agent, kind=kind, tool=letter.tool or "", code=code)
    return None


def entry_of(group: RedriveGroup, letter: DeadLetterRecord) -> str:
    """The entry in the index of letters to redrive. In their order, the letters that were redriven least come first."""
    return f"{group}\t{letter.generation:03d}\t{letter.job_id}"
