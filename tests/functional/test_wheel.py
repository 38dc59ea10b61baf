"""The wheel: what a user installs holds everything, and says so plainly when another `schemas` shadows it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would lie in site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=170)
    (wheel,) = folder.glob("midwatch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(code: str, *path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code with these folders first on the import path, away from the checkout."""
    insert = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}; "
    return subprocess.run(
        [sys.executable, "-P", "-c", insert + code], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_what_is_not_python_is_in_it(unpacked: Path) -> None:
    """Scripts, templates, wire schemas, the demo's data, the type markers."""
    for name in (
        "orchestration/store/lua/prelude.lua",
        "orchestration/store/lua/claim.lua",
        "schemas/wire/start.json",
        "workers/demo/knowledge.md",
        "workers/demo/desk.sql",
        "schemas/py.typed",
        "orchestration/py.typed",
        "workers/py.typed",
    ):
        assert (unpacked / name).exists(), name
    assert list((unpacked / "workers" / "flower").rglob("*.html"))
    assert not (unpacked / "tests").exists()


def test_it_imports_by_itself(unpacked: Path, tmp_path: Path) -> None:
    """Without the checkout: the three packages and the command line come from the wheel."""
    code = "import orchestration, workers.cli, schemas; print(orchestration.__file__); workers.cli.main(['--help'])"
    result = python(code, unpacked, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(unpacked))


def test_a_foreign_schemas_package_is_named(unpacked: Path, tmp_path: Path) -> None:
    """The message says which package shadows ours, and what to do."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("")
    result = python("import orchestration", tmp_path, unpacked, cwd=tmp_path)
    assert result.returncode != 0
    assert str(tmp_path / "schemas") in result.stderr
    assert "shadows it" in result.stderr
