"""The examples in the README and the docs run exactly as printed, so a reader can copy them."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch import Agent, Client
from midwatch.testing import InlineFleet, ScriptedModel
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.demo.stage import Stage
from midwatch.workers.providers import REGISTRY
from midwatch.workers.settings import Settings
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+)\.py\n")


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, except those marked `no-run`."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [code for marks, code in found if "no-run" not in marks.split()]


def files(page: str) -> dict[str, str]:
    """The Python blocks of a page by the file name in their first line."""
    named = {}
    for code in blocks(page):
        name = FILE.match(code)
        assert name, f"{page}: expected a block to begin with `# name.py`, got {code.splitlines()[0]!r}"
        named[name[1]] = code
    return named


CLERK = Agent("tide-clerk", "scripted:m-1", "You help.")
EXTENDING = files("docs/extending.md")


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder with the files of docs/extending.md, first on the import path. Providers they register are removed afterwards."""
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
    """A folder with the README's example and a fleet without a worker: a server and a model server."""
    (code,) = blocks("README.md")
    (tmp_path / "quickstart.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Stage(tmp_path / "stage", {"MIDWATCH_AGENTS": "quickstart"}, []) as stage:
        yield stage


def run(program: str, env: dict[str, str]) -> str:
    """Run a program in the working directory and return what it prints."""
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_example_is_the_quickstart():
    """The two are equal word for word, so neither can change alone."""
    (code,) = blocks("README.md")
    assert code in (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


@pytest.mark.process
def test_the_readmes_example_runs_on_a_fleet(quickstart):
    """A worker and the example run in two processes. The model calls the tool, and the example prints the answer."""
    quickstart.start_worker("worker", "model,tools", "threads", 4)
    quickstart.await_workers()
    assert run("quickstart.py", quickstart.env) == "Done: 1 tool(s) called.\n"


@pytest.mark.parametrize("name", EXTENDING)
def test_a_recipe_runs_as_it_stands(recipes, name):
    """Each file of docs/extending.md checks its own results. It imports only Midwatch and the other files."""
    importlib.import_module(name)


def test_the_web_service_of_the_producers_page_imports(tmp_path, monkeypatch):
    """Its functions enqueue and poll. No connection is made at import."""
    (code,) = blocks("docs/producers.md")
    (tmp_path / "tide_service.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    service = importlib.import_module("tide_service")
    fleet = InlineFleet(CLERK, model=ScriptedModel([]))
    monkeypatch.setattr(service, "client", lambda: Client(store=fleet.store, operations=fleet.operations))
    job_id = service.ask("When?", "request-1", "17")
    assert service.ask("When?", "request-1", "17") == job_id
    assert service.answer(job_id) == {"status": "queued", "output": None}
    assert service.answer("job-none") == {"status": "unknown", "output": None}
    sys.modules.pop("tide_service")


@pytest.mark.process
def test_a_custom_provider_runs_a_job(recipes, monkeypatch):
    """`python keeper.py` registers a provider and runs a job with it. The job includes a failure and a retry."""
    monkeypatch.chdir(recipes)
    assert run("keeper.py", {}) == ""


@pytest.mark.process
def test_the_access_list_allows_a_fleet_and_refuses_the_rest(quickstart, connect_redis):
    """With the rules in docs/production.md a job runs and Valkey logs no refusal. CONFIG and FLUSHALL are refused."""
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
    assert handle.result(PATIENCE_S).status == "completed"
    assert len(list(handle.events())) == 3
    assert client.sessions.messages("sailor-1")
    assert client.dead_letters.list() == []
    assert client.enqueue("tide-clerk", "Never mind.").cancel() in (True, False)  # the job may have ended before
    client.store.client.close()
    assert admin.execute_command("ACL", "LOG") == []

    for url in urls.values():
        denied = connect_redis(url)
        for command in (("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"), ("GET", "somebody-elses")):
            with pytest.raises(Exception, match="permissions"):
                denied.execute_command(*command)
