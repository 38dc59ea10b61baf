"""`client.dead_letters`: dead letters, listed, shown, replayed and discarded."""

from __future__ import annotations

from collections.abc import Iterator

from midwatch.orchestration.client.letters.bulk_replay import BulkReplay
from midwatch.orchestration.client.letters.replays import Grant
from midwatch.orchestration.protocol.letter_filter import LetterFilter, Words
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.operations import Operations
from midwatch.schemas.deadletter import DeadLetterRecord


class DeadLetters:
    """Dead letters, listed, shown, replayed and discarded. `LetterFilter` explains the conditions of `list` and `pages`."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def __iter__(self) -> Iterator[DeadLetterRecord]:
        """All dead letters, the newest first. They are read page by page. Damaged ones are left out."""
        for page in self.pages():
            yield from page

    def list(
        self, *, limit: int = 1_000, kind: Words = None, agent: Words = None, model: Words = None, tool: Words = None,
        downstream: Words = None, older_s: float = 0.0,
    ) -> Listing[DeadLetterRecord]:  # fmt: skip
        """The newest dead letters first.

        Raises:
            ConfigError: a kind is unknown.

        """
        wanted = LetterFilter.make(
            kind=kind, agent=agent, model=model, tool=tool, downstream=downstream, older_s=older_s
        )
        return self._operations.dead_letters(limit=limit, wanted=wanted)

    def pages(
        self, *, kind: Words = None, agent: Words = None, model: Words = None, tool: Words = None,
        downstream: Words = None, older_s: float = 0.0,
    ) -> Iterator[Listing[DeadLetterRecord]]:  # fmt: skip
        """All dead letters that match, the newest first, page by page. `unreadable` of a page has the damaged ones.

        Raises:
            ConfigError: a kind is unknown.

        """
        wanted = LetterFilter.make(
            kind=kind, agent=agent, model=model, tool=tool, downstream=downstream, older_s=older_s
        )
        return self._operations.letters.pages(wanted)

    def show(self, job_id: str) -> DeadLetterRecord:
        """The dead letter of this job. Raises NotFound."""
        return self._operations.dead_letter(job_id)

    def replay(self, job_id: str, *, steps: int = 50, time_s: float | None = None, wait_s: float | None = None) -> bool:
        """Resume the job at the step where it stopped. Returns False if the job has no dead letter, or no longer has one.

        Args:
            job_id: the job.
            steps: model turns that it may take from now on. A limit that allows more is not lowered.
            time_s: how long it may work from now on. None: its `session_timeout_s` starts again.
            wait_s: how long others may hold it from now on. None: its `max_wait_s` starts again.

        """
        return self._operations.replay(job_id, max_steps=steps, time_ms=_ms(time_s), wait_ms=_ms(wait_s))

    def replay_all(
        self, *, kind: Words = None, agent: Words = None, model: Words = None, tool: Words = None,
        downstream: Words = None, older_s: float = 0.0, rate_per_s: float | None = None, steps: int = 50,
        time_s: float | None = None, wait_s: float | None = None,
    ) -> BulkReplay:  # fmt: skip
        """A replay of all letters that match. `for _ in replay.run()` runs it; `replay.groups` says what it will do, and did.

        `steps`, `time_s` and `wait_s` are as for `replay`. `rate_per_s` bounds how many letters are replayed in a second.

        Raises:
            ConfigError: a kind is unknown.

        """
        wanted = LetterFilter.make(
            kind=kind, agent=agent, model=model, tool=tool, downstream=downstream, older_s=older_s
        )
        return BulkReplay(self._operations, wanted, rate_per_s=rate_per_s, grant=Grant(steps, _ms(time_s), _ms(wait_s)))

    def discard(self, job_id: str) -> bool:
        """Give the job up, so that its session can go on. Returns False if the job is not dead."""
        return self._operations.discard(job_id)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1_000))
