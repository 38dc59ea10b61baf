"""Calls in texts, tested on recorded sessions: no real answer counts as a call, and each call written as text is found.

A third of the sessions, chosen by a hash, was not looked at while the detector was written. These sessions are counted
separately.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from midwatch.orchestration.drift.leftovers.calls_in_text import holds_call
from midwatch.orchestration.drift.leftovers.thinking import is_only_thinking, separate_thinking
from midwatch.orchestration.tools.toolbox import Toolbox
from midwatch.validators import JSONSchemaValidator

ANY = JSONSchemaValidator({"type": "object", "properties": {}})

FORMATS = (
    '<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>',
    'I will do that now.\n<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>',
    '<tool_call>{{"name": "{name}", "arguments": {arguments}',
    "<function={name}>{arguments}</function>",
    '[TOOL_CALLS] [{{"name": "{name}", "arguments": {arguments}}}]',
    "[TOOL_CALLS]{name}[ARGS]{arguments}",
    '<|python_tag|>{{"name": "{name}", "parameters": {arguments}}}',
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0<|tool_call_argument_begin|>{arguments}<|tool_call_end|>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>",
    '{{"name": "{name}", "parameters": {arguments}}}',
    '```json\n{{"name": "{name}", "arguments": {arguments}}}\n```',
    'Now I look.\n{{"name": "{name}", "arguments": {arguments}}}',
)


class FewTools:
    """The tools of a session as a toolbox, with a schema that accepts everything."""

    def __init__(self, names: set[str]) -> None:
        self.specs = tuple(_Named(name) for name in sorted(names))
        self._by_name = {one.name: one for one in self.specs}

    def get(self, name: str) -> _Named | None:
        return self._by_name.get(name)


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name
        self.validator = ANY


def sessions(folder: Path) -> Iterator[tuple[bool, list[dict[str, Any]]]]:
    """(held out, messages) of each recorded session."""
    for file in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                digest = hashlib.sha256(f"{file.parent.name}/{file.name}{number}".encode()).hexdigest()
                yield int(digest, 16) % 3 == 0, row.get("messages") or row.get("history") or []


def calls_of(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            arguments = function["arguments"]
            yield function["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)


def answers_of(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        text = message.get("content")
        is_models = message.get("role") not in ("user", "human", "system", "tool")
        if is_models and isinstance(text, str) and not message.get("tool_calls"):
            yield text


@pytest.mark.parametrize("held_out", [False, True])
def test_no_recorded_answer_is_taken_for_a_call_or_thinking(data_dir: Path, held_out: bool) -> None:
    """Some 1,700 texts of real models, many of them about code and tools: none is refused, none is shortened."""
    seen = 0
    for held, messages in sessions(data_dir):
        box = cast("Toolbox", FewTools({name for name, _ in calls_of(messages)}))
        for text in answers_of(messages) if held == held_out else ():
            seen += 1
            assert not holds_call(text, box)
            assert separate_thinking(text).answer == text
            assert not is_only_thinking(text)
    assert seen > 350


@pytest.mark.parametrize("held_out", [False, True])
def test_recorded_calls_are_found_as_text(data_dir: Path, held_out: bool) -> None:
    """Real calls with their real arguments, written in the formats of several models, are found."""
    seen = 0
    for held, messages in sessions(data_dir):
        found = {name: arguments for name, arguments in calls_of(messages) if arguments.startswith("{")}
        box = cast("Toolbox", FewTools(set(found)))
        for name, arguments in found.items() if held == held_out else ():
            for form in FORMATS:
                seen += 1
                text = form.format(name=name, arguments=arguments)
                assert holds_call(text, box) or not _is_json(arguments)
    assert seen > 1_000


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
