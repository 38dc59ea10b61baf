"""Token counts that a provider reports and that can't be true: they count as not reported, everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.tokens import reported
from midwatch.orchestration.tokens.estimate import PRIOR, Estimator
from midwatch.orchestration.tokens.reported import drop_impossible_usage, find_impossible
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Part, Text, ToolCall
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers.providers.anthropic.reply import parse_message
from midwatch.workers.providers.chat_completions.reply import parse_completion
from midwatch.workers.providers.responses.reply import parse_response
from midwatch.workers.providers.vendor_format import ParsedReply
from tests.unit.longtalk import Talk, Talker, budget, clerk, tokens_of

LONG = (Text(text="all is well with the order, " * 400),)
"""A reply of 11 KB."""


def find(
    usage: Usage, *, parts: tuple[Part, ...] = (), weight: int = 20_000, anchor: Anchor | None = None
) -> str | None:
    """Judge a usage of a call of the model `m`, which may write 1,000 tokens."""
    return find_impossible(usage, model="m", weight=weight, parts=parts, max_output_tokens=1_000, anchor=anchor)


@pytest.mark.parametrize("tokens", [0, 1, 120, 4_999, 90_001, 10**7, 10**12])
def test_an_input_count_outside_the_bounds_of_any_tokenizer_is_impossible(tokens: int):
    """A request of weight 20,000 has 5,000 to 80,000 tokens, and some more that a server adds."""
    assert find(Usage(input_tokens=tokens, output_tokens=10)) == "input_tokens"


@pytest.mark.parametrize("tokens", [5_000, 20_000, 31_000, 80_000, 90_000])
def test_an_input_count_within_the_bounds_is_possible(tokens: int):
    """Tokenizers differ, and a server adds its own prompt."""
    assert find(Usage(input_tokens=tokens, output_tokens=10)) is None


def test_a_count_far_below_that_of_the_last_call_is_impossible():
    """The conversation has only grown. A server that counts what was not in its cache shows less than before."""
    anchor = Anchor(18_000, 24_000, "m")
    assert find(Usage(input_tokens=19_000, output_tokens=10), anchor=anchor) == "input_tokens"
    assert find(Usage(input_tokens=26_000, output_tokens=10), anchor=anchor) is None
    for other in (Anchor(18_000, 24_000, "another"), Anchor(30_000, 40_000, "m"), Anchor(0, 0, "m")):
        assert find(Usage(input_tokens=11_000, output_tokens=10), anchor=other) is None


@pytest.mark.parametrize(
    ("parts", "tokens", "wrong"),
    [
        (LONG, 0, "output_tokens"),
        (LONG, 3, "output_tokens"),
        (LONG, 2_500, None),
        ((ToolCall(id="c", name="write", raw_arguments=LONG[0].text),), 0, "output_tokens"),
        ((Text(text="Done."),), 0, None),
        ((Text(text="Done."),), 11_900, None),
        ((Text(text="Done."),), 12_001, "output_tokens"),
        ((), 10**12, "output_tokens"),
    ],
)
def test_an_output_count_fits_the_reply(parts: tuple[Part, ...], tokens: int, wrong: str | None):
    """A text of 10 KB has more than a few tokens. Thoughts are not shown, so that only the call's limit is an upper bound."""
    assert find(Usage(input_tokens=20_000, output_tokens=tokens), parts=parts) == wrong


def test_a_light_request_is_not_judged_from_below():
    """The marks of a chat format outweigh a few words."""
    assert find(Usage(input_tokens=1, output_tokens=1), weight=190) is None


def anthropic(**usage: object) -> JsonObject:
    """A reply of Anthropic's Messages API."""
    content = [{"type": "text", "text": LONG[0].text}]
    return {"content": content, "stop_reason": "end_turn", "model": "m", "usage": {"output_tokens": 2_500, **usage}}


def responses(**usage: object) -> JsonObject:
    """A reply of OpenAI's Responses API."""
    content = [{"type": "output_text", "text": LONG[0].text}]
    output = [{"type": "message", "role": "assistant", "content": content}]
    return {"output": output, "status": "completed", "model": "m", "usage": {"output_tokens": 2_500, **usage}}


def chat(**usage: object) -> JsonObject:
    """A reply in the Chat Completions format."""
    message = {"role": "assistant", "content": LONG[0].text}
    choices = [{"finish_reason": "stop", "message": message}]
    return {"choices": choices, "model": "m", "usage": {"completion_tokens": 2_500, **usage}}


FORMATS: dict[str, tuple[Callable[..., JsonObject], Callable[..., ParsedReply], str]] = {
    "anthropic": (anthropic, parse_message, "anthropic"),
    "responses": (responses, parse_response, "openai"),
    "chat": (chat, parse_completion, "openai"),
}


def check(vendor: str, usage: dict[str, object]) -> Usage:
    """Parse a reply with this usage, and judge its counts for a request of weight 20,000."""
    write, parse, provider = FORMATS[vendor]
    found = parse(write(**usage), ModelRequest(model="m", system="", messages=()), provider)
    reply = ModelReply(parts=found.parts, stop=found.stop, usage=found.usage, model="m")
    return drop_impossible_usage(reply, model="m", weight=20_000, max_output_tokens=4_000, anchor=None).usage


@pytest.mark.parametrize(
    ("vendor", "usage"),
    [
        ("anthropic", {"input_tokens": 20_000}),
        ("anthropic", {"input_tokens": 20_000, "cache_read_input_tokens": None, "cache_creation_input_tokens": None}),
        ("anthropic", {"input_tokens": 20_000, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}),
        ("anthropic", {"input_tokens": 120, "cache_read_input_tokens": 19_000, "cache_creation_input_tokens": 880}),
        ("anthropic", {"input_tokens": 0, "cache_read_input_tokens": 20_000}),
        ("responses", {"input_tokens": 20_000}),
        ("responses", {"input_tokens": 20_000, "input_tokens_details": None, "output_tokens_details": None}),
        ("responses", {"input_tokens": 20_000, "input_tokens_details": {"cached_tokens": None}}),
        ("responses", {"input_tokens": 20_000, "input_tokens_details": {"cached_tokens": 0}}),
        ("responses", {"input_tokens": 20_000, "input_tokens_details": {"cached_tokens": 19_880}}),
        ("chat", {"prompt_tokens": 20_000, "prompt_tokens_details": {"cached_tokens": 19_880}}),
        ("chat", {"prompt_tokens": 20_000, "prompt_cache_hit_tokens": 19_880}),
        ("chat", {"prompt_tokens": 20_000, "prompt_tokens_details": None}),
    ],
)
def test_possible_usage_of_every_vendor_is_believed(vendor: str, usage: dict[str, object]):
    """Cached tokens may be left out, zero or null. The input includes them, although Anthropic counts them apart."""
    found = check(vendor, usage)
    assert (found.reported, found.impossible) == (True, None)
    assert (found.input_tokens, found.output_tokens) == (20_000, 2_500)


@pytest.mark.parametrize(
    ("vendor", "usage", "wrong"),
    [
        # The cached part is missing: the count is that of the last message.
        ("anthropic", {"input_tokens": 120}, "input_tokens"),
        ("anthropic", {"input_tokens": 120, "cache_read_input_tokens": None}, "input_tokens"),
        ("anthropic", {"input_tokens": 120, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}, "input_tokens"),
        ("responses", {"input_tokens": 120, "input_tokens_details": {"cached_tokens": 0}}, "input_tokens"),
        ("responses", {"input_tokens": 120, "input_tokens_details": {"cached_tokens": 19_880}}, "input_tokens"),
        ("chat", {"prompt_tokens": 120, "prompt_tokens_details": {"cached_tokens": 19_880}}, "input_tokens"),
        ("chat", {"prompt_tokens": 120, "prompt_cache_hit_tokens": 19_880}, "input_tokens"),
        # Counts that no call has.
        ("anthropic", {"input_tokens": 10**12}, "input_tokens"),
        ("anthropic", {"input_tokens": 20_000, "cache_read_input_tokens": 10**12}, "cached_tokens"),
        ("anthropic", {"input_tokens": 20_000, "cache_creation_input_tokens": 10**12}, "cache_write_tokens"),
        ("anthropic", {"input_tokens": 20_000, "output_tokens": 10**12}, "output_tokens"),
        ("anthropic", {"input_tokens": 20_000, "output_tokens_details": {"thinking_tokens": 2_501}}, "reasoning_tokens"),
        ("responses", {"input_tokens": 10**12}, "input_tokens"),
        ("responses", {"input_tokens": 20_000, "input_tokens_details": {"cached_tokens": 10**12}}, "cached_tokens"),
        ("responses", {"input_tokens": 20_000, "output_tokens": 10**12}, "output_tokens"),
        ("responses", {"input_tokens": 20_000, "output_tokens_details": {"reasoning_tokens": 10**12}}, "reasoning_tokens"),
        ("chat", {"prompt_tokens": 10**12}, "input_tokens"),
        ("chat", {"prompt_tokens": 20_000, "completion_tokens": 10**12}, "output_tokens"),
        # A text of 11 KB.
        ("anthropic", {"input_tokens": 20_000, "output_tokens": 0}, "output_tokens"),
        ("responses", {"input_tokens": 20_000, "output_tokens": 0}, "output_tokens"),
        ("chat", {"prompt_tokens": 20_000, "completion_tokens": 0}, "output_tokens"),
        # No number of tokens.
        ("anthropic", {"input_tokens": -1}, "input_tokens"),
        ("anthropic", {"input_tokens": "20000"}, "input_tokens"),
        ("responses", {"input_tokens": 20_000.5}, "input_tokens"),
        ("responses", {"input_tokens": float("nan")}, "input_tokens"),
        ("chat", {"prompt_tokens": True}, "input_tokens"),
    ],
)  # fmt: skip
def test_impossible_usage_of_every_vendor_is_named(vendor: str, usage: dict[str, object], wrong: str):
    """Nothing of it is believed, and the wrong count is named."""
    assert check(vendor, usage) == Usage(reported=False, impossible=wrong)


@pytest.mark.parametrize("vendor", FORMATS)
@pytest.mark.parametrize(
    "missing", [{"input_tokens": None, "prompt_tokens": None}, {"input_tokens": 0, "prompt_tokens": 0}]
)
def test_missing_usage_is_not_called_impossible(vendor: str, missing: dict[str, object]):
    """A server that does not count is no server that counts wrongly."""
    assert check(vendor, missing) == Usage(reported=False)


@pytest.mark.parametrize("anchor", [Anchor(20_000, 120, "m"), Anchor(20_000, 10**9, "m"), Anchor(20_000, 0, "m")])
def test_an_impossible_anchor_that_was_stored_is_not_used(anchor: Anchor):
    """An earlier release may have stored it with the session."""
    estimator = Estimator()
    assert estimator.estimate("m", 21_000, anchor) == 21_000 * PRIOR
    assert estimator.at_most("m", 21_000, anchor) == 21_000 * PRIOR
    assert estimator.known_rate("m", anchor) is None


class WrongTalker(Talker):
    """A model with a wrong usage from its second call on."""

    def __init__(self, turns: int, wrong: Callable[[int, int], Usage]) -> None:
        super().__init__(turns)
        self._wrong = wrong

    def reply(self, request: ModelRequest, parts: list[Part], stop: Stop | None = None) -> ModelReply:
        """Return the reply. `wrong` gets the true input of this call and of the last one."""
        found = super().reply(request, parts, stop)
        if len(self.requests) == 1:
            return found
        usage = self._wrong(tokens_of(request), tokens_of(self.requests[-2]))
        return found.model_copy(update={"usage": usage})


WRONG: dict[str, Callable[[int, int], Usage]] = {
    "the cached part is left out": lambda now, before: Usage(input_tokens=max(1, now - before), output_tokens=20),
    "one": lambda now, before: Usage(input_tokens=1, output_tokens=20),
    "not reported": lambda now, before: Usage(reported=False),
    "10^7": lambda now, before: Usage(input_tokens=10**7, output_tokens=20),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_call_exceeds_its_budget_although_the_usage_is_wrong(name: str):
    """The estimate does not depend on what can't be true. The model's own count stays below the budget in each call."""
    talk = Talk(clerk(context_budget=budget(20_000)), WrongTalker(45, WRONG[name]))
    assert talk.run().output == "All done."
    assert talk.most_tokens() <= 20_000
    assert talk.compactions >= 1


def test_impossible_usage_is_logged_once_and_shown_in_the_trace(monkeypatch: pytest.MonkeyPatch):
    """One line for each model. The trace's usage counts as not reported, and no budget is charged with the figure."""
    monkeypatch.setattr(reported, "_said", set())
    talk = Talk(clerk(context_budget=budget(20_000)), WrongTalker(20, WRONG["10^7"]))
    with capture_logs() as logged:
        result = talk.run()
    lines = [line for line in logged if line["event"] == "usage.impossible"]
    assert [(line["count"], line["reported"], line["model"]) for line in lines] == [
        ("input_tokens", 10**7, "scripted:m-1")
    ]
    records = [record for record in talk.fleet.trace(talk.job_id) if record.usage]
    assert [record.usage.reported for record in records if record.usage] == [True] + [False] * 20
    assert [record.usage.impossible for record in records if record.usage] == [None] + ["input_tokens"] * 20
    assert result.usage.input_tokens < 10_000
