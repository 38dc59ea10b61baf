"""Workers killed during a compaction. The session has its old state or the new one, and the job goes on to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch import JobHandle
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, ToolMessage, UserMessage
from midwatch.workers.bench.context.windows import split_groups
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.faults.crew import Crew
from tests.faults.long_agents import TURNS, result_of
from tests.patience import PATIENCE_S, wait_for

MOMENTS = ("before begin", "after begin", "before commit", "after commit", "with a memory")


@pytest.fixture
def crew(server: EmbeddedServer, prefix: str, tmp_path: Path) -> Iterator[Crew]:
    """A fleet without workers. Its agents outgrow their budget."""
    with Crew(tmp_path, server, prefix, MIDWATCH_AGENTS="tests.faults.long_agents") as made:
        yield made


def died(crew: Crew, moment: str) -> bool:
    """Return whether a worker has reached the moment."""
    return (crew.journal.folder / f"died-{moment}").exists()


def assert_whole(crew: Crew, job: JobHandle) -> None:
    """Assert that the job completed and the export has each turn and each result once, in order and to the letter."""
    result = job.result(PATIENCE_S)
    assert (result.status, result.output, result.steps) == (JobStatus.COMPLETED, "All done.", TURNS + 1)
    sessions = crew.client.sessions
    said = sessions.originals(job.session_id)
    expected = [UserMessage, *[AssistantMessage, ToolMessage] * TURNS, AssistantMessage]
    assert [type(message) for message in said] == expected
    results = [message.content for message in said if isinstance(message, ToolMessage)]
    assert results == [result_of(number) for number in range(1, TURNS + 1)]
    assert split_groups(sessions.messages(job.session_id)) == 0
    numbers, memory = sessions.show(job.session_id), sessions.memory(job.session_id)
    assert memory is not None
    assert memory.compactions <= numbers.compactions
    assert numbers.compactions >= 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_killed_in_a_compaction_that_its_turn_waits_for(crew: Crew, moment: str) -> None:
    """No worker serves the compaction queue, so the turn compacts and dies. Another worker runs both again."""
    crew.worker("deadly", "threads", 2, "model,tools", LONG_DIES=moment)
    crew.fleet.watch()
    job = crew.enqueue("Look at the orders.", "plain")
    wait_for(lambda: died(crew, moment), f"a worker to die {moment}")
    assert_whole(crew, job)


@pytest.mark.parametrize("moment", MOMENTS[:4])
def test_a_worker_killed_in_a_background_compaction(crew: Crew, moment: str) -> None:
    """The killed worker does not return, and no other worker compacts in the background.

    The job's turns compact the session, and the job goes on.
    """
    crew.worker("steps", "threads", 2, "model,tools", LONG_AWAITS=moment)
    crew.worker("deadly", "threads", 1, "maintenance", LONG_DIES=moment)
    job = crew.enqueue("Look at the orders.", "early")
    wait_for(lambda: died(crew, moment), f"a worker to die {moment}")
    assert_whole(crew, job)


def test_a_worker_killed_while_a_model_writes_the_summary(crew: Crew) -> None:
    """The dead worker's lock lasts as long as its call to the model. The summary is requested again, and paid for once."""
    crew.worker("deadly", "threads", 2, "model,tools", LONG_DIES="in the summary")
    crew.fleet.watch()
    job = crew.enqueue("Look at the orders.", "summed_up")
    wait_for(lambda: died(crew, "in the summary"), "a worker to die in the summary")
    assert_whole(crew, job)
    memory = crew.client.sessions.memory(job.session_id)
    assert memory is not None
    assert memory.summary == "Orders were looked up."
