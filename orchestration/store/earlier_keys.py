"""Keys of releases before 0.3 whose id ends like the key of a part, such as the session `x:log`.

Those releases put the session `x:log` at the key of the log of `x`. Now it has another key (see `keyspace.stem`). What such a
release stored is moved when the id is used the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from midwatch.orchestration.keyspace import ESCAPE, JOB_PARTS, SESSION_PARTS, Keyspace, ends_like_part
from midwatch.orchestration.store.pipelines import run_pipeline

TYPES = {
    "log": "list", "waiting": "list", "results": "hash", "memory": "string", "archive": "hash", "originals": "list",
    "steps": "hash", "trace": "list",
}  # fmt: skip
"""The type of each part. The session or the job itself is a hash."""


def move_earlier_keys(client: redis.Redis, keys: Keyspace, session_id: str, job_id: str = "") -> None:
    """Move what an earlier release stored for this session and this job to the keys of this release.

    It sends no command for an id that does not end like the key of a part. A key that belongs to another id is not moved.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    if ends_like_part(session_id, SESSION_PARTS):
        _move(client, keys.session(session_id), SESSION_PARTS, ("active", "groups"))
    if job_id and ends_like_part(job_id, JOB_PARTS):
        _move(client, keys.job(session_id, job_id), JOB_PARTS, ("spec",))


def _move(client: redis.Redis, key: str, parts: Sequence[str], own_fields: Sequence[str]) -> None:
    """Move a record with its parts. `own_fields` are fields that only this kind of record has."""
    earlier = key.removesuffix(ESCAPE)
    names = {"": "hash"} | {f":{part}": TYPES[part] for part in parts}
    pipe: Any = client.pipeline(transaction=False)
    for field in own_fields:
        pipe.hexists(earlier, field)
    for suffix in names:
        pipe.type(earlier + suffix)
    replies = run_pipeline(pipe, with_errors=True)
    if not any(reply is True or reply == 1 for reply in replies[: len(own_fields)]):
        return
    pipe = client.pipeline(transaction=False)
    for (suffix, kind), stored in zip(names.items(), replies[len(own_fields) :], strict=True):
        if stored == kind.encode():
            pipe.renamenx(earlier + suffix, key + suffix)
    run_pipeline(pipe, with_errors=True)  # another process may have moved them meanwhile
