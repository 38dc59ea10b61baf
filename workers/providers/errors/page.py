"""Reads a body that is no JSON: the title of a web page, its visible text, and the id that it shows.

A load balancer, a firewall, a proxy or a login page answers with such a body. A vendor's API never does.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from html.parser import HTMLParser

READ_CHARS = 20_000
"""How much of a page is read. Its title and its first words are at the beginning."""

_HIDDEN = frozenset({"script", "style", "noscript", "svg", "head"})

_PAGE_START = re.compile(r"<(?:!doctype|!--|\?xml|html|head|body|center|h1|title)")
"""How a web page begins."""

_PART_START = re.compile(r"<(?:div|p|h[2-6]|meta|link|script|style|noscript|iframe|table)\b")
"""How a part of a page begins, as some proxies and portals send it. With status 200 it may also be a model's answer."""

_SHOWN_ID = re.compile(
    r"\b(ray id|reference|request id|incident id|support id|error id)\b[\s:#]*([\w.-]{6,80})", re.IGNORECASE
)
"""The id that a page shows for support requests: Cloudflare, Akamai, CloudFront, Imperva, F5."""


@dataclass(frozen=True)
class Page:
    """What a page says. Each field may be empty."""

    is_html: bool
    title: str
    words: str
    """The visible text of a web page, or the whole of a plain text."""
    shown_id: str
    """The id in the text, with its name: `Ray ID 8d49989abc171ce8`."""


def read_page(text: str) -> Page:
    """Read a body that is no JSON."""
    text = text[:READ_CHARS]
    start = text.lstrip().lower()
    is_html = _PAGE_START.match(start) is not None
    if not is_html and _PART_START.match(start) is None:
        return Page(False, "", _squeeze(text), _find_id(text))
    reader = _Reader()
    with contextlib.suppress(AssertionError):  # the standard parser raises it for a broken `<![...]>`
        reader.feed(text)
        reader.close()
    words = _squeeze(" ".join(reader.words))
    return Page(is_html, _squeeze("".join(reader.title))[:80], words, _find_id(words))


class _Reader(HTMLParser):
    """Collects the title and the visible text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.words: list[str] = []
        self._in_title = False
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        self._hidden += tag in _HIDDEN

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in _HIDDEN and self._hidden:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            self.words.append(data)


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _find_id(text: str) -> str:
    found = _SHOWN_ID.search(text)
    return f"{found[1]} {found[2]}" if found and any(char.isdigit() for char in found[2]) else ""
