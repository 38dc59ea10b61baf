"""Read a tool's description from a docstring: the first paragraph, and what it says about each parameter.

The parameters are read by `docstring_parser`, which the `anthropic` SDK brings along. It knows the styles of Google, NumPy,
Sphinx and Epytext (decision 26).
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(
    r"(Args|Arguments|Params|Parameters|Keyword Args|Returns|Yields|Raises|Note|Notes|Examples?):\s*$"
)
_FIELD = re.compile(r"[:@](param|parameter|arg|argument|key|keyword|type|return|returns|rtype|raise|raises)\b")
_UNDERLINE = re.compile(r"-{3,}\s*$")
_PARAMETERS = re.compile(
    r"(?m)^\s*(?:(?:Args|Arguments|Params|Parameters|Keyword Args):?\s*$|[:@](?:param|arg|key)\w*\b)"
)


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring that describe a tool."""

    summary: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Docstring:
    """Parse a docstring. What can't be read is ignored, and is never an error."""
    clean = inspect.cleandoc(text or "")
    return Docstring(_read_summary(clean.splitlines()), _read_parameters(clean))


def _read_summary(lines: list[str]) -> str:
    """The first paragraph, up to an empty line or the first section."""
    summary: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        if not line.strip() or _SECTION.match(line) or _FIELD.match(line) or _UNDERLINE.match(after):
            break
        summary.append(line.strip())
    return " ".join(summary)


def _read_parameters(text: str) -> dict[str, str]:
    if not _PARAMETERS.search(text):
        return {}
    import docstring_parser  # only tools with described parameters need it

    try:
        found = docstring_parser.parse(
            f"_\n\n{text}"
        ).params  # without a first line, a section is taken for the summary
    except Exception:  # a docstring of another form describes no parameters
        return {}
    described: dict[str, str] = {}
    for one in found:
        words = " ".join((one.description or "").split())
        if words:
            described |= {name.strip().lstrip("*"): words for name in one.arg_name.split(",")}
    return described
