"""`midwatch bench validation` prints one document of figures, and counts every line of its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.validation import run
from midwatch.workers.cli.program import program

ORDER = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
    "required": ["order"],
    "additionalProperties": False,
}
UNUSABLE = {"type": "object", "properties": {"x": {"pattern": "^[a-z"}}}

CASES: list[tuple[Any, Any, str]] = [
    ((ORDER, '{"order": "A-17"}'), True, "accepted"),
    ((ORDER, '{"order": 17}'), False, "blocked"),
    ((ORDER, '{"order": "A-17", "limit": 0}'), True, "blocked"),  # line 3: a wrong label
    ((ORDER, ""), False, "blocked"),
    (({"type": "object"}, ""), True, "accepted"),
    ((ORDER, '{"order": "A", "order": "B"}'), False, "blocked"),
    ((ORDER, '{"order": "A-17"}'), None, "accepted"),
    ((ORDER, '{"order": "A-17"}'), False, "accepted"),  # line 8: a wrong label
    ((UNUSABLE, '{"x": "aaaa"}'), False, "blocked"),
    ((UNUSABLE, '{"x": "aaaa"}'), None, "error"),
    ((UNUSABLE, '{"x": "aaaa"}'), True, "error"),  # line 11: no worker would run this call
    ((ORDER, {"order": "decoded already"}), None, "error"),
    ((ORDER, '{"order": "A-17"}'), "yes", "error"),
]


def lines() -> list[str]:
    rows = []
    for (schema, raw), valid, _ in CASES:
        row = {"schema": schema, "arguments": raw} | ({} if valid is None else {"valid": valid})
        rows.append(json.dumps(row))
    return [*rows, "not json", "[]", '{"schema": {}}', "", json.dumps({"schema": 5, "arguments": "{}", "valid": False})]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(lines()) + "\n")
    return path


def test_every_line_is_counted_once_and_wrong_labels_are_listed(cases: Path) -> None:
    """Blocked, accepted and errors add up to all lines. A wrong label is reported with its line number."""
    found = run(cases, lambda _: None)
    endings = [ending for _, _, ending in CASES]
    assert found["accepted"] == endings.count("accepted")
    assert found["blocked"] == endings.count("blocked") + 1
    assert found["errors"] == endings.count("error") + 3
    assert found["cases"] == len(CASES) + 4
    assert found["disagreements"] == [3, 8, 11]
    assert found["schemas"] == 4


def test_refused_schemas_and_wrong_verdicts_are_counted_apart(cases: Path) -> None:
    """Line 11 has a refused schema, so its disagreement is no wrong verdict."""
    found = run(cases, lambda _: None)
    assert (found["refused"], found["refusals"]) == (4, {"pattern": 3, "json": 1})
    assert found["wrong_verdicts"] == [3, 8]


def test_the_standards_suite_is_read_from_a_folder_or_a_file(tmp_path: Path) -> None:
    """Only tests whose data are an object are calls. `$schema` is added for draft 07."""
    group = {
        "schema": {"dependencies": {"a": ["b"]}},
        "tests": [
            {"data": {"a": 1}, "valid": False},
            {"data": {"b": 1}, "valid": True},
            {"data": [1], "valid": True},
        ],
    }
    folder = tmp_path / "draft7"
    folder.mkdir()
    (folder / "dependencies.json").write_text(json.dumps([group]))
    packed = tmp_path / "draft7.json"
    packed.write_text(json.dumps({"dependencies.json": [group], "optional/format/date.json": [{}]}))
    for suite in (folder, packed):
        found = run(None, lambda _: None, [suite])
        assert (found["cases"], found["accepted"], found["blocked"], found["wrong_verdicts"]) == (2, 1, 1, [])
    packed.write_text("[]")
    with pytest.raises(ConfigError, match="expected a folder or file of the JSON Schema Test Suite"):
        run(None, lambda _: None, [packed])
    with pytest.raises(ConfigError, match="expected --cases FILE, --suite PATH, or both"):
        run(None, lambda _: None)


def test_times_are_those_of_a_call_and_are_compared_with_the_plain_way(cases: Path) -> None:
    """Our time excludes building the validator, which happens once for each schema. The plain way builds it for each call."""
    found = run(cases, lambda _: None)
    assert 0 < found["p50_us"] <= found["p99_us"] <= 1_000 * found["max_ms"] + 1
    assert found["baseline_cases"] == 8
    assert found["p50_us"] < found["baseline_p50_us"] / 3


def test_the_command_prints_one_document(cases: Path) -> None:
    """The document is JSON with the documented fields, and the exit code is 0."""
    ended = CliRunner().invoke(program, ["bench", "validation", "--cases", str(cases), "--json"])
    assert ended.exit_code == 0, ended.output
    fields = {"cases", "blocked", "accepted", "errors", "max_ms", "p50_us", "p99_us", "disagreements"}
    assert fields <= set(json.loads(ended.stdout))


def test_a_file_without_cases_has_no_times(tmp_path: Path) -> None:
    """Times are missing and not zero. A missing file is reported."""
    (tmp_path / "empty.jsonl").touch()
    found = run(tmp_path / "empty.jsonl", lambda _: None)
    assert (found["cases"], found["p50_us"], found["baseline_p50_us"]) == (0, None, None)
    with pytest.raises(ConfigError, match=r"expected a JSON Lines file; No such file"):
        run(tmp_path / "gone.jsonl", lambda _: None)
