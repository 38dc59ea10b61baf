"""`midwatch sessions compact` with workers: a worker gets the message, compacts, and the session goes on."""

from __future__ import annotations

from pathlib import Path

from midwatch.schemas.message import ToolMessage
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.faults.crew import Crew
from tests.faults.long_agents import TURNS, result_of
from tests.patience import PATIENCE_S, wait_for


def test_an_operators_compaction_is_done_by_a_worker(server: EmbeddedServer, prefix: str, tmp_path: Path) -> None:
    """No job has the session. After the compaction fewer messages are live, and an export still has every word."""
    with Crew(tmp_path, server, prefix, MIDWATCH_AGENTS="tests.faults.long_agents") as crew:
        crew.worker("all", "threads", 2, "model,tools,maintenance")
        job = crew.enqueue("Look at the orders.", "plain")
        assert job.result(PATIENCE_S).output == "All done."
        sessions = crew.client.sessions
        wait_for(lambda: "compacting" not in fields(crew, job.session_id), "the background compactions to end")
        before = sessions.show(job.session_id)
        assert sessions.compact(job.session_id)
        wait_for(lambda: sessions.show(job.session_id).compactions > before.compactions, "a worker to compact it")
        after = sessions.show(job.session_id)
        assert after.groups_archived + after.groups_live == before.groups_archived + before.groups_live == TURNS + 2
        originals = sessions.originals(job.session_id)
        said = [message.content for message in originals if isinstance(message, ToolMessage)]
        assert said == [result_of(number) for number in range(1, TURNS + 1)]
        again = crew.enqueue("And once more.", "plain", session_id=job.session_id)
        assert again.result(PATIENCE_S).output == "All done."
        assert sessions.forget(job.session_id)


def fields(crew: Crew, session_id: str) -> set[str]:
    """Return a field of the session's hash."""
    return {name.decode() for name in crew.client.store.client.hkeys(crew.client.operations.keys.session(session_id))}
