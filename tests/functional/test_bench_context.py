"""`bench context` from file to figures: a real server, a real session and real steps. Only the model is a recording."""

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


def look_up_order(
    number: int, *, name: str = "find", arguments: str | None = None, result: str | None = None
) -> list[dict[str, Any]]:
    """Return a model turn with a call, and its result with the number of the next order."""
    said = arguments if arguments is not None else json.dumps({"order": f"#W{1000 + number}"})
    called = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": said}}
    text = f"Then look at #W{1001 + number}. " + WORDS * 20 if result is None else result
    return [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": called["id"], "content": text},
    ]


def session(jobs: int, turns: int) -> list[dict[str, Any]]:
    """Return several jobs in one conversation. Each ends with a second look at its first order."""
    rows: list[dict[str, Any]] = [{"role": "system", "content": "You look orders up, one after the other."}]
    for job in range(jobs):
        rows.append({"role": "user", "content": f"Job {job}: begin with order #W{1000 + 100 * job}."})
        rows += [row for turn in range(turns) for row in look_up_order(100 * job + turn)]
        rows += look_up_order(100 * job)
        rows.append({"role": "assistant", "content": f"Job {job} is done."})
    return rows


@pytest.fixture
def file(tmp_path: Path):
    """A function that writes a record to a file."""

    def write(*records: object) -> Path:
        path = tmp_path / "transcript.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return path

    return write


def test_a_long_session_stays_within_its_budget_and_keeps_groups_whole(file):
    """Three jobs of thirty turns, in a window for a tenth of them: no call over budget, no group split, no goal lost."""
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
    """If everything fits, the last call contains everything except the last answer, and no information has to be recovered."""
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    figures = run(file({"messages": session(1, 5), "tools": tools}), max_tokens=100_000, peers=False)
    whole, last = figures["transcripts"][0]["whole_tokens"], figures["rows"][-1]["tokens"]
    assert 0 < whole - last < 60
    assert (figures["facts_needed"], figures["compactions"], figures["peers"]) == (0, 0, [])


def test_an_unusual_record_is_played_to_its_end(file):
    """Broken and empty arguments, unknown tools, errors, calls without results, a greeting, an interrupting user."""
    rows = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Look."},
        *look_up_order(0, arguments='{"broken'),
        *look_up_order(1, arguments=""),
        *look_up_order(2, name="functions.find", result=""),
        look_up_order(3)[0],
        {"role": "assistant", "content": ""},
        *look_up_order(4, name="read_result", result="its own"),
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
    assert figures["calls"] == 9 + 1  # the user interrupted: one answer was added, so that the job could end


def test_a_record_without_a_model_turn_has_no_figures(file):
    """A record without a model turn is not an error. It contains nothing to play."""
    figures = run(file({"messages": [{"role": "user", "content": "Anybody?"}]}), max_tokens=20_000)
    assert (figures["calls"], figures["rows"], figures["ms_per_call_p50"]) == (0, [], None)


def test_each_record_of_a_file_is_a_session_and_can_be_chosen(file):
    """Totals are over all records. Rows and totals have the record's name. A name or number chooses one record."""
    path = file({"id": "first", "messages": session(1, 2)}, {"id": "second", "messages": session(1, 4)})
    figures = run(path, max_tokens=20_000, peers=False)
    assert [(one["name"], one["calls"]) for one in figures["transcripts"]] == [("first", 4), ("second", 6)]
    assert figures["calls"] == 10
    assert [row["transcript"] for row in figures["rows"]] == ["first"] * 4 + ["second"] * 6
    assert run(path, max_tokens=20_000, peers=False, only="2")["calls"] == 6
    with pytest.raises(ConfigError, match=r"1 to 2, or one of: first, second"):
        run(path, max_tokens=20_000, only="third")


def test_a_tool_result_keeps_its_recorded_length(file):
    """A result is not cut when it is stored: the benchmark measures how the window deals with long results."""
    rows = [
        {"role": "user", "content": "Look."},
        *look_up_order(0, result=WORDS * 2_000),
        {"role": "assistant", "content": "Done."},
    ]
    figures = run(file(rows), max_tokens=100_000, peers=False)
    assert figures["rows"][-1]["tokens"] > 20_000


@pytest.mark.parametrize("fill", [80, 100, 120])
def test_a_budget_may_be_a_percentage_of_the_conversation(file, fill: int):
    """The whole conversation with its answer fills that many percent of the budget. Above 100 the window must shrink."""
    figures = run(file(session(1, 12)), fill=fill, peers=False)
    one = figures["transcripts"][0]
    assert one["max_tokens"] == pytest.approx((one["whole_tokens"] + one["reserve_tokens"]) * 100 / fill, abs=1)
    assert (figures["over_budget"], figures["goal_lost"], figures["split_groups"]) == (0, 0, 0)


@pytest.mark.parametrize("given", [{}, {"max_tokens": 5_000, "fill": 80}, {"fill": 0}, {"max_tokens": 999}])
def test_a_budget_is_given_in_one_of_two_ways(file, given):
    """A budget given in neither way or in both ways is refused, and so is one into which nothing fits."""
    with pytest.raises(ConfigError, match="expected"):
        run(file(session(1, 1)), **given)


def test_an_invalid_summarizer_is_refused(file):
    """A summarizer that can't be used is refused before anything starts."""
    path = file(session(1, 1))
    with pytest.raises(ConfigError, match="'extractive' or 'model'"):
        run(path, max_tokens=20_000, summarizer="magic")
    with pytest.raises(ConfigError, match="needs summarizer='model'"):
        run(path, max_tokens=20_000, summary_model="anthropic:claude-haiku-4-5-20251001")
    assert "stand-in" in run(path, max_tokens=20_000, summarizer="model", peers=False)["summarizer"]


def test_a_named_summary_model_is_called_through_its_provider(file):
    """The session stays within its budget, even if the model's summary is useless."""

    class Garbage:
        """A model whose answers make no sense."""

        name = "elsewhere"

        def complete(self, request: ModelRequest) -> ModelReply:
            """See `ports.Model`."""
            return ModelReply(parts=(Text(text="qrk " * 5_000),), stop=Stop.END, usage=Usage(), model=request.model)

        def count(self, request: ModelRequest) -> int | None:
            """Return None: this model has no counter."""
            return None

    path = file(session(1, 30))
    figures = run(
        path, max_tokens=4_000, summarizer="model", summary_model="elsewhere:m-1", provider=Garbage(), peers=False
    )
    assert figures["summarizer"] == "model"
    assert (figures["calls"], figures["over_budget"], figures["split_groups"], figures["goal_lost"]) == (32, 0, 0, 0)


def test_recorded_sessions_are_played_whole(data_dir):
    """Real sessions with `""` as arguments, at a tenth of their size: every turn is played, and no group is split."""
    path = data_dir / "toolathlon_sessions.jsonl.gz"
    figures = run(path, max_tokens=16_000, only="claude-4.5-sonnet_academic-warning", peers=False)
    assert (figures["calls"], figures["unplayed_turns"], figures["endings"]) == (53, 0, [])
    assert (figures["split_groups"], figures["goal_lost"], figures["system_lost"]) == (0, 0, 0)
