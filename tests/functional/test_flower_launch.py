"""How Flower starts and ends: the options that it refuses, and the signals that end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.browser.stage import RUN, flower
from tests.patience import PATIENCE_S


@pytest.fixture
def env(server: EmbeddedServer, prefix: str) -> dict[str, str]:
    """The environment of a separate fleet."""
    return {**os.environ, "MIDWATCH_EVENTS": "false"}


def refusal(env: dict[str, str], *arguments: str) -> str:
    """Return Flower's message when it does not start."""
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert "ConfigError" in ended.stderr
    return ended.stderr


def test_the_network_needs_a_login(env):
    """Any address except loopback is refused without a login. The message names the alternatives."""
    for address in ("0.0.0.0", "", "::"):
        said = refusal(env, address)
        assert "--basic_auth" in said
        assert "--unprotected" in said


def test_unprotected_lets_a_proxy_do_the_login(env):
    """With `--unprotected` Flower serves without a login, and answers under other host names too."""
    with flower(env, "--unprotected", address="0.0.0.0") as site:
        local = site.url.replace("0.0.0.0", "127.0.0.1")
        site.url = local
        assert site.get("/jobs", {"Host": "flower.example"}).code == 200


def test_a_misspelt_option_is_refused(env):
    """Flower itself would ignore `--basic-aut` and serve without a login."""
    assert "did you mean --basic_auth?" in refusal(env, "127.0.0.1", "--basic_aut=a:b")
    assert "expected --NAME=VALUE" in refusal(env, "127.0.0.1", "read_only")


def test_a_taken_port_is_reported(env):
    """The message names the port and says what to do."""
    with flower(env) as site:
        port = site.url.rpartition(":")[2]
        said = refusal(env, "127.0.0.1", f"--port={port}")
    assert f"port {port} of 127.0.0.1" in said
    assert "give another --port" in said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_itself_after_a_signal(env, how):
    """The exit code is 0, within seconds."""
    with flower(env) as site:
        site.get("/jobs")
        site.process.send_signal(how)
        assert site.process.wait(timeout=PATIENCE_S) == 0


def test_it_ends_even_if_the_server_is_down(env):
    """A thread that still tries to reach the broker does not keep the process alive."""
    with EmbeddedServer(append_only=None) as own, flower({**env, "MIDWATCH_REDIS_URL": own.url}) as site:
        own.kill()
        site.get("/jobs")
        site.process.terminate()
        assert site.process.wait(timeout=PATIENCE_S) == 0
