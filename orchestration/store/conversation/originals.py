"""Originals: archived groups and whole tool results. A session keeps them up to a number of bytes."""

from __future__ import annotations

import redis

from midwatch.orchestration.keyspace import KEPT_S, ORIGINALS_BYTES, Keyspace
from midwatch.orchestration.store.script_calls import shorten
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unread


class Originals:
    """The part of `ports.Store` that keeps originals and reads them. The oldest are deleted first."""

    client: redis.Redis
    keys: Keyspace
    scripts: Scripts
    originals_bytes = ORIGINALS_BYTES
    """The most bytes of originals that a session keeps."""

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """See `ports.Store.put_result`."""
        call = shorten.keep_result(
            self.keys, session_id, kept_s=KEPT_S, most_bytes=self.originals_bytes, handle=handle, body=body
        )
        self.scripts.run(call)

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """See `ports.Store.get_result`."""
        return self._original(self.keys.results(session_id), handle)

    def get_archived(self, session_id: str, group: int) -> bytes | None:
        """See `ports.Store.get_archived`."""
        return self._original(self.keys.archive(session_id), str(group))

    def _original(self, key: str, name: str) -> bytes | None:
        try:
            return self.client.hget(key, name)  # type: ignore[return-value]
        except UNAVAILABLE as error:
            raise unread(error) from error
