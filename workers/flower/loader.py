"""Templates: ours first, Flower's where we have none, and our tabs in Flower's navigation."""

from __future__ import annotations

from pathlib import Path

import structlog
from tornado.template import Loader, Template

log = structlog.get_logger("midwatch.flower")

OURS = Path(__file__).parent / "templates"

ORIGINAL = "flower:"
"""`flower:task.html` is Flower's own file where ours has the same name: so that ours can extend it."""

TABS = b'{% module Template("tabs.html", active_tab=active_tab) %}'


class PageLoader(Loader):
    """Both folders are flat, so a name is a name wherever it is used."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """As it is."""
        return name

    def _create_template(self, name: str) -> Template:
        ours = OURS / name
        path = ours if ours.exists() else Path(self.root) / name.removeprefix(ORIGINAL)
        source = path.read_bytes()
        return Template(with_tabs(source) if name == "navbar.html" else source, name=name, loader=self)


def with_tabs(navbar: bytes) -> bytes:
    """Flower's navigation with our tabs at the end of its first list.

    It is changed as it is read, not copied: its theme switch and its logout stay those of the Flower that is installed.
    """
    head, end, rest = navbar.partition(b"</ul>")
    if not end:
        log.warning(
            "flower.no_tabs", hint="this Flower's navbar.html has no list; open /jobs and /dead-letters by address"
        )
        return navbar
    return head + TABS + end + rest
