"""What left the window, kept whole beside the session: archived groups and long results, within a bound on their bytes."""

from __future__ import annotations

import redis

from midwatch.orchestration.keyspace import KEPT_S, ORIGINALS_BYTES, Keyspace
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable


class Originals:
    """The part of `ports.Store` that keeps and gives back originals. The oldest leave first."""

    client: redis.Redis
    keys: Keyspace
    scripts: Scripts
    originals_bytes = ORIGINALS_BYTES
    """Most bytes of them, for one session."""

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """See `ports.Store.put_result`."""
        keys = [
            key(session_id) for key in (self.keys.session, self.keys.results, self.keys.archive, self.keys.originals)
        ]
        self.scripts.call("keep_result", keys, (KEPT_S, self.originals_bytes, handle, body))

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """See `ports.Store.get_result`."""
        return self._original(self.keys.results(session_id), handle)

    def archived(self, session_id: str, group: int) -> bytes | None:
        """See `ports.Store.archived`."""
        return self._original(self.keys.archive(session_id), str(group))

    def _original(self, key: str, name: str) -> bytes | None:
        try:
            return self.client.hget(key, name)  # type: ignore[return-value]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
