"""A producer is often a web application with its own Celery app. Midwatch changes nothing in its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
WEB, OTHER = 11, 12
"""Databases of the server: the web application's broker, and the fleet's broker if it is not the state's server."""


@pytest.mark.parametrize("way", ["hand-off", "no hand-off", "another broker"])
def test_a_producers_process_is_the_same_after_an_enqueue(
    way: str, server: EmbeddedServer, prefix: str, connect_redis: Any
) -> None:
    """kombu, Celery, logging, warnings, signals, hooks and paths are as before: after the import, the enqueue and the run.

    The other application's environment (CELERY_BROKER_URL, DJANGO_SETTINGS_MODULE) does not lead our messages to its broker.
    """
    base = server.url.rpartition("/")[0]
    own = {
        "hand-off": {},
        "no hand-off": {"MIDWATCH_HAND_OFF": "false"},
        "another broker": {"MIDWATCH_BROKER_URL": f"{base}/{OTHER}"},
    }[way]
    web = {
        "WEB_BROKER": f"{base}/{WEB}",
        "CELERY_BROKER_URL": f"{base}/{WEB}",
        "CELERY_RESULT_BACKEND": f"{base}/{WEB}",
        "DJANGO_SETTINGS_MODULE": "json",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.functional.producer_snapshot"],
        env={**os.environ, **web, **own},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["changed"] == {}
    theirs = connect_redis(f"{base}/{WEB}")
    assert theirs.llen("celery") == 2
    assert not list(theirs.scan_iter(f"{prefix}*"))
    theirs.flushdb()
    if way == "another broker":
        connect_redis(f"{base}/{OTHER}").flushdb()
