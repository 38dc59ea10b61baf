"""`bench context` from file to figures: real server, real session, real steps; only the model is a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.message import Text
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers.bench.context.run import run

WORDS = "The parcel was left with a neighbour who has moved since. "

ROW = {"call", "tokens", "fill", "over_budget", "split_groups", "goal_intact", "system_intact", "compactions"}
TOTALS = {
    "calls", "over_budget", "split_groups", "goal_lost", "facts_needed", "facts_kept", "compactions", "redis_peak_bytes",
    "ms_per_call_p50", "ms_per_call_p99",
}  # fmt: skip


def looked_up(
    number: int, *, name: str = "find", arguments: str | None = None, result: str | None = None
) -> list[dict[str, Any]]:
    """One model turn with a call, and its result that names the next order."""
    said = arguments if arguments is not None else json.dumps({"order": f"#W{1000 + number}"})
    called = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": said}}
    text = f"Then look at #W{1001 + number}. " + WORDS * 20 if result is None else result
    return [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": called["id"], "content": text},
    ]


def session(jobs: int, turns: int) -> list[dict[str, Any]]:
    """Several jobs in one conversation; each ends with a look at its own first order once more."""
    rows: list[dict[str, Any]] = [{"role": "system", "content": "You look orders up, one after the other."}]
    for job in range(jobs):
        rows.append({"role": "user", "content": f"Job {job}: begin with order #W{1000 + 100 * job}."})
        rows += [row for turn in range(turns) for row in looked_up(100 * job + turn)]
        rows += looked_up(100 * job)
        rows.append({"role": "assistant", "content": f"Job {job} is done."})
    return rows


@pytest.fixture
def file(tmp_path: Path):
    """Writes a record to a file."""

    def write(*records: object) -> Path:
        path = tmp_path / "transcript.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return path

    return write


def test_a_long_session_stays_within_its_budget_and_nothing_is_torn(file):
    """Three jobs of thirty turns through a window that holds a tenth of them: no call over, no group split, no goal lost."""
    told: list[str] = []
    figures = run(file({"messages": session(3, 30)}), max_tokens=4_000, say=told.append)
    assert set(figures) >= TOTALS
    assert all(set(row) >= ROW for row in figures["rows"])
    assert figures["calls"] == len(figures["rows"]) == 3 * 32
    assert [row["call"] for row in figures["rows"]] == list(range(1, 97))
    assert (figures["over_budget"], figures["split_groups"], figures["goal_lost"], figures["system_lost"]) == (
        0,
        0,
        0,
        0,
    )
    assert figures["transcripts"][0]["whole_tokens"] > 6 * figures["transcripts"][0]["max_tokens"]
    assert all(0 < row["fill"] <= 100 for row in figures["rows"])
    assert figures["facts_named"] >= 3 * 31
    assert 0 <= figures["facts_kept"] <= figures["facts_needed"] <= figures["facts_named"]
    assert 0 < figures["ms_per_call_p50"] <= figures["ms_per_call_p99"]
    assert figures["redis_peak_bytes"] > 1_000
    assert (figures["unplayed_turns"], figures["endings"]) == (0, [])
    assert len(figures["peers"]) == 2
    assert told[0].endswith(f"{figures['transcripts'][0]['whole_tokens']:,} tokens")


def test_a_session_that_fits_is_sent_whole(file):
    """With room for everything, the last call is sent all but the last answer, and nothing is needed from elsewhere."""
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    figures = run(file({"messages": session(1, 5), "tools": tools}), max_tokens=100_000, peers=False)
    whole, last = figures["transcripts"][0]["whole_tokens"], figures["rows"][-1]["tokens"]
    assert 0 < whole - last < 60
    assert (figures["facts_needed"], figures["compactions"], figures["peers"]) == (0, 0, [])


def test_whatever_a_record_holds_is_played_to_its_end(file):
    """Broken and empty arguments, unknown tools, errors, calls nobody answered, a greeting, a user breaking in."""
    rows = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Look."},
        *looked_up(0, arguments='{"broken'),
        *looked_up(1, arguments=""),
        *looked_up(2, name="functions.find", result=""),
        looked_up(3)[0],
        {"role": "assistant", "content": ""},
        *looked_up(4, name="read_result", result="its own"),
        {"role": "user", "content": "Stop that. Look at #W1003."},
        {"role": "assistant", "content": "I did."},
        {"role": "assistant", "content": "And that is all."},
        {"role": "user", "content": "Thanks."},
    ]
    figures = run(file({"messages": rows, "tools": []}), max_tokens=50_000, peers=False)
    assert (figures["split_groups"], figures["goal_lost"], figures["endings"], figures["unplayed_turns"]) == (
        0,
        0,
        [],
        0,
    )
    assert figures["calls"] == 9 + 1  # the user broke in: one answer was put in, so that the job could end


def test_a_record_without_a_model_turn_has_no_figures(file):
    """And is no error: there is nothing to play."""
    figures = run(file({"messages": [{"role": "user", "content": "Anybody?"}]}), max_tokens=20_000)
    assert (figures["calls"], figures["rows"], figures["ms_per_call_p50"]) == (0, [], None)


def test_records_of_a_file_are_sessions_of_their_own_and_one_can_be_chosen(file):
    """Totals are over all; rows and totals say whose they are; by name or number one is played alone."""
    path = file({"id": "first", "messages": session(1, 2)}, {"id": "second", "messages": session(1, 4)})
    figures = run(path, max_tokens=20_000, peers=False)
    assert [(one["name"], one["calls"]) for one in figures["transcripts"]] == [("first", 4), ("second", 6)]
    assert figures["calls"] == 10
    assert [row["transcript"] for row in figures["rows"]] == ["first"] * 4 + ["second"] * 6
    assert run(path, max_tokens=20_000, peers=False, only="2")["calls"] == 6
    with pytest.raises(ConfigError, match=r"1 to 2, or one of: first, second"):
        run(path, max_tokens=20_000, only="third")


def test_a_tool_result_arrives_as_it_was_recorded(file):
    """Not cut on the way in: how a long one is dealt with is what is measured."""
    rows = [
        {"role": "user", "content": "Look."},
        *looked_up(0, result=WORDS * 2_000),
        {"role": "assistant", "content": "Done."},
    ]
    figures = run(file(rows), max_tokens=100_000, peers=False)
    assert figures["rows"][-1]["tokens"] > 20_000


@pytest.mark.parametrize("fill", [80, 100, 120])
def test_a_budget_may_be_given_by_how_full_the_conversation_makes_it(file, fill: int):
    """The whole conversation and its answer are so many percent of it; above 100 the window must shrink."""
    figures = run(file(session(1, 12)), fill=fill, peers=False)
    one = figures["transcripts"][0]
    assert one["max_tokens"] == pytest.approx((one["whole_tokens"] + one["reserve_tokens"]) * 100 / fill, abs=1)
    assert (figures["over_budget"], figures["goal_lost"], figures["split_groups"]) == (0, 0, 0)


@pytest.mark.parametrize("given", [{}, {"max_tokens": 5_000, "fill": 80}, {"fill": 0}, {"max_tokens": 999}])
def test_a_budget_is_given_in_one_of_two_ways(file, given):
    """Neither, both, and one that nothing fits into are refused."""
    with pytest.raises(ConfigError, match="expected"):
        run(file(session(1, 1)), **given)


def test_a_summarizer_that_makes_no_sense_is_refused(file):
    """Before anything starts."""
    path = file(session(1, 1))
    with pytest.raises(ConfigError, match="'extractive' or 'model'"):
        run(path, max_tokens=20_000, summarizer="magic")
    with pytest.raises(ConfigError, match="needs summarizer='model'"):
        run(path, max_tokens=20_000, summary_model="anthropic:claude-haiku-4-5-20251001")
    assert "stand-in" in run(path, max_tokens=20_000, summarizer="model", peers=False)["summarizer"]


def test_a_named_summary_model_is_asked_through_its_provider(file):
    """And whatever it answers, the session goes on within its budget."""

    class Garbage:
        """Answers with nonsense."""

        name = "elsewhere"

        def complete(self, request: ModelRequest) -> ModelReply:
            """See `ports.Model`."""
            return ModelReply(parts=(Text(text="qrk " * 5_000),), stop=Stop.END, usage=Usage(), model=request.model)

        def count(self, request: ModelRequest) -> int | None:
            """None."""
            return None

    path = file(session(1, 30))
    figures = run(
        path, max_tokens=4_000, summarizer="model", summary_model="elsewhere:m-1", provider=Garbage(), peers=False
    )
    assert figures["summarizer"] == "model"
    assert (figures["calls"], figures["over_budget"], figures["split_groups"], figures["goal_lost"]) == (32, 0, 0, 0)


def test_recorded_sessions_are_played_whole(data_dir):
    """A real session with `""` as arguments, at a budget a tenth of its size: every turn asked for, no group split."""
    path = data_dir / "toolathlon_sessions.jsonl.gz"
    figures = run(path, max_tokens=16_000, only="claude-4.5-sonnet_academic-warning", peers=False)
    assert (figures["calls"], figures["unplayed_turns"], figures["endings"]) == (53, 0, [])
    assert (figures["split_groups"], figures["goal_lost"], figures["system_lost"]) == (0, 0, 0)
