"""A downstream that is down makes dead letters. After its repair, each is replayed and resumes at its failed step."""

from __future__ import annotations

from pathlib import Path

from midwatch.schemas.job import JobStatus
from tests.patience import wait_for
from tests.tickets.ledger import Ledger
from tests.tickets.record import tickets
from tests.tickets.stage import Stage

CHOSEN = slice(0, 50, 5)


def test_replay_resumes_exactly_at_the_step_that_failed(tmp_path: Path, data_dir: Path) -> None:
    """Ten tickets in two formats: each dead letter is replayed once, no earlier step repeats, transcripts equal the record."""
    down = tmp_path / "down"
    env = {"TICKETS_RETRIES": "1", "TICKETS_DOWN_FILE": str(down), "TICKETS_TOOL_MS": "50"}
    with Stage(tmp_path, prefix="replay", env=env, latency_ms=20) as stage:
        stage.start_workers([("model,maintenance", "threads", 16), ("tools", "prefork", 2)])
        client = stage.client()
        stage.play(tickets()[CHOSEN])
        wait_for(lambda: client.operations.counters().get("steps.tool", 0) >= 20, "twenty tool calls")
        down.touch()
        # A session that ends with a turn without calls fails nowhere. All other sessions stop at their next call.
        wait_for(lambda: len(client.dead_letters.list()) >= 5 and not stage.under_way_any(), "dead letters")
        letters = client.dead_letters.list()
        before = {letter.session_id: Ledger(stage.ledgers, letter.session_id).entries() for letter in letters}
        assert {letter.failure.kind for letter in letters} == {"connection"}
        assert all(len(letter.tries) == 2 for letter in letters), "one retry was allowed, and both attempts are kept"
        down.unlink()
        for letter in letters:
            assert client.dead_letters.replay(letter.job_id)
            assert not client.dead_letters.replay(letter.job_id), "a second replay is a no-op"
        stage.wait()
        report = stage.check()
        for letter in letters:
            job = client.jobs.show(letter.job_id)
            assert job.status is JobStatus.COMPLETED
            entries = Ledger(stage.ledgers, letter.session_id).entries()
            assert entries[: len(before[letter.session_id])] == before[letter.session_id]
            assert all(entry.effect for entry in entries), "no call reached the downstream a second time"
            turns = [record.step for record in client.jobs.trace(letter.job_id) if record.outcome == "continue"]
            assert len(turns) == len(set(turns)), "no step was repeated"
    assert report.clean, report
