"""Set aside a step whose records can't be read by this worker."""

from __future__ import annotations

import redis

from midwatch.orchestration.errors import RecordLost
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.protocol.store_replies import SetAside
from midwatch.orchestration.store.damage.burying import bury, damage_letter
from midwatch.orchestration.store.records import member, member_base
from midwatch.orchestration.store.script_calls import put_aside
from midwatch.orchestration.store.scripts import Scripts
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.failure import Failure
from midwatch.schemas.step import StepRef

AGENT = "(unreadable)"
"""The agent's name in the dead letter of a job that could not be read."""

NO_RESULT = "This call has no result: its job was cancelled, and its records could not be read."


class SettingAside:
    """The part of `ports.Store` that works without reading a record."""

    client: redis.Redis
    keys: Keyspace
    scripts: Scripts
    _dispatcher: Dispatcher

    def set_aside(
        self, ref: StepRef, nonce: str, failure: Failure, *, worker: str, max_tries: int, wait_ms: int
    ) -> SetAside:
        """See `ports.Store.set_aside`."""
        letter = damage_letter(ref, failure, agent=AGENT, worker=worker, attempt=max_tries)
        call = put_aside.set_aside(
            step_keys(self.keys, ref), step=ref.step, member=member(ref), member_base=member_base(ref), job=ref.job_id,
            session=ref.session_id, nonce=nonce, max_tries=max_tries, wait_ms=wait_ms, letter=letter, failure=failure,
            repair_text=NO_RESULT,
        )  # fmt: skip
        reply = self.scripts.run(call, patience_ms=1_000)
        if reply.next_step:
            self._dispatcher.publish((reply.next_step,))
        return reply.result

    def bury(self, ref: StepRef, lost: RecordLost, *, worker: str) -> SetAside:
        """See `ports.Store.bury`."""
        return bury(self.client, self.keys, self._dispatcher, ref, lost, worker=worker)
