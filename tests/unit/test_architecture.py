"""The shape of the house: sizes, words at the door, what an import costs. (The layers are import-linter's.)"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .house import House

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "orchestration", "workers")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 250
MAX_DOORS = 18
RUN = {"orchestration.agents.agent", "orchestration.client.client", "orchestration.client.new_job"}
BANNED = {"utils", "util", "common", "helpers", "helper", "manager", "base", "core", "misc"}
DEBTS: dict[str, int] = {}
"""Modules over the limit, with the size they may not exceed: visible, and only ever shorter."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_holds_one_concept_and_says_which(path):
    """At most 250 lines, a docstring first, a name that tells what is in it."""
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= DEBTS.get(name_of(path), MAX_LINES), "split it by concept"
    assert ast.get_docstring(ast.parse(source)), "begin with what the module is for"
    assert path.stem not in BANNED, "name it after what is in it"


def test_debts_are_real():
    """A module that was mended leaves the list."""
    for name, lines in DEBTS.items():
        assert (ROOT / name).exists(), f"{name} is gone"
        now = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        assert MAX_LINES < now > lines - 20, f"{name} has {now} lines now: lower its debt, or strike it off"


def test_a_package_has_few_doors():
    """A listing that needs a table is no listing: a family of three files is a room."""
    house = House(ROOT)
    for package in PACKAGES:
        doors = house.doors(package)
        assert len(doors) <= MAX_DOORS, f"{package} has {len(doors)} doors: give a family of files a room"


def test_the_only_circle_is_the_one_of_run():
    """Imports under `TYPE_CHECKING` and inside functions count: `agent.run()` enqueues, and nothing else runs up."""
    assert House(ROOT).circles() == [RUN]


def test_a_circle_through_a_hidden_import_is_found(tmp_path):
    """The control: one arrow under `TYPE_CHECKING`, one inside a function."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "workers" / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from midwatch.workers.two import x\n"
    )
    (tmp_path / "workers" / "two.py").write_text("def f():\n    from midwatch.workers import one\n")
    assert House(tmp_path).circles() == [{"workers.one", "workers.two"}]


def test_no_folder_of_tests_shadows_a_layer():
    """And none is a package: files are imported by their path."""
    tests = ROOT / "tests"
    assert not list(tests.rglob("__init__.py"))
    assert not {folder.name for folder in tests.iterdir() if folder.is_dir()} & set(PACKAGES)


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import midwatch.orchestration", {"celery", "kombu", "anthropic", "openai", "flower", "click", "fakeredis"}),
        ("import midwatch; midwatch.Agent, midwatch.tool", {"celery", "anthropic", "openai", "fakeredis", "lupa"}),
        (
            "import midwatch.testing",
            {"celery", "kombu", "anthropic", "openai", "flower", "click", "fakeredis", "lupa"},
        ),
        (
            "import midwatch.schemas.job",
            {"redis", "celery", "kombu", "anthropic", "openai", "jsonschema", "structlog", "orchestration"},
        ),
        ("import midwatch.workers.celery_app.app", {"anthropic", "openai", "flower"}),
    ],
)
@pytest.mark.process
def test_an_import_loads_no_more_than_it_needs(statement, forbidden):
    """A producer's process stays small: no broker, no SDK, unless something of them is used."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{statement}; {show}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not forbidden & set(loaded.stdout.split())
