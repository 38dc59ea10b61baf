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

    def __init__(self, claim: Claim, renew_at_ms: int, until_ms: int) -> None:
        self.claim = claim
        self.renew_at_ms = renew_at_ms
        self.until_ms = until_ms
        """When renewal stops: a hung tool or call must not keep its step for ever."""
        self.lost = False
        self.cancelled = False


class LeaseKeeper:
    """Keeps leases alive. Short steps need no renewal: they end before the first one is due."""

    def __init__(self, renew: Callable[[Claim], LeaseState], clock: Clock, lease_ms: int) -> None:
        self._renew = renew
        self._clock = clock
        self._period_ms = lease_ms // RENEWALS_PER_LEASE
        self._holds: dict[tuple[str, str, int], Hold] = {}
        self._lock = threading.Lock()
        self._pid = 0
        self._away = False

    @contextmanager
    def hold(self, claim: Claim, at_most_ms: int) -> Iterator[Hold]:
        """Keep the claim's lease alive during the block, but no longer than `at_most_ms`."""
        self._ensure_thread()
        now = self._clock.monotonic_ms()
        hold = Hold(claim, now + self._period_ms, now + at_most_ms)
        key = (claim.ref.job_id, claim.ref.step, claim.fence)
        self._holds[key] = hold
        try:
            yield hold
        finally:
            self._holds.pop(key, None)

    def _ensure_thread(self) -> None:
        """Start the thread if this process has none. A forked child does not inherit it."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._holds = {}
                threading.Thread(target=self._work, name="midwatch-leases", daemon=True).start()
                self._pid = os.getpid()

    def _work(self) -> None:
        while True:
            self._clock.sleep_ms(self._period_ms // 2)
            now = self._clock.monotonic_ms()
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
        hold.renew_at_ms = now + self._period_ms
        hold.cancelled = hold.cancelled or answer is LeaseState.CANCELLED
        hold.lost = answer is LeaseState.LOST
        return True
