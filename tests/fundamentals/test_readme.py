"""What README and docs show is run as it stands there: a reader can copy it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.demo.stage import Stage
from midwatch.workers.providers import REGISTRY
from midwatch.workers.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+)\.py\n")


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, but those marked `no-run`."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [code for marks, code in found if "no-run" not in marks.split()]


def files(page: str) -> dict[str, str]:
    """The blocks by the file name in their first line."""
    named = {}
    for code in blocks(page):
        name = FILE.match(code)
        assert name, f"{page}: expected a block to begin with `# name.py`, got {code.splitlines()[0]!r}"
        named[name[1]] = code
    return named


EXTENDING = files("docs/extending.md")


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder with the files of docs/extending.md, first on the import path; what they register is forgotten again."""
    for name, code in EXTENDING.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(REGISTRY)
    yield tmp_path
    for name in EXTENDING:
        sys.modules.pop(name, None)
    for name in set(REGISTRY) - known:
        del REGISTRY[name]


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """A folder with the README's example, and the environment of a fleet in it: server, model server, no worker yet."""
    (code,) = blocks("README.md")
    (tmp_path / "quickstart.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Stage(tmp_path / "stage", {"MIDWATCH_AGENTS": "quickstart"}, []) as stage:
        yield stage


def run(program: str, env: dict[str, str]) -> str:
    """What a program in the working directory prints."""
    done = subprocess.run(
        [sys.executable, program], env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_example_is_the_quickstart():
    """Word for word, so that one can't change without the other."""
    (code,) = blocks("README.md")
    assert code in (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_the_readmes_example_runs_on_a_fleet(quickstart):
    """A worker that has loaded it, the program in another process: the model server calls its tool, and it prints the answer."""
    quickstart.start_worker("worker", "model,tools", "threads", 4)
    quickstart.await_workers()
    assert run("quickstart.py", quickstart.env) == "Done: 1 tool(s) called.\n"


@pytest.mark.parametrize("name", EXTENDING)
def test_a_recipe_runs_as_it_stands(recipes, name):
    """Each file of docs/extending.md asserts what it promises, and imports nothing but Midwatch and its neighbours."""
    importlib.import_module(name)


def test_a_provider_of_ones_own_runs_a_job(recipes, monkeypatch):
    """`python keeper.py` answers by the provider that it has registered, a failure and a retry included."""
    monkeypatch.chdir(recipes)
    assert run("keeper.py", {}) == ""


def test_the_access_list_is_enough_for_a_fleet_and_refuses_the_rest(quickstart, connect_redis):
    """The rules in docs/production.md let a worker and a producer run a job, and Valkey logs no refusal; CONFIG is refused."""
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^user (\w+) on >\S+ (.*)$", page, re.MULTILINE))
    admin = connect_redis(quickstart.server.url)
    for user, rule in rules.items():
        admin.execute_command("ACL", "SETUSER", user, "reset", "on", f">{user}", *rule.split())
    urls = {user: quickstart.server.url.replace("//", f"//{user}:{user}@") for user in ("worker", "producer")}
    quickstart.env["MIDWATCH_REDIS_URL"] = urls["worker"]
    quickstart.start_worker("worker", "model,tools", "threads", 4)
    quickstart.await_workers()

    client = make_client(Settings(redis_url=urls["producer"]))
    handle = client.enqueue("tide-clerk", "When can I leave?", session_id="sailor-1")
    assert handle.result(30).status == "completed"
    assert len(list(handle.events())) == 3
    assert client.sessions.messages("sailor-1")
    assert client.dead_letters.list() == []
    assert client.enqueue("tide-clerk", "Never mind.").cancel() in (True, False)  # it may have ended already
    client.store.client.close()
    assert admin.execute_command("ACL", "LOG") == []

    for url in urls.values():
        denied = connect_redis(url)
        for command in (("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"), ("GET", "somebody-elses")):
            with pytest.raises(Exception, match="permissions"):
                denied.execute_command(*command)
