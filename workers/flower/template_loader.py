"""Load templates from this package first, then from Flower, and add the tabs to Flower's navigation."""

from __future__ import annotations

from pathlib import Path

import structlog
from tornado.template import Loader, Template

log = structlog.get_logger("midwatch.flower")

OURS = Path(__file__).parent / "templates"

ORIGINAL = "flower:"
"""Prefix for Flower's templates. `flower:task.html` is Flower's file, so the file of the same name here can extend it."""

TABS = b'{% module Template("tabs.html", active_tab=active_tab) %}'


class PageLoader(Loader):
    """Finds templates by name in two flat folders."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name unchanged, because the folders have no subfolders."""
        return name

    def _create_template(self, name: str) -> Template:
        ours = OURS / name
        path = ours if ours.exists() else Path(self.root) / name.removeprefix(ORIGINAL)
        source = path.read_bytes()
        return Template(with_tabs(source) if name == "navbar.html" else source, name=name, loader=self)


def with_tabs(navbar: bytes) -> bytes:
    """Return Flower's navigation with the tabs added to its first list.

    The installed file is changed while it is read. A copy would miss changes in newer versions of Flower.
    """
    head, end, rest = navbar.partition(b"</ul>")
    if not end:
        log.warning("flower.no_tabs", hint="this Flower's navbar.html has no list; open /jobs and /dead-letters by URL")
        return navbar
    return head + TABS + end + rest
