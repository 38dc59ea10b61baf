"""Fixtures with Chromium, Flower and jobs.

Without Chromium these tests are skipped. With CI and MIDWATCH_REQUIRE_BROWSER set they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.browser.stage import Site, Stage, flower

NAMES = ("chromium", "chromium-browser", "google-chrome")

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's own Chromium. Nothing is downloaded."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = f"no Chromium on the PATH (one of {', '.join(NAMES)}); on Debian: apt-get install chromium"
        if os.environ.get("CI") and os.environ.get("MIDWATCH_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new window. An error in a script of any page fails the test."""
    errors: list[str] = []
    with chromium.new_context(viewport={"width": 1360, "height": 800}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(15_000)
        yield page
    assert errors == []


@pytest.fixture
def stage(server: EmbeddedServer, prefix: str) -> Iterator[Stage]:
    """A stage with jobs that the test moves step by step."""
    with Stage(server.url, prefix) as made:
        yield made


@pytest.fixture
def site(chromium: Browser, prefix: str) -> Iterator[Site]:
    """Flower on loopback without a login."""
    with flower({**os.environ, "MIDWATCH_EVENTS": "false"}) as started:
        yield started
