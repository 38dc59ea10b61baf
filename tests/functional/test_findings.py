"""Drift on a real fleet: invalid calls are counted in Redis, and shown by `client.findings` and `midwatch findings`."""

from __future__ import annotations

import json

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.cli import main
from midwatch.workers.settings import settings
from tests.functional.fleet_agents import one_search
from tests.functional.fleet_stage import fleet_on_stage, use
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """A model worker and a tools worker."""
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("findings")) as stage:
        yield stage


def test_drift_is_counted_and_found(stage, capsys, monkeypatch, server, tmp_path):
    """Calls are counted by model, tool, band and kind. Above the threshold a row is a finding, and the command exits with 1."""
    wrong, unknown = use(("add", {"a": "one", "b": 2})), use(("subtract", {"a": 1, "b": 2}))
    text = stage.cast([wrong, use(("add", {"a": 1, "b": 2})), unknown, use(("add", '{"a": 1, "b": ')), "Three."])
    assert one_search.enqueue(text).result(PATIENCE_S).output == "Three."

    found = stage.client.findings.drift(min_calls=2)
    by_tool = {one.drift.tool: one for one in found}
    assert set(by_tool) == {"add", "(unknown)"}
    add = by_tool["add"]
    assert (add.drift.calls, add.drift.invalid, add.drift.band, add.over) == (3, 2, "under 10k", True)
    assert add.drift.kinds == {"schema": 2}  # in this vendor format broken JSON arrives as an object of another shape
    assert not by_tool["(unknown)"].over  # one call is not enough

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIDWATCH_REDIS_URL", server.url)
    monkeypatch.setenv("MIDWATCH_PREFIX", stage.client.operations.keys.prefix)
    settings.cache_clear()
    capsys.readouterr()
    code = main(["findings", "--json", "--all"])
    said = json.loads(capsys.readouterr().out)
    settings.cache_clear()
    assert {row["tool"]: (row["calls"], row["invalid"]) for row in said["rows"]} == {"add": (3, 2), "(unknown)": (1, 1)}
    assert code == 0  # too few calls for a finding


def test_a_period_longer_than_counters_are_kept_is_refused(stage):
    """A clear error is raised instead of an answer with missing counters."""
    with pytest.raises(ConfigError, match="expected 1 to 192"):
        stage.client.findings.drift(hours=1_000)
