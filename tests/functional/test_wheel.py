"""The wheel and the sdist: an install brings one import name, and works with a project's own packages."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from midwatch.workers.providers.credentials import VARIABLES
from midwatch.workers.simulator import Faults, ModelServer, Say
from tests.patience import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[2]

OWN_PACKAGES = ("workers", "orchestration", "schemas")
"""Package names that a user's project may have."""

(QUICKSTART,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)

PROJECT = '''
"""A project that has packages of all three names, and an agent."""
import sys
from pathlib import Path

import orchestration, schemas, workers
from midwatch import Agent, tool
from midwatch.testing import ScriptedModel, call, run_inline

@tool(idempotent=True)
def look_up(order: str) -> str:
    """Where an order is."""
    return f"{order}: {workers.MINE} {orchestration.MINE} {schemas.MINE}"

clerk = Agent("clerk", "scripted:m-1", "You help.", tools=[look_up])

if __name__ == "__main__":
    model = ScriptedModel([call("look_up", order="A-17"), "It is here."])
    result = run_inline(clerk, "Where is A-17?", model=model)
    seen = model.requests[-1].messages[-1].content
    assert seen == "A-17: my workers my orchestration my schemas", seen
    here = str(Path(__file__).parent)
    assert all(sys.modules[name].__file__.startswith(here) for name in ("workers", "orchestration", "schemas"))
    import midwatch
    print(result.status, result.output, midwatch.__file__)
'''


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build a distribution of a source folder, without a network."""
    code = f"import hatchling.build as b, sys; print(b.build_{kind}({str(folder)!r}))"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=source, check=True, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return folder / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    return next(folder.glob("midwatch-*.whl"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with packages named `workers`, `orchestration` and `schemas`."""
    for name in OWN_PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = 'my {name}'\n")
    (tmp_path / "my_agents.py").write_text(PROJECT)
    return tmp_path


def find_free_port() -> int:
    """Return a port of loopback that no program uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def names_in(wheel: Path) -> set[str]:
    """Return the paths of a wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_an_install_brings_one_import_name(wheel: Path) -> None:
    """Only `midwatch` can be imported. `workers`, `orchestration` and `schemas` can't."""
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"midwatch"}


def test_files_that_are_not_python_are_in_the_wheel(wheel: Path) -> None:
    """The wheel has scripts, templates, wire schemas, the demo's data and the type marker."""
    names = names_in(wheel)
    for name in (
        "midwatch/py.typed",
        "midwatch/orchestration/store/lua/prelude.lua",
        "midwatch/orchestration/store/lua/claim.lua",
        "midwatch/schemas/wire/start.json",
        "midwatch/workers/demo/desk/knowledge.md",
        "midwatch/workers/demo/desk/desk.sql",
    ):
        assert name in names, name
    assert any(name.startswith("midwatch/workers/flower/") and name.endswith(".html") for name in names)


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """Links in the sdist may be links or files. In both cases the wheel built from it has the same files."""
    pytest.importorskip("hatchling", reason="builds without isolation")
    archive = build("sdist", ROOT, tmp_path)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert names_in(build("wheel", source, tmp_path)) == names_in(wheel)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel. Its dependencies are those of the checkout."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    dependencies = Path(pytest.__file__).parents[1]  # installed once and shared, without the link to the checkout
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({str(dependencies)!r})\n")
    return environment / "bin" / "python"


@pytest.fixture
def env() -> dict[str, str]:
    """The environment of a user who has set nothing."""
    unset = ("PYTHONPATH", *VARIABLES.values())
    return {name: value for name, value in os.environ.items() if name not in unset and name[:9] != "MIDWATCH_"}


def run(python: Path, *arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the interpreter to its end."""
    return subprocess.run(
        [python, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_it_runs_in_a_project_with_packages_of_all_three_names(
    python: Path, project: Path, env: dict[str, str]
) -> None:
    """The project's own `workers`, `orchestration` and `schemas` are imported unchanged, and its agent runs."""
    ran = run(python, "my_agents.py", cwd=project, env=env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"completed It is here. {python.parents[1] / 'lib'}")
    helped = run(python, "-m", "midwatch.workers.cli", "--help", cwd=project, env=env)
    assert "Usage" in helped.stdout, helped.stderr


@contextmanager
def dev(python: Path, project: Path, env: dict[str, str], *options: str) -> Iterator[None]:
    """Run `midwatch dev` on free ports until the end of the block, then end it as Ctrl-C does."""
    ports = [word for option in ("--port", "--redis-port", "--model-port") for word in (option, str(find_free_port()))]
    log = project / "dev.log"
    argv = [python, "-m", "midwatch.workers.cli", "dev", *ports, *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=project, env={**env, "MIDWATCH_AGENTS": "quickstart"}, stdout=out, stderr=out
        )
    try:
        wait_for(
            lambda: process.poll() is not None or "Ctrl-C ends it" in log.read_text("utf-8"), "a start of dev", 0.1
        )
        assert process.poll() is None, log.read_text("utf-8")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_the_quick_start_runs_as_written_without_a_key(python: Path, project: Path, env: dict[str, str]) -> None:
    """Two terminals in one folder, nothing set but the agents. The answer says that no vendor was called."""
    (project / "quickstart.py").write_text(QUICKSTART)
    with dev(python, project, env):
        ran = run(python, "quickstart.py", cwd=project, env=env)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("[simulated answer, no vendor was called] high_water returned: ")
        assert "ANTHROPIC_API_KEY not set" in (project / "dev.log").read_text("utf-8")
    assert not (project / ".midwatch" / "dev.json").exists()


@pytest.mark.slow
def test_the_quick_start_runs_as_written_with_a_key(python: Path, project: Path, env: dict[str, str]) -> None:
    """The vendor is called, here a server on this machine. A vendor that refuses the key gives an error and no answer."""
    (project / "quickstart.py").write_text(QUICKSTART)
    for faults, code, words in (
        (Faults(), 0, "High water is at five."),
        (Faults.parse("auth_error=1"), 1, "auth_error"),
    ):
        with ModelServer(lambda _: Say("High water is at five."), faults=faults) as vendor:
            given = {**env, "ANTHROPIC_API_KEY": "sk-x", "ANTHROPIC_BASE_URL": vendor.url}
            with dev(python, project, given):
                ran = run(python, "quickstart.py", cwd=project, env=env)
        assert ran.returncode == code, ran.stderr
        assert words in ran.stdout + ran.stderr
        assert "None" not in ran.stdout


@pytest.mark.parametrize("name", OWN_PACKAGES)
def test_a_checkout_refuses_a_second_import_of_the_same_file(name: str) -> None:
    """At the root of the repository, `import workers` would load every module twice. It is refused with the right name."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode != 0
    assert f"import `midwatch.{name}` instead" in ran.stderr
