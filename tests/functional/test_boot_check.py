"""A worker whose store, broker or credentials can't be used says so and ends. It never says ready."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from midwatch.orchestration.errors import ConfigError, MidwatchError, StoreUnavailable
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.process.boot_check import await_servers
from midwatch.workers.settings import Settings
from midwatch.workers.simulator import ModelServer, Say, ScriptBrain
from tests.functional.tls_server import make_certificate, speak_tls
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
PRODUCTION = Path(ROOT / "docs" / "production.md")


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedServer]:
    """A server whose configuration the tests change."""
    with EmbeddedServer(append_only=None) as server:
        yield server


@pytest.fixture
def admin(own: EmbeddedServer, connect_redis: Callable[[str], redis_py.Redis]) -> redis_py.Redis:
    """A client that may do everything."""
    return connect_redis(own.url)


def refusal(url: str, **settings: Any) -> MidwatchError:
    """Return the error with which a worker of this address ends."""
    with pytest.raises(MidwatchError) as caught:
        await_servers(Settings(redis_url=url, prefix="mw", **settings), patience_s=0.0)
    return caught.value


def of_user(own: EmbeddedServer, name: str) -> str:
    """Return the server's URL for a user with the password `pw`."""
    return own.url.replace("://", f"://{name}:pw@")


@pytest.mark.parametrize("right", ["hincrby", "evalsha", "fcall", "function|load", "brpop", "publish", "zrangebylex"])
def test_a_right_that_is_missing_for_one_command_is_named(
    own: EmbeddedServer, admin: redis_py.Redis, right: str
) -> None:
    """The server is asked for every command of a worker. Nothing is written."""
    admin.execute_command("ACL", "SETUSER", "less", "reset", "on", ">pw", "~*", "&*", "+@all", f"-{right}")
    found = refusal(of_user(own, "less"))
    assert isinstance(found, ConfigError)
    assert "MIDWATCH_REDIS_URL" in str(found)
    assert right.partition("|")[0] in str(found).lower()
    assert admin.dbsize() == 0


def test_the_rules_of_the_documentation_are_enough(own: EmbeddedServer, admin: redis_py.Redis) -> None:
    """The user `worker` of docs/production.md may run every command."""
    (line,) = [line for line in PRODUCTION.read_text().splitlines() if line.startswith("user worker ")]
    admin.execute_command("ACL", "SETUSER", *line.replace(">PASSWORD", ">pw").split()[1:])
    await_servers(Settings(redis_url=of_user(own, "worker"), prefix="mw"), patience_s=0.0)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("maxmemory", "1", "memory is full"),
        ("replicaof", "127.0.0.1 1", "read-only replica"),
        ("requirepass", "x", "requires a"),
    ],
)
def test_a_server_that_takes_no_writes_or_no_login_is_described(
    own: EmbeddedServer, admin: redis_py.Redis, option: str, value: str, said: str
) -> None:
    """Full, a replica, or protected by a password."""
    if option == "replicaof":
        admin.execute_command("REPLICAOF", *value.split())
    else:
        admin.config_set(option, value)
    try:
        assert said in str(refusal(own.url))
    finally:
        if option == "replicaof":
            admin.execute_command("REPLICAOF", "NO", "ONE")
        else:
            admin.config_set(option, {"maxmemory": "0", "requirepass": ""}[option])


def test_another_database_user_or_port_is_described(own: EmbeddedServer) -> None:
    """Also for the broker. Then the error names its setting."""
    base = own.url.rpartition("/")[0]
    assert "no database of this number" in str(refusal(f"{base}/99"))
    assert "the password" in str(refusal(of_user(own, "nobody")))
    assert isinstance(refusal("redis://127.0.0.1:1/0"), StoreUnavailable)
    for broker, said in (
        (f"{base}/99", "no database"),
        ("amqp://127.0.0.1:1//", "reached"),
        ("nosuch://h", "transport"),
    ):
        found = str(refusal(own.url, broker_url=broker))
        assert found.startswith("MIDWATCH_BROKER_URL: ")
        assert said in found


def test_tls_in_celerys_spelling_works_and_a_wrong_certificate_is_said(
    own: EmbeddedServer, tmp_path: Path, lend_prefix: Any
) -> None:
    """With `ssl_cert_reqs=CERT_NONE` a worker completes jobs. Before, it said ready, took every message and lost it."""
    certificate = make_certificate(tmp_path)
    brain = ScriptBrain([Say("It is on its way.")])
    with speak_tls(own.port, certificate) as port, ModelServer(brain) as model:
        base = f"rediss://localhost:{port}/0"
        assert "not trusted" in str(refusal(base))
        assert "there is no file" in str(refusal(f"{base}?ssl_ca_certs={tmp_path}/none.pem"))
        await_servers(Settings(redis_url=f"{base}?ssl_ca_certs={tmp_path}/cert.pem"), patience_s=0.0)
        log = tmp_path / "worker.log"
        url = f"{base}?ssl_cert_reqs=CERT_NONE"
        with log.open("wb") as writing:
            worker = subprocess.Popen(
                [sys.executable, "-m", "midwatch.workers.cli", "worker", "--queues", "model", "--concurrency", "4"],
                env=environment(model, MIDWATCH_REDIS_URL=url, MIDWATCH_PREFIX="tls"),
                stdout=writing,
                stderr=subprocess.STDOUT,
            )
        try:
            client = make_client(Settings(redis_url=url, prefix="tls"))
            handles = [client.enqueue("plain", "Where is it?") for _ in range(4)]
            assert {handle.result(PATIENCE_S).output for handle in handles} == {"It is on its way."}
            assert ".broke" not in log.read_text()
            client.store.client.close()
        finally:
            worker.terminate()
            worker.wait(PATIENCE_S)


def test_a_worker_that_can_not_work_ends_before_it_is_ready(own: EmbeddedServer) -> None:
    """A refused login and missing credentials end the process with 2 and one line that names the setting."""
    for wrong, said in (
        ({"MIDWATCH_REDIS_URL": of_user(own, "nobody")}, "MIDWATCH_REDIS_URL"),
        ({"MIDWATCH_REDIS_URL": own.url, "ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": ""}, "ANTHROPIC_API_KEY"),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "midwatch.workers.cli", "worker", "--queues", "model"],
            env=environment(None, **wrong),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ran.returncode == 2, ran.stderr
        last = ran.stderr.splitlines()[-1]
        assert last.startswith("midwatch: ")
        assert said in last
        assert " ready." not in ran.stderr
        assert ":pw@" not in ran.stderr


def environment(model: ModelServer | None, **more: str) -> dict[str, str]:
    """Return the environment of a worker."""
    agents = {"MIDWATCH_AGENTS": "tests.functional.fleet_agents:plain", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **agents, "MIDWATCH_EVENTS": "false", **(model.environment() if model else {}), **more}
