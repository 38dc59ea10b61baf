"""The texts of `midwatch gate`: a row and a card for every state, and limits as they are typed and shown."""

from __future__ import annotations

import tomllib

import click
import pytest

from midwatch.orchestration.admission.configuration import defaults
from midwatch.schemas.limits import DownstreamStatus, Limits
from midwatch.workers.cli.assignments import field_names, list_differences, parse_changes
from midwatch.workers.cli.commands.gate import seconds, set_limits
from midwatch.workers.cli.commands.gate_status import COLUMNS, as_document, card, row, state
from midwatch.workers.cli.tables import lay_out

NOW_MS = 1_795_000_000_000
WELL = DownstreamStatus(
    name="anthropic:claude-sonnet-4-6",
    version=NOW_MS - 60_000,
    limits={"requests": 1_000.0, "input_tokens": 450_000.0},
    levels={"requests": 16.0, "input_tokens": 4_500.0},
    depths={"requests": 16.7, "input_tokens": 7_500.0},
    guessed=False,
    rate_factor=1.0,
    braked=False,
    breaker="closed",
    open_ms=0,
    paused_ms=0,
    paused_until_ms=0,
    blocked_ms=0,
    blocked_reason="",
    waiting={"high": 1, "high_first": 0, "rest": 1_204, "retry": 9, "rest_first": 85, "replay": 0},
    woken=3,
    live=12,
    probes=0,
    retries_left=20.0,
    sick=False,
    expected_output=812,
    latency_ms=2_310,
    admitted=12_345,
    retried=67,
    waited=890,
    denied=0,
    ok=12_000,
    failed=60,
    throttled=7,
    lost=1,
    window_ok=88,
    window_failed=12,
)
STATES = {
    "ok": WELL,
    "slowed": WELL.model_copy(update={"rate_factor": 0.7}),
    "half_open": WELL.model_copy(update={"breaker": "half_open", "probes": 2, "sick": True}),
    "open": WELL.model_copy(update={"breaker": "open", "open_ms": 1_240.0}),
    "paused": WELL.model_copy(update={"breaker": "open", "paused_ms": 9e4, "paused_until_ms": NOW_MS + 90_000}),
    "blocked": WELL.model_copy(
        update={"paused_ms": 9e4, "blocked_ms": 3.5e6, "blocked_reason": "openai: insufficient_quota: " + "x" * 170}
    ),
}
"""The word in the table -> a status in that state."""


@pytest.mark.parametrize("word", STATES)
def test_the_state_is_the_strongest_reason_that_holds_calls(word):
    """The order is: block, pause, breaker, lowered rate."""
    assert state(STATES[word]) == word
    assert as_document(STATES[word])["state"] == word


def test_without_a_limit_no_rate_is_shown():
    """Without a limit there is no share to show."""
    free = WELL.model_copy(update={"limits": {}, "levels": {}, "depths": {}, "rate_factor": 0.2})
    assert row(free, NOW_MS)[1:4] == ("ok", "", "")
    assert row(free, NOW_MS)[-1] == "no limit is set, and its provider has named none"
    assert "rate" not in [name for name, value in card(free, Limits(), NOW_MS) if value]


@pytest.mark.parametrize("width", [100, 160])
def test_the_table_fits_100_columns(width):
    """The table has every state, a long name and a long reason. Only the reason is cut."""
    rows = [row(each, NOW_MS) for each in STATES.values()]
    lines = [line.plain for line in lay_out(COLUMNS, rows, width)]
    assert max(map(len, lines)) <= width
    for each in rows:
        (line,) = [line for line in lines if line.split()[:2] == [each[0], each[1]]]
        assert all(cell in line for cell in each[:-1])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("blocked", "for 58m 20s more: openai: insufficient_quota"),
        ("paused", "paused until 11:08:10Z, 90.0 s more; breaker open, probes in 0 ms"),
        ("open", "breaker open, probes in 1.24 s"),
        ("braked", "12 of its last 100 calls failed: its retry budget applies; fewer calls are admitted for a while"),
        (
            "half_open",
            "breaker half open, 2 probes under way; 12 of its last 100 calls failed: its retry budget applies",
        ),
    ],
)
def test_the_reason_says_until_when(word, reason):
    """The reason uses the words of the glossary and the server's clock."""
    states = {**STATES, "braked": WELL.model_copy(update={"braked": True, "sick": True, "limits": {}})}
    assert row(states[word], NOW_MS)[-1].startswith(reason)


def test_a_braked_downstream_is_slowed_without_a_limit():
    """The brake starts from the previous rate."""
    assert state(WELL.model_copy(update={"braked": True, "limits": {}, "rate_factor": 0.49})) == "slowed"


def test_a_debt_is_shown_as_an_amount():
    """A negative percentage would be meaningless."""
    owing = WELL.model_copy(update={"levels": {"requests": 16.0, "input_tokens": -12_300.0}})
    assert row(owing, NOW_MS)[3] == "input owes 12.3k"


@pytest.mark.parametrize(
    ("word", "command"), [("blocked", "unblock"), ("paused", "resume"), ("open", "close"), ("half_open", "close")]
)
def test_the_card_ends_with_the_command_that_undoes_it(word, command):
    """The name is quoted if a shell would expand it."""
    there = STATES[word].model_copy(update={"name": "anthropic:claude-*"})
    assert card(there, Limits(), NOW_MS)[-1] == ("next", f"midwatch gate {command} 'anthropic:claude-*'")


def test_the_limits_of_a_card_can_be_copied_into_the_file():
    """The shown limits are TOML, and parse to the same limits."""
    limits = Limits(rpm=1_000, itpm=2.5e6, reserve_output="max_tokens", count_cached=False, tenant_weights={"a.b": 3})
    shown = dict(card(WELL, limits, NOW_MS))["limits"]
    assert Limits.model_validate(tomllib.loads(shown)) == limits


def typed(*assignments: str, before: Limits | None = None, name: str = "jira") -> Limits:
    """Return the limits after `gate set`."""
    before = before or defaults(name)
    return Limits.model_validate({**before.model_dump(), **parse_changes(assignments, before, defaults(name))})


@pytest.mark.parametrize(
    ("text", "value"),
    [("50", 50), ("0.5", 0.5), ("40k", 40_000), ("1.5K", 1_500), ("2M", 2_000_000), ("1_000", 1_000), ("none", None)],
)
def test_a_rate_is_a_number_with_a_suffix(text, value):
    """`m` is not a suffix, because it could mean a minute or a million."""
    assert typed(f"rpm={text}", before=Limits(rpm=7)).requests_per_minute == value
    with pytest.raises(click.BadParameter, match="should be a valid number"):
        typed("rpm=5m")


def test_weights_are_set_one_by_one():
    """The other weights stay. Several assignments in one command add up."""
    limits = typed("tenant_weights.acme=3", "tenant_weights.b.c=2", "priority_weights.low=0.5")
    assert limits.tenant_weights == {"acme": 3, "b.c": 2}
    assert list(limits.priority_weights.items()) == [("high", 4), ("normal", 2), ("low", 0.5)]
    assert typed("tenant_weights=none", before=limits).tenant_weights == {}
    assert typed("tenant_weights.acme=none", before=limits).tenant_weights == {"b.c": 2}


def test_none_sets_the_default_of_the_provider():
    """It does not set the default of another provider."""
    openai = Limits(reserve_output="none", count_cached=False, burst_s=9)
    limits = typed("count_cached=none", "burst_s=none", before=openai, name="openai:gpt-5")
    assert (limits.count_cached, limits.burst_s, limits.reserve_output) == (True, 0.15, "none")


def test_differences_list_only_changed_fields():
    """There is one line for each field, with the old value and the new value."""
    before = Limits(rpm=60, count_cached=True)
    after = Limits(rpm=1_500.5, count_cached=False, tenant_weights={"acme": 3})
    assert list_differences(before, after) == [
        "requests_per_minute 60 -> 1,500.5",
        "count_cached true -> false",
        "tenant_weights none -> acme 3",
    ]
    assert list_differences(after, after) == []


def test_the_help_names_every_key():
    """A user can find every key in the help text."""
    shown = (set_limits.epilog or "").replace(".NAME", "")
    assert {key for key in field_names() if key not in shown} == set()


@pytest.mark.parametrize(
    ("text", "length_s"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7_200), (" 1d ", 86_400)]
)
def test_a_time_may_have_a_unit(text, length_s):
    """A plain number means seconds."""
    context = click.Context(set_limits)
    assert seconds(context, context.command.params[0], text) == length_s
