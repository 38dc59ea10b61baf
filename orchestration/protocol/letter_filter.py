"""Which dead letters are meant: the filter of listings and of bulk replays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.policy import RunLimits

NOT_LIMITS = ("call_timeout_s", "on_busy")
"""Fields of `RunLimits` that can't end a job."""

KINDS = (
    *(kind.value for kind in FailureKind),
    *(name for name in RunLimits.model_fields if name not in NOT_LIMITS),
    "expires_s",
)
"""What `kind` may name: a kind of failure, or the limit that ended the job. `expires_s` is that of a question to a human."""

Words = str | Iterable[str] | None
"""One word, several of which any may match, or None: no condition."""


@dataclass(frozen=True)
class LetterFilter:
    """Conditions that a dead letter must all meet. A field with several words is met if any of them matches.

    The words of `agent`, `model`, `tool` and `downstream` are patterns, as `fnmatch` has them: `support-*`. `model` matches
    `provider:model`, or the model's name alone.
    """

    kind: tuple[str, ...] = ()
    """Kinds of failure, or names of limits of `RunLimits`."""
    agent: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    downstream: tuple[str, ...] = ()
    older_ms: int = 0
    """Least age of the letter."""

    @classmethod
    def make(
        cls, *, kind: Words = None, agent: Words = None, model: Words = None, tool: Words = None,
        downstream: Words = None, older_s: float = 0.0,
    ) -> LetterFilter:  # fmt: skip
        """Make a filter from what a user typed.

        Raises:
            ConfigError: a kind is unknown.

        """
        return cls(
            tuple(check_kind(word) for word in _words(kind)), _words(agent), _words(model), _words(tool),
            _words(downstream), int(older_s * 1_000),
        )  # fmt: skip

    def matches(self, letter: DeadLetterRecord) -> bool:
        """Does the letter meet the conditions? Its age is not checked here, because only the server knows it."""
        failure, model = letter.failure, letter.model or ""
        return (
            (not self.kind or failure.kind in self.kind or failure.limit in self.kind)
            and _match(self.agent, letter.agent)
            and _match(self.model, model, model.partition(":")[2])
            and _match(self.tool, letter.tool or "")
            and _match(self.downstream, letter.downstream or "")
        )


EVERY_LETTER = LetterFilter()


def check_kind(word: str) -> str:
    """Return the word if it is a kind of failure or a limit.

    Raises:
        ConfigError: it is neither. The message lists them.

    """
    if word in KINDS:
        return word
    close = get_close_matches(word, KINDS, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"unknown kind {word!r}: {hint}expected one of: {', '.join(KINDS)}")


def _words(given: Words) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def _match(patterns: tuple[str, ...], *names: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns for name in names if name)
