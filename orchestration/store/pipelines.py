"""Run a pipeline of commands. An unreachable server raises the same error as for a script."""

from __future__ import annotations

from typing import Any

from midwatch.orchestration.store.scripts import UNAVAILABLE, unread


def run_pipeline(pipe: Any, *, with_errors: bool = False) -> list[Any]:
    """Run a pipeline and return its replies. With `with_errors`, the error of a command is returned as its reply.

    Raises:
        StoreUnavailable: the server can't be reached.

    """
    try:
        replies: list[Any] = pipe.execute(raise_on_error=not with_errors) if len(pipe) else []
    except UNAVAILABLE as error:
        raise unread(error) from error
    for reply in replies:
        if isinstance(reply, UNAVAILABLE):
            raise unread(reply) from reply
    return replies
