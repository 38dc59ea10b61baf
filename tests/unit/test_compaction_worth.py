"""What a memory keeps when there is too little room: what is recent, what was computed, and not the words of a program."""

from __future__ import annotations

import json

import pytest

from midwatch import ContextBudget
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.facts import facts_of
from midwatch.orchestration.context.planning.plan import Plan
from midwatch.orchestration.context.planning.room import Room
from midwatch.orchestration.context.strategies import NOTE_MARGIN, fit_note
from midwatch.orchestration.context.window import note_weight
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, ToolMessage, UserMessage
from midwatch.workers.bench.context.per_session import is_held_out, summarize_sessions
from tests.unit.claims import said, tool_call
from tests.unit.test_strategies import talk, work_of


def result(group: int, content: str) -> ToolMessage:
    """A result."""
    return ToolMessage(group=group, ordinal=0, call_id="c", tool="look_up", content=content)


def kept(messages: list[Message], room_bytes: int) -> str:
    """The facts of a memory of this size, as text."""
    memory = absorb_facts(Memory(), messages, room_bytes)
    return "\n".join(item for facts in memory.facts for item in facts.items)


@pytest.mark.parametrize("text", ["net -40.89 today", '{"net": -40.89}', "net=-40.89", "a, -40.89, b", "net: -40.89"])
def test_a_negative_amount_keeps_its_minus(text):
    """Without it, the memory would state the opposite."""
    values = {fact.value for fact in facts_of([result(2, text)])}
    assert "-40.89" in values
    assert "40.89" not in values


@pytest.mark.parametrize("text", ["- 5 items", "range 3-17", "order -- W-77", "from 2026-01-02-"])
def test_a_dash_that_is_no_minus_is_left_out(text):
    """A list mark or the dash of a range does not make a number negative."""
    assert not any(fact.value.startswith("-") for fact in facts_of([result(2, text)]))


def test_computed_amounts_displace_the_words_of_a_program():
    """The names of variables in an argument are of no use later. The amounts that the program printed are."""
    firsts, seconds = ("net", "mean", "wide", "last", "raw", "sum"), ("rows", "frame", "spread", "column")
    code = "\n".join(f"{one}_{two} = old_{one}_{two} + rolling_{two}_{one}" for one in firsts for two in seconds)
    amounts = [f"{n * 3 + 10}.{n:02d}" for n in range(40)]
    log: list[Message] = [said(2, tool_call("run", json.dumps({"code": code}))), result(2, "\n".join(amounts))]
    found = kept(log, 1_000)
    assert sum(amount in found for amount in amounts) >= 35


def test_amounts_of_the_newest_groups_displace_older_ones():
    """Facts are mostly needed again within six groups."""
    log: list[Message] = [result(group, f"total {group}7.25 and {group}8.50") for group in range(10, 60)]
    found = kept(log, 700)
    assert "597.25" in found
    assert "107.25" not in found


def test_a_column_of_days_does_not_displace_an_amount():
    """All dates look alike, so the use of one does not make the others worth more."""
    days = [f"2025-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 28)]
    log: list[Message] = [
        said(2, tool_call("run", '{"day": "2025-01-31"}')),
        result(2, json.dumps([{"Date": day} for day in days])),
        result(2, "net profit 1284.50"),
    ]
    assert "1284.50" in kept(log, 1_200)


# --- room


def planned(log: list[Message], full: int) -> Plan:
    """The plan of a compaction of this conversation, in a budget of this weight."""
    budget = ContextBudget(max_tokens=full, reserve_output=1)
    return Plan(work_of(log), Room(full, int(full * budget.shrink_to)), budget, 0.5)


def test_the_memory_gets_the_room_that_the_messages_leave():
    """Groups stay whole, so messages seldom fill their half."""
    plan = planned(talk(12), 4_000)
    plan.cut_large()
    leaving = set(plan.find_oldest())
    staying = sum(w for at, w in enumerate(plan.weights) if at not in leaving and at != plan.prompt_at)
    assert plan.find_memory_room(leaving) == max(plan.memory_room, plan.rest - staying)
    assert plan.find_memory_room(leaving) > plan.memory_room


def test_less_is_removed_if_the_next_turns_fill_the_window_anyway():
    """With turns of a third of the window, there is a compaction at each turn, however much is removed."""
    small, large = planned(talk(12, chars=200), 4_000), planned(talk(12, chars=3_000), 4_000)
    assert large.rest > small.rest
    assert large.rest < 0.8 * 4_000


def test_a_note_is_shortened_to_its_weight():
    """Numbers have more tokens for each byte than names. The room is in tokens."""
    text = " ".join(f"{n}.{n * 7919 % 10_000:04d}" for n in range(100, 900))
    memory = absorb_facts(Memory(), [result(2, text)], 6_000)
    fitted = fit_note(memory, 1_500, live=(), pinned="")
    assert note_weight(fitted) * NOTE_MARGIN <= 1_500 < note_weight(memory) * NOTE_MARGIN
    assert note_weight(fitted) * NOTE_MARGIN > 1_200


@pytest.mark.parametrize(("given", "shrink_to"), [({}, 0.65), ({"act_at": 0.6}, 0.4875), ({"shrink_to": 0.5}, 0.5)])
def test_the_default_of_shrink_to_stays_below_act_at(given, shrink_to):
    """A budget that sets only a low `act_at` is still valid."""
    assert ContextBudget(max_tokens=9_000, **given).shrink_to == pytest.approx(shrink_to)


# --- the benchmark


def test_sessions_count_alike_and_the_held_out_ones_apart(tmp_path):
    """A session with a thousand facts counts as much as one with two."""
    path = tmp_path / "toolathlon_sessions.jsonl"
    rows = [
        {"name": f"s{n}", "facts_needed": needed, "kept_percent": percent, "compactions": 1}
        for n, (needed, percent) in enumerate([(1_000, 100.0), (2, 50.0), (0, None), (10, 90.0)])
    ]
    whole, held, others = summarize_sessions(path, rows)
    assert (whole["sessions_in_need"], whole["kept_percent"], whole["worst_percent"]) == (3, 80.0, 50.0)
    assert held["sessions"] + others["sessions"] == 4
    assert held["sessions"] == sum(is_held_out(path, row["name"]) for row in rows)


def test_a_third_of_the_sessions_is_held_out(tmp_path):
    """The digest of a session's id decides, so the same sessions are held out in every run."""
    held = sum(is_held_out(tmp_path / "x_y.jsonl", f"session-{n}") for n in range(900))
    assert 250 < held < 350
    assert is_held_out(tmp_path / "toolathlon_sessions.jsonl.gz", "claude-4.5-sonnet_k8s-safety-audit")
    assert not is_held_out(tmp_path / "toolathlon_sessions.jsonl.gz", "deepseek-v3.2-exp_oil-price")


def test_the_prompt_is_no_part_of_the_growth():
    """Only turns are."""
    log: list[Message] = [UserMessage(group=1, text="Look. " * 3_000), *talk(3, chars=100)[1:]]
    assert planned(log, 20_000).find_growth() < 300
