"""`midwatch bench context` from the command line: figures on stdout, prose on stderr, the usual exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.workers.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("--max-tokens", "4000")` plays a conversation of thirty look-ups. Returns exit code, stdout and stderr."""
    rows: list[dict[str, Any]] = [{"role": "user", "content": "Begin with order #W1000."}]
    for number in range(30):
        arguments = json.dumps({"order": f"#W{1000 + number}"})
        call = {"id": f"c{number}", "type": "function", "function": {"name": "find", "arguments": arguments}}
        rows.append({"role": "assistant", "content": None, "tool_calls": [call]})
        text = f"Then look at #W{1001 + number}. " + "The parcel was left with a neighbour. " * 30
        rows.append({"role": "tool", "tool_call_id": f"c{number}", "content": text})
    rows.append({"role": "assistant", "content": "Done."})
    (tmp_path / "talk.jsonl").write_text(json.dumps({"id": "thirty", "messages": rows}))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["bench", "context", "--transcript", "talk.jsonl", *arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


def test_figures_are_one_document(run: Run) -> None:
    """Logs and progress are not on stdout. The document has every call, and counts compactions that ran during the job."""
    code, out, err = run("--max-tokens", "4000", "--no-peers", "--json")
    figures = json.loads(out)
    assert code == 0
    assert "thirty: 62 messages" in err
    assert len(figures["rows"]) == figures["calls"] == 31
    assert (figures["over_budget"], figures["split_groups"], figures["goal_lost"]) == (0, 0, 0)
    assert figures["compactions"] >= 2
    assert figures["peers"] == []


def test_the_table_has_a_line_for_each_conversation_and_peer(run: Run) -> None:
    """The totals are below. Single calls are left out of the table."""
    code, out, _ = run("--fill", "150")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert lines[0][:4] == ["NAME", "MAX TOKENS", "CALLS", "COMPACTIONS"]
    assert [line[0] for line in lines[1:4]] == ["thirty", "trim the oldest", "langchain trim_messages"]
    assert ["over budget", "0"] in lines
    assert len(out.splitlines()) < 40


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--max-tokens", "4000", "--fill", "80"),
        ("--max-tokens", "10"),
        ("--max-tokens", "4000", "--only", "no-such-record"),
        ("--max-tokens", "4000", "--summary-model", "anthropic:claude-haiku-4-5-20251001"),
    ],
)
def test_invalid_options_have_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    """Invalid options are refused before anything is played."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err
