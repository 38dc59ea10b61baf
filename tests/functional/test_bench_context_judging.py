"""The judges of `bench context` find what is wrong with a window, even mistakes that the engine never makes."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.step import StepRef
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.bench.context import counting
from midwatch.workers.bench.context.needed import Tally, identifiers, tally, text_of
from midwatch.workers.bench.context.peers import PEERS, Peer, measure_peer
from midwatch.workers.bench.context.recorded_jobs import RecordedJob, RecordedTurn
from midwatch.workers.bench.context.recorded_model import RecordedModel
from midwatch.workers.bench.context.transcripts import read_transcript
from midwatch.workers.bench.context.windows import Budget, split_groups
from midwatch.workers.providers.chat_completions.request import write_chat_request


def call(arguments: str, name: str = "find", call_id: str = "c") -> ToolCall:
    return ToolCall(id=call_id, name=name, raw_arguments=arguments)


def asks(group: int, *calls: ToolCall) -> AssistantMessage:
    return AssistantMessage(group=group, parts=calls, provider="bench", model="m")


def answers(group: int, ordinal: int, content: str = "found") -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="c", tool="find", content=content)


ASKED = UserMessage(group=1, text="Where is A-17?")


@pytest.mark.parametrize(
    ("messages", "split"),
    [
        ((ASKED, asks(2, call("{}"), call("{}")), answers(2, 0), answers(2, 1)), 0),
        ((ASKED, asks(2, call("{}"), call("{}")), answers(2, 1)), 1),
        ((ASKED, answers(2, 0)), 1),
        ((ASKED, asks(2, call("{}")), answers(2, 0), answers(2, 0)), 1),
        ((asks(2, call("{}")), ASKED, answers(2, 0)), 1),
        ((ASKED, asks(2, call("{}")), asks(3, call("{}"))), 2),
    ],
)
def test_a_split_group_is_found(messages: tuple[Message, ...], split: int):
    """A call without its result, a result without its call, one result too many, or the two apart from each other."""
    assert split_groups(messages) == split


def test_a_window_is_judged_by_the_request_that_was_sent():
    """Over budget, prompt changed, goal lost, group split: each is found. Usage is reported as the provider counted it."""
    counter = counting.token_counter()
    model = RecordedModel(counter, Budget(1_000, 100), "Look things up.", compactions=lambda: 3)
    model.begin(RecordedJob("Where is A-17?", [RecordedTurn((Text(text="Here."),))]))
    model.at(StepRef(job_id="job-1", session_id="s", step="1"))
    good = ModelRequest(model="recorded", system="Look things up.", messages=(ASKED,))
    bad = ModelRequest(
        model="recorded",
        system="Look up.",
        messages=(UserMessage(group=1, text="Where is"), asks(2, call("{}")), NoteMessage(group=3, text="x y " * 900)),
    )
    replies = [model.complete(good), model.complete(bad)]
    fine, row = model.rows
    assert (fine.call, fine.over_budget, fine.split_groups, fine.goal_intact, fine.system_intact) == (
        1,
        False,
        0,
        True,
        True,
    )
    assert (row.call, row.over_budget, row.split_groups, row.goal_intact, row.system_intact) == (
        2,
        True,
        1,
        False,
        False,
    )
    assert [one.tokens for one in model.rows] == [reply.usage.input_tokens for reply in replies]
    assert fine.fill == round((fine.tokens + 100) / 10, 1)
    assert row.compactions == 3


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ('{"user_id": "sara_doe", "ids": ["#W2378156"], "on": "2024-05-01"}', {"sara_doe", "#W2378156", "2024-05-01"}),
        ('{"path": "/reports/out.csv", "sheet": "Sheet1", "n": 46194, "few": 12}', {"/reports/out.csv", "Sheet1", "46194"}),
        ('{"text": "Ask mia@example.com about https://x.org/a?b=1, see /tmp/a/b.txt (INV-0042)."}',
         {"mia@example.com", "https://x.org/a?b=1", "/tmp/a/b.txt", "INV-0042"}),
        ('{"query": "parcel", "status": "open", "exact": true, "and": "his or her order"}', set()),
        ("", set()),
        ('{"order": "A-1742', {"A-1742"}),
    ],
)  # fmt: skip
def test_identifiers_are_words_that_can_not_be_guessed(arguments: str, names: set[str]):
    """Ids, names with punctuation, dates, numbers, addresses and paths are identifiers. Words are not."""
    assert identifiers(call(arguments)) == names


def test_needed_and_kept_follow_from_the_compacted_part_and_the_window():
    """An id counts as needed if the conversation has it, but the window no longer does. It is kept if the memory has it."""
    history = ["User u_1001 and u_1002", "order #W111222", "order #W333444 and 90210"]
    asked = [call('{"a": "u_1001", "b": "#W111222", "c": "#W333444", "d": "#W999999", "e": 90210}')]
    assert tally(asked, history, history, "") == Tally(named=4)
    window = ["User u_1001 and u_1002", "Memory: order #W333444, postcode 190210"]
    assert tally(asked, history, window, "") == Tally(named=4, needed=3, kept=1)
    assert tally(asked, history, window, "known: #W111222") == Tally(named=4, needed=2, kept=1)
    assert tally(asked, [], window, "") == Tally()


def test_identifiers_in_escaped_json_are_found():
    """An id in the arguments of an earlier call counts as sent."""
    earlier = text_of(asks(2, call('{"path": "\\u00e4\\/b-1.txt"}')))
    assert tally([call('{"path": "ä/b-1.txt"}')], [earlier], [], "") == Tally(named=1, needed=1)


def test_the_estimate_counts_the_whole_request():
    """System prompt, tools, ids, arguments and JSON syntax count. The result is within a tenth of that for the JSON body."""
    counter = counting.token_counter()
    schema = {"type": "object", "properties": {"order": {"type": "string"}}}
    tool = ToolSpec(name="find", description="Find an order by its id.", input_schema=schema)
    turns: list[Message] = [UserMessage(group=1, text="Where are my orders? " * 20)]
    for group in range(2, 12):
        asked = call(f'{{"order": "A-{group}"}}', call_id=f"call_{group}")
        turns += [asks(group, asked), answers(group, 0, "on its way to you " * 30)]
    request = ModelRequest(model="m", system="You look things up. " * 10, messages=tuple(turns), tools=(tool,))
    body = write_chat_request(request, "bench", gemini=False)
    whole = counter.text(canonical_json({key: body[key] for key in ("messages", "tools")}))
    assert 0.85 * whole < counter.request(request) <= whole


def test_the_tokenizer_is_exact_or_the_name_says_why_not():
    """With the extra it is o200k for any text. Without it, it is bytes divided by four, and its name says why."""
    if importlib.util.find_spec("bpe_openai"):
        counter = counting.token_counter()
        assert (counter.name, counter.exact) == ("o200k_base", True)
        assert counter.text("hello world") == 2
        assert counter.text("<|endoftext|> \ud800 ") > 2
        assert counter.text("word " * 30_000) == pytest.approx(30_000, rel=0.001)
    plain = counting.by_bytes()
    assert not plain.exact
    assert "midwatch[bench]" in plain.name
    assert plain.text("äbcde") == 2


def conversation(turns: int) -> list[dict[str, Any]]:
    """Look up one order after the other, and the first one again at the end."""
    rows: list[dict[str, Any]] = [{"role": "user", "content": "Look up the orders of the list."}]
    for number in [*range(turns), 0]:
        function = {"name": "find", "arguments": f'{{"order": "#W{1000 + number}"}}'}
        rows.append({"role": "assistant", "tool_calls": [{"id": f"c{number}", "function": function}]})
        rows.append(
            {"role": "tool", "tool_call_id": f"c{number}", "content": f"next is #W{1001 + number}. " + "word " * 200}
        )
    return [*rows, {"role": "assistant", "content": "Done."}]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_trim_within_the_budget_and_lose_what_they_trimmed(peer: Peer):
    """No call is over budget and no group is split. The first order's number is needed at the end, and was lost."""
    if peer.library:
        pytest.importorskip(peer.library)
    row = measure_peer(
        peer, [(read_transcript(conversation(20)), Budget(2_500, 500))], counting.token_counter(), lambda _: None
    )
    assert (row["calls"], row["over_budget"], row["split_groups"]) == (22, 0, 0)
    assert row["goal_lost"] > 0
    assert (row["facts_needed"], row["facts_kept"]) == (1, 0)


def test_a_peer_that_is_not_installed_is_left_out_with_a_message():
    """The other peers are still measured."""
    told: list[str] = []
    row = measure_peer(Peer("x", PEERS[0].trim, library="no_such_library"), [], counting.by_bytes(), told.append)
    assert row == {"name": "x", "left_out": "no_such_library is not installed"}
    assert "midwatch[bench]" in told[0]
