"""Replay dead letters without a human when their cause has passed. One worker of the fleet does so at a time."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.agents.code_version import code_version
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.letters.redrive_index import RedriveIndex
from midwatch.orchestration.client.letters.replay_window import ReplayWindow
from midwatch.orchestration.client.letters.replays import Replayed, Replays
from midwatch.orchestration.errors import NotFound, UnknownAgent
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.redrive import Cause, RedriveGroup
from midwatch.orchestration.store.operations import Operations
from midwatch.schemas.contract import Record

LEASE_MS = 10_000
"""How long a worker that died keeps the others from redriving."""
LONGEST_WAIT_MS = 3_600_000
"""The longest wait between two batches of probes."""

log = get_logger("midwatch.redrive")


class RedriveState(Record):
    """The redrive of one cause, as it is stored. Times are the server's."""

    size: int
    under_way: tuple[tuple[str, str, str], ...] = ()
    passed: int = 0
    failed: int = 0
    next_ms: int
    """Before this time no letter is replayed."""
    waits: int = 0
    """Batches of probes that failed again, one after the other."""
    replayed: int = 0
    """Letters replayed since the cause was first seen."""
    answered: int = 0
    """How many calls the downstream had answered when the last batch of probes began; after it failed, when it failed."""
    was_silent: bool = False
    """The downstream answered no call while the last batch failed. Its next answer ends the wait."""
    tried_code: str = ""
    """With the cause CODE: the code under which a batch failed again. Only other code is worth a try."""

    @classmethod
    def make(cls, next_ms: int) -> RedriveState:
        """The state of a new cause."""
        return cls(size=ReplayWindow().size, next_ms=next_ms)

    def window(self) -> ReplayWindow:
        """The letters under way, and how many may be."""
        return ReplayWindow(self.size, [Replayed(*one) for one in self.under_way], self.passed, self.failed)

    def with_window(self, window: ReplayWindow) -> RedriveState:
        """The state with the window as it is now."""
        under_way = tuple(tuple(one) for one in window.under_way)
        changed = {"size": window.size, "under_way": under_way, "passed": window.passed, "failed": window.failed}
        return self.model_copy(update=changed)


class Redriver:
    """Looks at the letters that may be replayed without a human. Each worker has one; a lease in Redis lets one of them work."""

    def __init__(
        self, operations: Operations, gate: Board, agents: Registry, worker: str, *, first_wait_ms: int
    ) -> None:
        self._operations = operations
        self._index = RedriveIndex(operations)
        self._replays = Replays(operations)
        self._gate = gate
        self._agents = agents
        self._worker = worker
        self._first_wait_ms = first_wait_ms

    def look(self) -> Literal["idle", "busy", "not_mine"]:
        """Do what can be done now. `busy`: letters are under way. `not_mine`: another worker does it. Raises StoreUnavailable."""
        if not self._index.hold_lease(self._worker, LEASE_MS):
            return "not_mine"
        states = {text: _read_state(text, raw) for text, raw in self._index.read_states().items()}
        groups = self._index.groups()
        groups += [group for group in map(_group_of, states) if group and group not in groups]
        if not groups and not states:
            return "idle"
        now_ms = self._operations.letters.now_ms()
        changed: dict[str, str | None] = dict.fromkeys(text for text in states if _group_of(text) is None)
        is_busy = False
        for group in groups:
            before = states.get(str(group))
            state = self._go_on(group, before or RedriveState.make(now_ms + self._first_wait_ms), now_ms)
            is_busy |= bool(state and state.under_way)
            if state != before:
                changed[str(group)] = state.model_dump_json() if state else None
        if changed:
            self._index.write_states(changed)
        return "busy" if is_busy else "idle"

    def _go_on(self, group: RedriveGroup, state: RedriveState, now_ms: int) -> RedriveState | None:
        """Judge the letters under way, and replay more. None: the cause has no letters left."""
        window = state.window()
        before = window.size
        taken = self._index.take(group, 1)
        window.learn(self._replays.judge(window.under_way), no_more=not taken)
        if window.closed:
            return self._stop(group, state, window, now_ms)
        if window.size > before:
            state = state.model_copy(update={"waits": 0})
        if not taken and not window.under_way:
            log.info("redrive.done", cause=group.describe(), replayed=state.replayed)
            return None
        if taken and self._is_due(group, state, now_ms) and self._has_passed(group, state):
            state = self._fill(group, state, window)
        return state.with_window(window)

    def _stop(self, group: RedriveGroup, state: RedriveState, window: ReplayWindow, now_ms: int) -> RedriveState:
        """The cause is still there: wait longer each time."""
        wait_ms = min(LONGEST_WAIT_MS, self._first_wait_ms * 2 ** min(state.waits + 1, 20))
        log.warning(
            "redrive.stopped", cause=group.describe(), passed=window.passed, failed=window.failed, wait_ms=wait_ms
        )
        answered = self._count_answered(group)
        changed = {
            "next_ms": now_ms + wait_ms,
            "waits": state.waits + 1,
            "answered": answered,
            "was_silent": answered == state.answered,
            "tried_code": self._code_of(group) or state.tried_code,
        }
        return state.model_copy(update=changed).with_window(ReplayWindow(under_way=window.under_way))

    def _fill(self, group: RedriveGroup, state: RedriveState, window: ReplayWindow) -> RedriveState:
        """Replay as many letters as the window allows."""
        free = window.count_free()
        entries = self._index.take(group, free) if free else []
        letters = {letter: entry for entry, letter in zip(entries, self._index.read(entries), strict=True) if letter}
        done = self._replays.replay_each(list(letters), redriven=True) if letters else []
        replayed = [letter for letter, is_done in zip(letters, done, strict=True) if is_done]
        left = set(entries) - {letters[letter] for letter in replayed}
        if left:
            self._index.drop(list(left))
        if replayed:
            log.info("redrive.replayed", cause=group.describe(), letters=len(replayed), probes=window.is_probing)
        window.add(replayed)
        changed = {"replayed": state.replayed + len(replayed)}
        if replayed and window.is_probing:
            changed["answered"] = self._count_answered(group)
        return state.model_copy(update=changed)

    def _is_due(self, group: RedriveGroup, state: RedriveState, now_ms: int) -> bool:
        """May letters be replayed at this time? A downstream that was silent, and has answered a call since, is back.

        If it answered other calls while the letters failed, the failure is that of the letters, and the wait holds.
        """
        return now_ms >= state.next_ms or (state.was_silent and self._count_answered(group) > state.answered)

    def _count_answered(self, group: RedriveGroup) -> int:
        """How many calls the downstream has answered so far. 0 if the coordinator does not know it."""
        if not group.downstream or group.cause is not Cause.AWAY:
            return 0
        try:
            return self._gate.show(group.downstream).ok
        except NotFound:
            return 0

    def _has_passed(self, group: RedriveGroup, state: RedriveState) -> bool:
        """May a probe pass? The coordinator knows of pauses, blocks and the breaker, and this worker knows its own code."""
        if group.cause is Cause.CODE:
            return self._code_of(group) not in (None, group.code, state.tried_code)
        if not group.downstream:
            return True
        try:
            status = self._gate.show(group.downstream)
        except NotFound:
            return True
        is_open = status.breaker == "open" and status.open_ms > 0
        return not (is_open or status.paused_ms > 0 or status.blocked_ms > 0)

    def _code_of(self, group: RedriveGroup) -> str | None:
        """The version of the code that this worker has loaded. None if the cause is not in the code, or it has no such agent."""
        if group.cause is not Cause.CODE:
            return None
        try:
            return code_version(self._agents.find(group.agent))
        except UnknownAgent:
            return None


def _group_of(text: str) -> RedriveGroup | None:
    try:
        return RedriveGroup.parse(text)
    except ValueError:
        return None


def _read_state(text: str, raw: bytes) -> RedriveState | None:
    """The stored state. None if it can't be read: then the cause begins anew."""
    try:
        return RedriveState.model_validate_json(raw)
    except ValidationError:
        log.warning("redrive.unreadable", entry=text[:100])
        return None
