"""`midwatch workers`: list the workers, with their queues and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import duration, iso, print_json, say

if TYPE_CHECKING:
    from midwatch.orchestration.client.presence import WorkerReport

QUEUES = ("model", "tools", "maintenance")


@click.command()
@options.as_json
def workers(as_json: bool) -> None:
    """List the workers of the fleet.

    A worker reports itself every five seconds. One that has not reported for 20 seconds is not listed. A queue that no worker
    serves is named at the end.
    """
    client = connect()
    found = client.workers.list()
    unserved = find_unserved(found)
    if as_json:
        print_json({"workers": [_document(worker) for worker in found], "unserved": unserved})
        return
    now_ms = server_ms(client)
    columns = [
        Column("HOST", kind="spare"),
        Column("PID", "right"),
        Column("QUEUES"),
        Column("POOL", kind="spare"),
        Column("BUSY", "right"),
        Column("SINCE", "right"),
        Column("VERSION", kind="spare"),
        Column("AGENTS", kind="long"),
    ]
    rows = [
        (
            worker.host,
            str(worker.pid),
            ",".join(worker.queues),
            worker.pool,
            f"{worker.busy} of {worker.slots}",
            duration(max(0, now_ms - worker.started_ms)),
            worker.version,
            ", ".join(f"{name} {version[:8]}" for name, version in sorted(worker.agents.items())),
        )
        for worker in found
    ]
    print_table(columns, rows, whole=True, empty="no workers; `midwatch worker` starts one")
    if found:
        for queue in unserved:
            say(f"no worker serves the queue {queue!r}")


def find_unserved(found: list[WorkerReport]) -> list[str]:
    """Return the queues that none of these workers serves."""
    served = {queue for worker in found for queue in worker.queues}
    return [queue for queue in QUEUES if queue not in served]


def _document(worker: WorkerReport) -> dict[str, Any]:
    document = worker.model_dump(mode="json", exclude={"started_ms", "seen_ms"})
    return {**document, "started_at": iso(worker.started_ms), "seen_at": iso(worker.seen_ms)}
