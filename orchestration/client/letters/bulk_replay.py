"""Replay all dead letters that match a filter, below live work and in growing batches. It stops if they fail again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from midwatch.orchestration.client.letters.replay_window import ReplayWindow
from midwatch.orchestration.client.letters.replays import USUAL_GRANT, Grant, Replayed, Replays
from midwatch.orchestration.client.patience import read_patiently
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.protocol.letter_filter import EVERY_LETTER, LetterFilter
from midwatch.orchestration.store.operations import Operations
from midwatch.schemas.deadletter import DeadLetterRecord

LOOK_S = 0.5
"""How often the replayed jobs are looked at."""
AT_ONCE = 100
"""Letters that are replayed in one round trip."""
SETTLE_S = 10.0
"""When all letters are replayed, how long the last ones may make no progress before the replay ends without their result."""


class LetterGroup(NamedTuple):
    """Letters that probably have one cause: one kind of failure, at one downstream or of one agent."""

    kind: str
    downstream: str
    agent: str

    @classmethod
    def of(cls, letter: DeadLetterRecord) -> LetterGroup:
        """The group of a letter. The agent counts only if no downstream is known."""
        downstream = letter.downstream or ""
        return cls(letter.failure.kind.value, downstream, "" if downstream else letter.agent)

    def __str__(self) -> str:
        return f"{self.kind} at {self.downstream}" if self.downstream else f"{self.kind} of {self.agent}"


@dataclass
class GroupReplay:
    """How the replay of one group goes."""

    group: LetterGroup
    letters: int
    """Letters of the group when the replay began."""
    source: Iterator[Replayed]
    window: ReplayWindow = field(default_factory=ReplayWindow)
    replayed: int = 0
    skipped: int = 0
    """Letters that another person or program replayed or discarded meanwhile."""
    passed: int = 0
    failed: int = 0
    exhausted: bool = False
    """All letters of the group were replayed."""

    @property
    def is_over(self) -> bool:
        """Is there nothing left to do, but to wait for what is under way?"""
        return self.window.closed or self.exhausted

    @property
    def left(self) -> int:
        """Letters that were not replayed."""
        return max(0, self.letters - self.replayed - self.skipped)


class BulkReplay:
    """Replays the letters that exist when it begins. `run` yields after each look, and may be left at any of them.

    Letters of other groups go on when one group stops. The letters are read page by page, once for each group.
    """

    def __init__(
        self, operations: Operations, wanted: LetterFilter = EVERY_LETTER, *, rate_per_s: float | None = None,
        grant: Grant = USUAL_GRANT, sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._letters = operations.letters
        self._replays = Replays(operations)
        self._wanted = wanted
        self._rate_per_s = rate_per_s
        self._grant = grant
        self._sleep = sleep
        self._monotonic = monotonic
        self._until_ms = self._letters.now_ms()
        self.unreadable = 0
        """Damaged letters, which can't be replayed."""
        counts = self._count()
        self.groups = [GroupReplay(group, number, self._source(group)) for group, number in counts.most_common()]

    @property
    def replayed(self) -> int:
        """Letters replayed so far."""
        return sum(group.replayed for group in self.groups)

    @property
    def stopped(self) -> list[GroupReplay]:
        """The groups whose replays failed again."""
        return [group for group in self.groups if group.window.closed]

    def run(self) -> Iterator[None]:
        """Replay until all letters are replayed, or their groups have stopped. It waits for a server that restarts.

        Raises:
            StoreUnavailable: Redis could not be reached for a minute.

        """
        began_s = last_change_s = self._monotonic()
        while True:
            before = self._progress()
            for group in self.groups:
                self._look(group)
                self._fill(group, began_s)
            now_s = self._monotonic()
            if self._progress() != before:
                last_change_s = now_s
            yield
            is_over = all(group.is_over for group in self.groups)
            under_way = any(group.window.under_way for group in self.groups)
            if is_over and (not under_way or now_s - last_change_s > SETTLE_S):
                return
            self._sleep(LOOK_S)

    def _count(self) -> Counter[LetterGroup]:
        counts: Counter[LetterGroup] = Counter()
        for page in self._letters.pages(self._wanted, until_ms=self._until_ms):
            counts.update(map(LetterGroup.of, page))
            self.unreadable += len(page.unreadable)
        return counts

    def _source(self, group: LetterGroup) -> Iterator[Replayed]:
        """The letters of a group. After a restart of the server it begins again.

        Letters that were already replayed are gone by then.
        """
        while True:
            try:
                for page in self._letters.pages(self._wanted, until_ms=self._until_ms):
                    yield from (Replayed.of(letter) for letter in page if LetterGroup.of(letter) == group)
                return
            except StoreUnavailable:
                read_patiently(self._letters.now_ms)

    def _look(self, group: GroupReplay) -> None:
        """Learn what became of the letters under way."""
        verdicts = read_patiently(lambda: self._replays.judge(group.window.under_way))
        passed, failed = group.window.learn(verdicts, no_more=group.exhausted)
        group.passed += passed
        group.failed += failed

    def _fill(self, group: GroupReplay, began_s: float) -> None:
        """Replay as many letters of the group as its window and the rate allow."""
        while not group.exhausted and (free := min(group.window.count_free(), AT_ONCE, self._allowed(began_s))) > 0:
            letters = list(islice(group.source, free))
            group.exhausted = len(letters) < free
            # A repetition is safe: a letter that is replayed is no letter any more.
            done = read_patiently(partial(self._replays.replay_each, letters, grant=self._grant)) if letters else []
            group.window.add(letter for letter, is_done in zip(letters, done, strict=True) if is_done)
            group.replayed += done.count(True)
            group.skipped += done.count(False)

    def _allowed(self, began_s: float) -> int:
        """How many letters the rate allows now."""
        if self._rate_per_s is None:
            return AT_ONCE
        return int(1 + self._rate_per_s * (self._monotonic() - began_s)) - self.replayed

    def _progress(self) -> tuple[int, int]:
        return self.replayed, sum(group.passed + group.failed for group in self.groups)
