"""`midwatch gate` against a real server: its output, its effect on calls, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from midwatch import Client
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.limits import Limits
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, StepRef
from midwatch.workers.celery_app.dispatch import connect
from midwatch.workers.cli import main
from midwatch.workers.settings import settings

Run = Callable[..., tuple[int, str, str]]
SONNET = "anthropic:claude-sonnet-4-6"
ACTIONS = (("pause",), ("resume",), ("open",), ("close",), ("block", "because"), ("unblock",))


@pytest.fixture
def client(prefix) -> Client:
    """An operator's client of this test's fleet."""
    settings.cache_clear()
    made = connect()
    yield made
    made.store.client.close()
    settings.cache_clear()


@pytest.fixture
def run(client, capsys, monkeypatch, tmp_path) -> Run:
    """`run("gate", "status")` returns exit code, stdout and stderr. It runs in an empty directory, without a midwatch.toml."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # log lines of the gate before this command don't belong to its output
        code = main(list(arguments))
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


@pytest.fixture
def gate(client) -> RedisGate:
    """A worker's gate without its own limits."""
    return RedisGate(client.store.client, client.operations.keys)


def call(number: int, downstream: str = "jira", input_tokens: int = 0) -> Call:
    """Make a call as a step of job `number` makes it."""
    ref = StepRef(job_id=f"job-{number}", session_id=f"s-{number}", step="1")
    job = Job(
        job_id=ref.job_id,
        agent="desk",
        agent_version="1",
        session_id=ref.session_id,
        root_id=ref.job_id,
        status=JobStatus.RUNNING,
        max_steps=5,
        created_ms=0,
    )
    claim = Claim(ref=ref, fence=1, nonce="n", now_ms=0, job=job, attempt=0, losses=0, interrupted=False, ending="")
    return Call(claim, downstream, lasts_ms=60_000, input_tokens=input_tokens, output_tokens=100 if input_tokens else 0)


def table(out: str) -> list[dict[str, str]]:
    """Parse tab-separated values into rows by column title."""
    titles, *rows = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_an_empty_listing_succeeds(run):
    """The fleet has made no call yet. People get a sentence on stderr, programs an empty document."""
    code, out, err = run("gate", "status")
    assert (code, out) == (0, "")
    assert "no downstreams yet" in err
    assert run("gate", "status", "--json") == (0, '{\n  "downstreams": []\n}\n', "")


def test_the_listing_shows_why_calls_wait(run, client, gate):
    """Each downstream has one line: waiting calls, remaining tokens, and, if it is stopped, why and until when."""
    client.gate.set("jira", rpm=60)
    for number in range(5):
        gate.admit(call(number))
    for number, name in enumerate(("crm", "search"), 10):
        assert gate.admit(call(number, name)) is None
    spent = Failure(kind=FailureKind.QUOTA_EXHAUSTED, detail="crm: your credit\x1b[2J is used up")
    gate.settle(call(10, "crm"), Report(failure=spent))
    busy = Failure(kind=FailureKind.RATE_LIMITED, detail="429", retry_after_ms=200_000)
    searches = [call(11, "search"), *(call(number, "search") for number in range(20, 32))]
    for one in searches[1:]:
        assert gate.admit(one) is None
    gate.settle(searches[-1], Report())
    for one in searches[:6]:  # so many 429s are evidence of a limit
        gate.settle(one, Report(failure=busy))

    code, out, _ = run("gate", "status")
    rows = {row["DOWNSTREAM"]: row for row in table(out)}
    assert code == 0
    assert {name: row["STATE"] for name, row in rows.items()} == {
        "crm": "blocked",
        "jira": "slowed",
        "search": "paused",
    }
    assert (rows["jira"]["LIVE"], rows["jira"]["WAITING"], rows["jira"]["WHY"]) == ("1", "4", "")
    assert re.fullmatch(r"requests \d %", rows["jira"]["LEVEL"])
    assert re.search(r"^for (59m \d\ds|1h 00m) more: crm: your credit\\x1b\[2J is used up$", rows["crm"]["WHY"])
    assert re.search(r"^paused until \S+Z, 3m \d\ds more; its request limit is guessed", rows["search"]["WHY"])


def test_one_downstream_is_shown_in_full(run, client):
    """One downstream's page shows each bucket and the source of its limit, reservations, budget, configuration and advice."""
    gate = RedisGate(
        client.store.client,
        client.operations.keys,
        {SONNET: Limits(rpm=1_000, tenant_weights={"acme": 3})},
        version=1_764_000_000_000,
    )
    assert gate.admit(call(1, SONNET, input_tokens=3_000)) is None
    said = {"anthropic-ratelimit-input-tokens-limit": "450000", "anthropic-ratelimit-input-tokens-remaining": "449000"}
    usage = Usage(input_tokens=2_900, output_tokens=80)
    gate.settle(call(1, SONNET, input_tokens=3_000), Report(usage=usage, headers=said, latency_ms=2_310))
    run("gate", "pause", SONNET, "--for", "2m")

    code, out, _ = run("gate", "status", SONNET)
    card = dict(line.split("\t") for line in out.splitlines())
    assert code == 0
    assert (card["state"], card["live"]) == ("paused", "0 calls")
    assert card["retries left"].endswith("this budget applies only while it fails")
    assert card["requests"].startswith("1,000 a minute (set), 0.0 of 2.5 in the bucket")
    assert card["input tokens"].startswith("450,000 a minute (named by its provider)")
    assert card["came back"] == "1 ok, 0 failed, 0 throttled, 0 lost"
    assert card["limits"] == 'requests_per_minute = 1000 count_cached = false tenant_weights = { "acme" = 3 }'
    assert card["next"] == f"midwatch gate resume {SONNET}"

    code, out, _ = run("gate", "status", SONNET, "--json")
    shown = json.loads(out)
    assert shown["limits"] == {"requests": 1_000, "input_tokens": 450_000}
    assert (shown["state"], shown["live"], shown["waiters"], shown["breaker"]) == ("paused", 0, 0, "closed")
    assert shown["configured"]["tenant_weights"] == {"acme": 3}
    assert shown["limits_set_at"] == "2025-11-24T16:00:00.000Z"
    assert shown["paused_until"].endswith("Z")


def test_an_unknown_name_has_exit_code_3_and_lists_the_known_ones(run, client):
    """Every subcommand answers an unknown name this way. Looking creates no record."""
    client.gate.set("jira", rpm=60)
    for arguments in (("status",), *ACTIONS):
        code, out, err = run("gate", arguments[0], "jria", *arguments[1:])
        assert (code, out, err.count("\n")) == (3, "", 1), arguments
        assert "known: jira" in err
    assert client.gate.names() == ["jira"]


def test_a_name_that_counts_under_a_pattern_is_answered_with_the_pattern(run, client):
    """Limits of the name would have no effect, because workers use the pattern of their midwatch.toml."""
    pattern = "anthropic:claude-sonnet-*"
    gate = RedisGate(client.store.client, client.operations.keys, {pattern: Limits(rpm=50)}, version=1)
    assert gate.admit(call(1, SONNET)) is None
    for arguments in (("status", SONNET), ("pause", SONNET), ("set", SONNET, "rpm=5")):
        code, _, err = run("gate", *arguments)
        assert code == 3
        assert f"count against '{pattern}'" in err
    assert run("gate", "set", pattern, "rpm=40")[0] == 0
    assert client.gate.limits(pattern).requests_per_minute == 40


def test_limits_are_set_changed_and_taken_away(run, client):
    """Suffixes and dotted keys work. Other limits stay. Each change is printed. `none` restores the default."""
    code, out, err = run("gate", "set", "jira", "rpm=1k", "tenant_weights.acme=3", "priority_weights.low=0.5")
    assert (code, out) == (0, "")
    assert "jira is new" in err
    assert "jira: requests_per_minute none -> 1,000" in err
    code, _, err = run("gate", "set", "jira", "tokens_per_minute=2M", "tenant_weights.beta=2", "burst_s=5")
    assert "is new" not in err
    limits = client.gate.limits("jira")
    assert (limits.requests_per_minute, limits.tokens_per_minute, limits.burst_s) == (1_000, 2_000_000, 5)
    assert limits.tenant_weights == {"acme": 3, "beta": 2}
    assert limits.priority_weights == {"high": 4, "normal": 2, "low": 0.5}
    run("gate", "set", "jira", "rpm=none", "burst_s=none", "tenant_weights.acme=none", "priority_weights.low=none")
    limits = client.gate.limits("jira")
    assert (limits.requests_per_minute, limits.burst_s, limits.tenant_weights) == (None, 0.15, {"beta": 2})
    assert limits.priority_weights["low"] == 1
    assert run("gate", "set", "jira", "tpm=2M") == (0, "", "jira: nothing changed\n")


def test_a_provider_counts_its_own_way_unless_configured(run, client):
    """`none` is a value of reserve_output. A setting that is not named keeps the provider's own rule."""
    run("gate", "set", SONNET, "rpm=50")
    assert client.gate.limits(SONNET).count_cached is False
    run("gate", "set", SONNET, "count_cached=true", "reserve_output=none")
    assert (client.gate.limits(SONNET).count_cached, client.gate.limits(SONNET).reserve_output) == (True, "none")
    run("gate", "set", SONNET, "count_cached=none")
    assert client.gate.limits(SONNET).count_cached is False


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("rmp=5", "no limit 'rmp'; did you mean 'rpm'?"),
        ("colour=5", "no limit 'colour'; limits are: requests_per_minute, rpm"),
        ("rpm", "'rpm': expected KEY=VALUE"),
        ("rpm=-5", "requests_per_minute: should be greater than 0"),
        ("rpm=5m", "requests_per_minute: should be a valid number"),
        ("min_calls=2.5", "min_calls: should be a valid integer"),
        ("open_s=20", "open_max_s=10.0 is below open_s=20.0"),
        ("reserve_output=most", "reserve_output: should be 'expected', 'max_tokens' or 'none'"),
        ("priority_weights.urgent=5", "priority_weights.urgent: should be 'high', 'normal' or 'low'"),
        ("tenant_weights=5", "expected tenant_weights.NAME=NUMBER"),
        ("rpm.acme=5", "requests_per_minute is one value"),
    ],
)
def test_a_bad_limit_has_exit_code_2_and_changes_nothing(run, client, assignment, said):
    """The message names the limit, what was expected and what was given."""
    code, out, err = run("gate", "set", "jira", "headroom=0.5", assignment)
    assert (code, out) == (2, "")
    assert said in err
    assert client.gate.names() == []


def test_workers_use_a_new_limit_from_their_next_call(run, gate):
    """A worker without a limit for the downstream delays calls from then on."""
    assert [gate.admit(call(number)) for number in range(5)] == [None] * 5
    run("gate", "set", "jira", "rpm=60")
    refusals = [gate.admit(call(number)) for number in range(5, 10)]
    assert all(isinstance(each, Defer) and each.reason.startswith("jira: ") for each in refusals[1:])


def test_paused_calls_wait_and_a_longer_pause_stays(run, client, gate):
    """No call is lost or denied. A second resume does nothing."""
    client.gate.set("jira", rpm=6_000)
    code, _, err = run("gate", "pause", "jira", "--for", "2h")
    assert code == 0
    assert re.search(r"paused until \S+Z, for 2h 00m; calls wait. `midwatch gate resume jira` ends it", err)
    refusal = gate.admit(call(1))
    assert isinstance(refusal, Defer)
    assert refusal.reason.startswith("jira: paused, about 7")
    assert "paused for longer already" in run("gate", "pause", "jira", "--for", "1m")[2]
    assert "takes calls again" in run("gate", "resume", "jira")[2]
    assert run("gate", "resume", "jira") == (0, "", "jira was not paused: nothing to do\n")
    assert client.gate.show("jira").paused_ms == 0


def test_the_breaker_is_opened_and_closed_by_hand(run, client, gate):
    """While it is open, calls wait. Closing a closed breaker does not slow the downstream down."""
    client.gate.set("jira", rpm=60)
    level = client.gate.show("jira").levels["requests"]
    assert run("gate", "close", "jira") == (0, "", "jira: its breaker was closed: nothing to do\n")
    assert client.gate.show("jira").levels["requests"] == level == 1
    assert "open for 30.0 s" in run("gate", "open", "jira", "--for", "30")[2]
    refusal = gate.admit(call(1))
    assert isinstance(refusal, Defer)
    assert refusal.reason.startswith("jira: open")
    assert "its breaker is closed" in run("gate", "close", "jira")[2]
    assert client.gate.show("jira").breaker == "closed"


def test_blocked_calls_are_denied_with_the_operators_reason(run, client, gate):
    """The dead letter has the reason and the command that lifts it. A long reason in any alphabet stays readable."""
    client.gate.set("jira", rpm=6_000)
    reason = "the ticket system is being moved, Überführung läuft " + "ü" * 200
    code, _, err = run("gate", "block", "jira", reason, "--for", "1d")
    assert code == 0
    assert "`midwatch gate unblock jira` lifts it" in err
    denial = gate.admit(call(1))
    assert isinstance(denial, Failure)
    assert denial.kind is FailureKind.QUOTA_EXHAUSTED
    assert denial.detail.startswith("jira is blocked: the ticket system is being moved, Überführung läuft ü")
    assert reason.startswith(client.gate.show("jira").blocked_reason)
    assert "midwatch dlq list" in run("gate", "unblock", "jira")[2]
    assert run("gate", "unblock", "jira") == (0, "", "jira was not blocked: nothing to do\n")
    assert run("gate", "block", "jira", " ")[0] == 2


@pytest.mark.parametrize("length", ["0", "-5", "soon", "10 m", "10w", "400d", "1e9"])
def test_an_invalid_time_has_exit_code_2(run, length):
    """The message shows how a time is written."""
    code, _, err = run("gate", "pause", "jira", f"--for={length}")
    assert code == 2
    assert "expected a time such as 90s, 10m, 2h or 1d" in err


@pytest.mark.parametrize("arguments", [("status",), ("status", "jira"), ("set", "jira", "rpm=5"), ("pause", "jira")])
def test_a_server_that_is_down_has_exit_code_5(run, monkeypatch, arguments):
    """One line names the setting to check."""
    monkeypatch.setenv("MIDWATCH_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    code, out, err = run("gate", *arguments)
    assert (code, out) == (5, "")
    assert "MIDWATCH_REDIS_URL" in err
    assert err.count("\n") == 1
