"""Find a tool call that was left in the text of an answer.

A text that only speaks of such calls is an honest answer. So a mark counts only where a call follows it, and code, quotations and
inline code do not count, unless they are the whole answer. A call of a tool that is not offered counts at the beginning of the
text, or at its end.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

from midwatch.orchestration.drift.leftovers.bare_calls import MAX_CHARS, is_bare_call, is_json
from midwatch.orchestration.drift.leftovers.markers import (
    SPECIAL,
    TAGS,
    compile_names,
    compile_react,
    is_call_at,
    names_tool_at,
)
from midwatch.orchestration.tools.toolbox import Toolbox

_FENCE = re.compile(
    r"^ {0,3}(`{3,20}+|~{3,20}+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_TICKS = re.compile(r"`+")
_QUOTATION = re.compile(r"^ {0,3}>[^\n]*$", re.MULTILINE)

CALL_LANGUAGES = frozenset({"tool_code", "tool_call", "tool_calls", "tool", "function_call", "tool_use"})
"""Languages of a code block in which Gemma and others write calls."""

MAX_MARKS = 300
"""The number of marks of one kind that are examined in a text. Further marks are ignored."""

LOOK_AHEAD = 20
"""The closing run of backticks is searched among this number of runs."""

MAX_LEAD_CHARS = 300
"""Longest paragraph in front of a code block that is a call. A model that goes on to call a tool says one sentence first."""

_OPEN_END = re.compile(r"(?:</[^>\n]{1,60}>|<[|｜][^>\n]{1,60}>|[\s}\])\"'])*\Z")


class _Block(NamedTuple):
    """A code block."""

    language: str
    text: str
    is_example: bool
    """Is there more than one short paragraph in front of it? Then it belongs to an explanation."""


def holds_call(text: str, toolbox: Toolbox) -> bool:
    """Was a tool call left in this text?"""
    text = text.strip()
    if len(text) > MAX_CHARS:  # a call that was left is at the beginning or at the end
        text = f"{text[: MAX_CHARS // 2]}\n{text[-MAX_CHARS // 2 :]}"
    if is_bare_call(text, toolbox):
        return True
    if is_json(text):
        return False  # an answer in JSON; its texts may hold anything
    names = [spec.name for spec in toolbox.specs]
    places = compile_names(names)
    *_, last = (None, *_FENCE.finditer(text))
    if last is not None and not text[last.end() :].strip():
        lead = text[: last.start()].strip()
        block = _Block(last[2].lower(), last[3], is_example="\n\n" in lead or len(lead) > MAX_LEAD_CHARS)
        if _is_call_block(block, toolbox, places):
            return True
    prose = _QUOTATION.sub(_blank, _blank_inline_code(_FENCE.sub(_blank, text)))
    if compile_react(names).search(prose) or _is_marked(prose, toolbox, places):
        return True
    return _ends_with_bare_call(prose, toolbox)


def _is_call_block(block: _Block, toolbox: Toolbox, names: re.Pattern[str]) -> bool:
    """Is the last code block a call of an offered tool? In an explanation it is an example, unless its language says otherwise.

    Of 1,620 recorded answers, 12 end with a code block, and none with a call. So a short text and a call count as a call:
    delivered as an answer, it would be wrong without a sign. An answer that is refused by mistake costs one more call.
    """
    if block.language in CALL_LANGUAGES:
        return names.search(block.text) is not None
    if block.is_example:
        return False
    inside = block.text.lstrip()
    marked = SPECIAL.match(inside) or TAGS.match(inside)
    return is_bare_call(inside, toolbox) or (marked is not None and names_tool_at(inside, marked.end(), names))


def _is_marked(prose: str, toolbox: Toolbox, names: re.Pattern[str]) -> bool:
    for pattern in (SPECIAL, TAGS):
        for mark in islice(pattern.finditer(prose), MAX_MARKS):
            if not is_call_at(prose, mark.end()):
                continue
            if names_tool_at(prose, mark.start(), names):
                return True
            if _is_plain_xml(mark[0]):
                continue
            # An invented tool, or one that is not offered here.
            if not prose[: mark.start()].strip():
                return True
            if toolbox.specs and _is_rest_a_call(prose, mark.end()):
                return True
    return False


def _is_plain_xml(mark: str) -> bool:
    """`<invoke name=` and `<function name=` are also tags of other documents."""
    return mark.startswith("<") and mark.endswith("=") and "name" in mark


def _is_rest_a_call(prose: str, end: int) -> bool:
    """Does the text end with the call? Its arguments are JSON or tags, and no sentence follows."""
    rest = prose[end:]
    closed = max(rest.rfind("}"), rest.rfind("]"), rest.rfind("</"), rest.rfind("<|"), rest.rfind("<｜"))
    if closed < 0:
        return not rest.strip()
    return _OPEN_END.match(rest, closed) is not None


def _ends_with_bare_call(prose: str, toolbox: Toolbox) -> bool:
    """Is the last paragraph, or all from a line that begins with a bracket, a bare call?"""
    places = [found.start(1) for found in islice(re.finditer(r"(?:^|\n)[ \t]*([{\[])", prose), 20)]
    places.append(max(prose.rstrip().rfind("\n\n"), 0))
    return any(is_bare_call(prose[place:], toolbox) for place in places)


def _blank_inline_code(text: str) -> str:
    """Replace inline code by blanks: what is between two runs of as many backticks in one line."""
    runs = [(found.start(), found.end()) for found in _TICKS.finditer(text)]
    pieces: list[str] = []
    place = done = 0
    while place < len(runs):
        start, end = runs[place]
        for other in range(place + 1, min(place + LOOK_AHEAD, len(runs))):
            closing = runs[other]
            if closing[1] - closing[0] == end - start and "\n" not in text[end : closing[0]]:
                pieces += [text[done:start], " " * (closing[1] - start)]
                done, place = closing[1], other
                break
        place += 1
    return "".join([*pieces, text[done:]])


def _blank(found: re.Match[str]) -> str:
    """Replace by blanks, so that places stay the same. A line break stays one."""
    return re.sub(r"[^\n]", " ", found[0])
