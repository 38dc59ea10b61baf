"""Renew leases during the work, in one thread per process. A step that outlives its deadline loses its lease."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.ports import Clock
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.store_replies import LeaseState

log = get_logger("midwatch.leases")

RENEWALS_PER_LEASE = 4
"""How often a lease is renewed before it would end: three renewals may fail before another worker can claim the step."""


class Hold:
    """A claim whose lease is renewed."""

    def __init__(self, claim: Claim, renew_at_ms: int, until_ms: int, over_at_ms: int | None = None) -> None:
        self.claim = claim
        self.renew_at_ms = renew_at_ms
        self.until_ms = until_ms
        """When renewal stops: a hung tool or call must not keep its step for ever."""
        self.over_at_ms = over_at_ms
        """The end of the lease, if no further renewal succeeds. None: it has no end."""
        self.renewed = False
        self.lost = False
        self.cancelled = False


class LeaseKeeper:
    """Keeps leases alive. Short steps need no renewal: they end before the first one is due."""

    def __init__(self, renew: Callable[[Claim], LeaseState], clock: Clock, lease_ms: int) -> None:
        self._renew = renew
        self._clock = clock
        self._lease_ms = lease_ms
        self._period_ms = lease_ms // RENEWALS_PER_LEASE
        self._holds: dict[tuple[str, str, int], Hold] = {}
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._turned_at_ms = 0
        """When the thread began its last round."""
        self._late_turn_ms = -1
        self._away = False

    @contextmanager
    def hold(self, claim: Claim, at_most_ms: int) -> Iterator[Hold]:
        """Keep the claim's lease alive during the block, but no longer than `at_most_ms`."""
        self._ensure_thread()
        now = self._clock.monotonic_ms()
        hold = Hold(claim, now + self._period_ms, now + at_most_ms, now + self._lease_ms)
        key = (claim.ref.job_id, claim.ref.step, claim.fence)
        self._holds[key] = hold
        try:
            yield hold
        finally:
            self._holds.pop(key, None)

    def has_lease(self, hold: Hold, claimed_at_ms: int | None = None) -> bool:
        """Does the lease still hold? Call this before an effect begins. If a renewal is overdue, renew it now.

        Without a lease, another worker may run the same call. `claimed_at_ms` is when the lease began, if that was earlier,
        by this process's clock. It is not used after a renewal.
        """
        now = self._clock.monotonic_ms()
        if hold.over_at_ms is None or hold.lost:
            return not hold.lost
        if claimed_at_ms is not None and not hold.renewed:
            hold.renew_at_ms, hold.over_at_ms = claimed_at_ms + self._period_ms, claimed_at_ms + self._lease_ms
        if now >= hold.renew_at_ms + self._period_ms and now < hold.until_ms:
            self._renew_one(hold, now)
        return not hold.lost and self._clock.monotonic_ms() < hold.over_at_ms

    def is_over(self, hold: Hold) -> bool:
        """Has the lease ended, or was it lost? A long call checks this, and stops if so. It sends no command."""
        return hold.lost or (hold.over_at_ms is not None and self._clock.monotonic_ms() >= hold.over_at_ms)

    def _ensure_thread(self) -> None:
        """Start the thread if this process has none. A forked child does not inherit it. A thread that died is replaced."""
        if self._pid == os.getpid() and self._thread is not None and self._thread.is_alive():
            late_ms = self._clock.monotonic_ms() - self._turned_at_ms
            if late_ms > self._lease_ms and not self._away and self._late_turn_ms != self._turned_at_ms:
                self._late_turn_ms = self._turned_at_ms  # one log line for each stall
                log.error("lease.keeper_stalled", late_ms=late_ms, holds=len(self._holds))
            return
        with self._lock:
            if self._pid != os.getpid():
                self._holds = {}
            elif self._thread is not None and self._thread.is_alive():
                return
            elif self._thread is not None:
                log.error("lease.keeper_died", holds=len(self._holds))
            self._turned_at_ms = self._clock.monotonic_ms()
            self._thread = threading.Thread(target=self._work, name="midwatch-leases", daemon=True)
            self._thread.start()
            self._pid = os.getpid()

    def _work(self) -> None:
        while True:
            self._clock.sleep_ms(self._period_ms // 2)
            try:
                self._turn()
            except Exception:  # without this thread, every step of the process would lose its lease
                log.exception("lease.keeper_broke", holds=len(self._holds))

    def _turn(self) -> None:
        """Renew the leases that are due."""
        now = self._turned_at_ms = self._clock.monotonic_ms()
        for hold in list(self._holds.values()):
            if hold.renew_at_ms <= now < hold.until_ms and not hold.lost and not self._renew_one(hold, now):
                break

    def _renew_one(self, hold: Hold, now: int) -> bool:
        """Renew one lease. Returns False if the store can't be reached: then the others wait for the next round too.

        If a lease ends meanwhile, no harm is done: the fence refuses a late commit.
        """
        try:
            answer = self._renew(hold.claim)
        except StoreUnavailable as error:
            if not self._away:  # one log line for each outage, not for each renewal
                log.warning("lease.renewal_failed", holds=len(self._holds), error=str(error)[:200])
            self._away = True
            return False
        except Exception:
            log.exception("lease.renewal_broke", job_id=hold.claim.ref.job_id)
            return True
        self._away = False
        hold.renew_at_ms, hold.over_at_ms, hold.renewed = now + self._period_ms, now + self._lease_ms, True
        hold.cancelled = hold.cancelled or answer is LeaseState.CANCELLED
        hold.lost = answer is LeaseState.LOST
        return True
