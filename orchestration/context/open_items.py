"""Open items: what was asked or begun in groups that leave the window, and not finished there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from midwatch.orchestration.context.decisions import MAX_SENTENCE_CHARS, sentences
from midwatch.orchestration.context.scan import clean
from midwatch.orchestration.context.taint import mark_untrusted
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage

MAX_ITEMS = 20
"""Most open items. The newest stay."""

_UNCHECKED = re.compile(r"^[ \t]{0,8}[-*] \[ \] ([^\n]{1,400})", re.MULTILINE)


def open_items(before: Sequence[str], messages: Sequence[Message]) -> list[str]:
    """The open items after `messages`. Items that repeat a tool's words are marked.

    A final answer (an assistant turn without calls) closes everything that the user asked before it. A question in it opens a
    new item.
    """
    items = list(before)
    for message in messages:
        if isinstance(message, UserMessage) and (text := clean(message.text[:MAX_SENTENCE_CHARS])):
            items.append(f"The user asked: {text}")
        elif isinstance(message, AssistantMessage):
            if not message.tool_calls and message.text.strip():
                items = [f"You asked: {one}" for one in sentences(message.text[-1_000:]) if one.endswith(("?", "？"))]
            items += [
                f"You planned: {clean(one[:MAX_SENTENCE_CHARS])}" for one in _UNCHECKED.findall(message.text[:20_000])
            ]
    items += _without_result(messages)
    return mark_untrusted(list(dict.fromkeys(items))[-MAX_ITEMS:], messages)


def _without_result(messages: Sequence[Message]) -> list[str]:
    """Calls without a result: they were made, but a crash lost the result."""
    answered = {(message.group, message.ordinal) for message in messages if isinstance(message, ToolMessage)}
    return [
        f"Group {message.group} called {call.name}; the result is not known"
        for message in messages
        if isinstance(message, AssistantMessage)
        for ordinal, call in enumerate(message.tool_calls)
        if (message.group, ordinal) not in answered
    ]
