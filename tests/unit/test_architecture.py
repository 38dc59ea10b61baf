"""The architecture's limits: sizes, the contents of packages, import cycles, import costs, and the tests' names.

(Import-linter checks the layers.)
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .house import MAX_DOORS, RUN, House, find_faults

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "orchestration", "workers")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 250
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
MAX_TEST_NAME = 70
BANNED = {"utils", "util", "common", "helpers", "helper", "manager", "base", "core", "misc"}
DEBTS: dict[str, int] = {}
"""Modules over the limit, each with the size that it may not exceed. The sizes may only decrease."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_holds_one_concept_and_has_a_docstring(path):
    """It has at most 250 lines, begins with a docstring, and its name tells what is in it."""
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= DEBTS.get(name_of(path), MAX_LINES), "split it by concept"
    assert ast.get_docstring(ast.parse(source)), "begin with what the module is for"
    assert path.stem not in BANNED, "name it after what is in it"


def test_the_list_of_oversized_modules_is_up_to_date():
    """A module that is small enough is removed from the list."""
    for name, lines in DEBTS.items():
        assert (ROOT / name).exists(), f"{name} does not exist any more"
        now = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        assert MAX_LINES < now > lines - 20, f"{name} has {now} lines now: lower its number, or remove it from the list"


def test_packages_are_small_and_one_import_cycle_is_allowed():
    """No package has more than 18 entries. Imports under `TYPE_CHECKING` and inside functions count as imports."""
    assert find_faults(House(ROOT)) == []
    assert House(ROOT).circles() == [RUN]


def test_a_package_with_too_many_entries_is_found(tmp_path):
    """The control for the rule on entries."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    for number in range(MAX_DOORS + 1):
        (tmp_path / "workers" / f"file_{number}.py").write_text("")
    assert [fault.split(",")[0] for fault in find_faults(House(tmp_path))] == [f"workers has {MAX_DOORS + 1} entries"]


def test_a_cycle_through_hidden_imports_is_found(tmp_path):
    """One import is under `TYPE_CHECKING`, one is inside a function. This shows that the check works."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "workers" / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from midwatch.workers.two import x\n"
    )
    (tmp_path / "workers" / "two.py").write_text("def f():\n    from midwatch.workers import one\n")
    assert House(tmp_path).circles() == [{"workers.one", "workers.two"}]


def test_no_folder_of_tests_shadows_a_layer():
    """A folder of tests is also no package, because test files are imported by their path."""
    tests = ROOT / "tests"
    assert not list(tests.rglob("__init__.py"))
    assert not {folder.name for folder in tests.iterdir() if folder.is_dir()} & set(PACKAGES)


def find_tests(path: Path) -> list[ast.FunctionDef]:
    """Return the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [function for function in functions if function.name.startswith("test_")]


@pytest.mark.parametrize("path", TEST_FILES, ids=name_of)
def test_a_test_has_a_short_name_and_a_promise(path):
    """A name of at most 70 characters gives condition and result. The docstring is the promise."""
    for test in find_tests(path):
        assert len(test.name) <= MAX_TEST_NAME, f"{test.name} has {len(test.name)} characters"
        assert ast.get_docstring(test), f"{test.name} has no docstring"


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
    """A producer's process stays small: it imports no broker and no SDK before one is used."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{statement}; {show}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not forbidden & set(loaded.stdout.split())
