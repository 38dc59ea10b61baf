"""Read a tool's description from a docstring: the first paragraph, and the `Args:` section (Google style)."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Args|Arguments|Parameters):\s*$")
_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?:\s*(?P<text>.*)")


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring that describe a tool."""

    summary: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Docstring:
    """Parse a docstring. Anything but a Google style `Args:` section is ignored, and is never an error."""
    lines = inspect.cleandoc(text or "").splitlines()
    summary: list[str] = []
    for line in lines:
        if not line.strip() or _SECTION.match(line):
            break
        summary.append(line.strip())
    start = next((place for place, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    return Docstring(" ".join(summary), _entries(lines[start + 1 :]))


def _entries(lines: list[str]) -> dict[str, str]:
    """Split the lines into entries, by indentation: a deeper line continues its entry, a shallower one is the end."""
    found: dict[str, list[str]] = {}
    indent, current = 0, ""
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        if depth < indent or not depth:
            break
        entry = _ENTRY.match(line.strip()) if depth == indent else None
        if entry:
            current = entry["name"]
            found[current] = [entry["text"]]
        elif current:
            found[current].append(line.strip())
    return {name: " ".join(words).strip() for name, words in found.items() if any(words)}
