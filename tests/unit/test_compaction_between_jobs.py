"""A chat of one-turn jobs in one session is compacted between them, so that no turn of a user waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.orchestration.steps import make_room as room
from midwatch.schemas.message import Text
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import StepRef
from tests.unit.longtalk import Talk, Talker, budget, clerk

LONG = "The order W-{number} is late, and the customer asks again. " * 12


def chat(talk: Talk, jobs: int) -> list[str]:
    """Run so many jobs of one turn in one session. Return their ids."""
    ids = []
    for number in range(jobs):
        assert talk.run(LONG.format(number=number)).output == "All done."
        ids.append(talk.job_id)
    return ids


@pytest.fixture
def no_turn_compacts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every compaction inside a turn fail the test."""

    def compact_now(*given: object, **more: object) -> None:
        waited.append("a turn compacted its session itself")

    waited: list[str] = []
    monkeypatch.setattr(room, "compact_now", compact_now)
    yield
    assert waited == []


@pytest.mark.usefixtures("no_turn_compacts")
def test_a_long_chat_of_one_turn_jobs_never_waits_for_a_compaction():
    """Each final answer above `act_at` requests a compaction. It runs before the session's next job needs the space."""
    talk = Talk(clerk(), Talker(0))
    jobs = chat(talk, 60)
    assert talk.compactions >= 3
    assert talk.compactions == len(talk.asked)
    assert talk.most_tokens() <= 6_000
    assert [record.outcome for job in jobs for record in talk.fleet.trace(job)] == ["complete"] * 60
    assert "W-0" in str(talk.memory)


@pytest.mark.usefixtures("no_turn_compacts")
def test_the_next_job_may_run_while_the_session_is_compacted():
    """The compaction of the ended job commits during the next job's call. That job's prompt and answer stay."""
    talk = Talk(clerk(), Talker(0), in_background=False)
    pending: list[str] = []
    runs: list[str] = []

    def compact_meanwhile(number: int, request: ModelRequest) -> Stop | None:
        for step in talk.asked[len(runs) :]:
            runs.append(step)
            talk.fleet.runner.run(StepRef(job_id=pending[-1], session_id="s1", step=step))
        return None

    talk.model.fail = compact_meanwhile
    for number in range(40):
        assert talk.run(LONG.format(number=number)).output == "All done."
        pending.append(talk.job_id)
        prompt = LONG.format(number=number)
        assert prompt in [getattr(message, "text", "") for message in talk.fleet.operations.messages("s1")]
    assert talk.compactions >= 2
    assert (
        len(runs) >= talk.compactions
    )  # a call that began before the compaction requests one that finds nothing to do


def test_the_ended_job_pays_for_the_summary():
    """The tokens of the summarizer count for the job that requested it, also if it has ended."""
    agent = clerk(context_budget=budget(summary_model="scripted:s-1"))
    talk = Talk(agent, Talker(0))

    def summarize(request: ModelRequest) -> ModelReply:
        usage = Usage(input_tokens=9_999, output_tokens=1)
        return ModelReply(parts=(Text(text="{}"),), stop=Stop.END, usage=usage, model="s-1")

    talk.model.summarize = summarize
    jobs = chat(talk, 22)
    assert talk.compactions == 1
    paid = [job for job in jobs if talk.fleet.store.job(job).usage.input_tokens >= 9_999]
    assert paid
    assert talk.fleet.store.job(paid[0]).status == "completed"


def test_a_session_made_for_one_job_is_not_compacted_after_it():
    """No other job is expected in it, so a summary would be paid for nothing."""
    talk = Talk(clerk(context_budget=budget(reserve_output=1_000)), Talker(0))
    job = talk.fleet.enqueue(talk.agent, LONG.format(number=1) * 19)
    assert talk.fleet.run(job).output == "All done."
    assert talk.model.requests
    assert talk.asked == []
