"""The docs match the code: links resolve, commands and settings exist, numbers and names are the current ones."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from midwatch.orchestration import keyspace
from midwatch.orchestration.steps.losses.suspects import MODEL_LOSSES
from midwatch.orchestration.store.redis_store import LEASE_MS
from midwatch.orchestration.store.script_calls.begin_work import MAX_LOSSES, MAX_LOSSES_ALONE
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Outcome
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.cli.commands import doctor_checks
from midwatch.workers.cli.environment import source_of
from midwatch.workers.cli.program import program
from midwatch.workers.process import steward
from midwatch.workers.process.isolation.run_alone import MOST_AT_ONCE
from midwatch.workers.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "decisions") for path in folder.glob("*.md"))
AWAITED: set[str] = set()
"""Pages that are linked but not written yet. Remove a page from this list when you write it."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = {"cli.md", "keyspace.md", "vendors.md"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, in the form that GitHub generates."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_in(text: str) -> list[str]:
    """Every command on a page: lines of console blocks, and inline code."""
    shown = [
        line for kind, block in FENCE.findall(text) if kind in ("console", "text", "") for line in block.splitlines()
    ]
    shown += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    commands = (line.strip().removeprefix("$ ").partition(" # ")[0].strip() for line in shown)
    return [command for command in commands if re.match(r"(midwatch|make) [\w-]", command)]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    """Every relative link points to a file that exists. Every anchor points to a heading in that file."""
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"https?://|mailto:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        if name_of(found) in AWAITED:
            continue
        assert found.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(found), f"{link}: no such heading; there are {sorted(anchors(found))}"


def test_a_page_that_was_awaited_leaves_the_list():
    """A page that exists is removed from `AWAITED`, so that links to it are checked."""
    assert not [page for page in AWAITED if (ROOT / page).exists()], "remove it from AWAITED"


def test_the_readme_fits_on_a_few_screens():
    """The README has at most 150 lines. Longer content belongs in docs/."""
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=name_of)
def test_a_decision_is_short_and_numbered(path):
    """A decision record has at most 60 lines, and its title has the number of its file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert lines[0].startswith(f"# {int(path.name[:4])}. ")


@pytest.mark.parametrize("path", [path for path in PAGES if path.name not in GENERATED], ids=name_of)
def test_commands_exist(path):
    """Every `midwatch` command on a page has valid subcommands and options. Every `make` command has a valid target."""
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for command in commands_in(path.read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            named = {word for word in words[1:] if not re.match(r"[A-Z]+=", word)}
            assert named <= targets, command
        else:
            check_command(words[1:], command)


def check_command(words: list[str], shown: str) -> None:
    """Check the subcommands, then the options."""
    context = program.make_context("midwatch", [], resilient_parsing=True)
    command: click.Command = program
    while isinstance(command, click.Group) and words and words[0].islower() and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{shown!r}: there is no {words[0]!r}"
        command, words = found, words[1:]
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
    known = {option for parameter in command.get_params(context) for option in parameter.opts}
    options = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
    if command.name != "flower":  # Flower's own options follow ours
        assert options <= known, f"{shown!r}: no option {', '.join(sorted(options - known))}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_settings_exist(path):
    """Every `MIDWATCH_` variable on a page is a setting."""
    known = {source_of(name) for name in Settings.model_fields}
    named = set(re.findall(r"\bMIDWATCH_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert named <= known, f"unknown: {', '.join(sorted(named - known))}"


@pytest.mark.parametrize("path", [path for path in PAGES if path.name not in GENERATED], ids=name_of)
def test_files_that_are_named_exist(path):
    """Every repository path on a page exists."""
    roots = "schemas|orchestration|workers|tests|docs|examples|compose"
    for named in re.findall(rf"`((?:{roots})/[\w./-]*)`", path.read_text(encoding="utf-8")):
        assert (ROOT / named).exists() or named in AWAITED or "NNNN" in named, named


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_imports_exist(path):
    """Every `from midwatch… import …` on a page works."""
    for module, names in re.findall(r"from (midwatch[\w.]*) import ([\w, ]+)", path.read_text(encoding="utf-8")):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"from {module} import {name}"


def logged_events() -> set[str]:
    """The first argument of every `log.<level>("noun.verb", …)` in the code."""
    found = set()
    for path in (module for package in ("orchestration", "workers") for module in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error", "critical", "exception")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(node.args[0].value))
            ):
                found.add(str(node.args[0].value))
    return found


def test_the_catalogue_of_log_lines_is_complete():
    """docs/telemetry.md has a row for each event that the code logs, and for no other."""
    section = text_of("docs/telemetry.md").partition("## Log lines")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)) == logged_events()


STATUSES = {status for status in JobStatus if status is not JobStatus.TIMED_OUT}
"""The statuses that this release writes."""


def test_the_catalogue_of_counters_is_complete():
    """docs/telemetry.md has a row for each counter that the scripts change, and for no other."""
    scripts = "\n".join(path.read_text() for path in (ROOT / "orchestration" / "store" / "lua").glob("*.lua"))
    counted = set(re.findall(r"COUNTERS, '(\w+\.\w+)'", scripts))
    counted |= {f"jobs.{status}" for status in STATUSES if status.ended}
    section = text_of("docs/telemetry.md").partition("## Counters")[2].partition("\n## ")[0]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", rows)) == counted


def test_every_field_of_a_trace_record_is_explained():
    """The table in docs/telemetry.md has every field of a trace record."""
    section = text_of("docs/telemetry.md").partition("## Trace")[2].partition("\n## ")[0]
    cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", cells)) == set(TraceRecord.model_fields)


def test_the_state_charts_have_every_state():
    """docs/lifecycle.md draws every job status and lists every outcome."""
    page = text_of("docs/lifecycle.md")
    chart = next(block for kind, block in FENCE.findall(page) if kind == "mermaid")
    assert {word for word in re.findall(r"\w+", chart) if word in set(JobStatus)} == STATUSES
    outcomes = {kind.model_fields["kind"].default for kind in Outcome.__origin__.__args__}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == outcomes


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("README.md", f"one of {len(FailureKind)} kinds of failure"),
        ("docs/glossary.md", f"one of {len(FailureKind)} kinds"),
        ("docs/lifecycle.md", f"one of {len(FailureKind)} [kinds of failure]"),
        ("docs/glossary.md", f"how long a claim lasts without renewal: {LEASE_MS / 1000:g} s"),
        ("docs/architecture.md", f"a lease of {LEASE_MS / 1000:g} s"),
        ("docs/architecture.md", f"after {steward.PATIENCE_MS / 1000:g} s when their queue is empty"),
        ("docs/architecture.md", f"after {steward.STALE_MS / 1000:g} s when it is not"),
        ("docs/lifecycle.md", f"after {MAX_LOSSES} losses of any kind without proof"),
        ("docs/lifecycle.md", f"After {MAX_LOSSES_ALONE} such losses"),
        ("docs/production.md", f"a tool costs {1 + MAX_LOSSES_ALONE} workers"),
        ("docs/lifecycle.md", f"after {MODEL_LOSSES} losses"),
        ("docs/production.md", f"starts at most {MOST_AT_ONCE} such processes"),
        ("docs/architecture.md", f"live for {keyspace.KEPT_S // 86_400} days"),
        ("docs/production.md", f"than its lease of {LEASE_MS / 1000:g} s"),
        ("docs/production.md", f"are deleted {keyspace.KEPT_S // 86_400} days after their last step"),
        ("docs/production.md", f"within {keyspace.HELD_S // 86_400} days"),
        ("docs/production.md", f"Valkey {_version(doctor_checks.VALKEY_FROM)} or newer"),
        ("docs/production.md", f"Redis {_version(doctor_checks.REDIS_FROM)} or newer"),
    ],
)
def test_numbers_are_those_of_the_code(page, said):
    """The numbers on a page are the constants of the code."""
    assert said in " ".join(text_of(page).replace("**", "").split()), f"{page} should contain {said!r}"
