"""Ids of tool calls. An id that the vendor would refuse is replaced by a unique one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from midwatch.schemas.message import AssistantMessage


def _spell_out(group: int, ordinal: int, again: int) -> str:
    return f"call_{group}_{ordinal}" if again == 1 else f"call_{group}_{ordinal}_{again}"


def _shorten(group: int, ordinal: int, again: int) -> str:
    return hashlib.sha256(f"{group}.{ordinal}.{again}".encode()).hexdigest()[:9]


@dataclass(frozen=True)
class IdRule:
    """The ids that a vendor accepts."""

    own: re.Pattern[str]
    """Ids of calls that its own models made."""
    foreign: re.Pattern[str]
    """Ids of other vendors' calls."""
    make: Callable[[int, int, int], str] = _spell_out
    """Makes an id from group, ordinal and the number of the attempt, which begins with 1."""


_PORTABLE = re.compile(r"[A-Za-z0-9_-]{1,40}")
_PRINTABLE = re.compile(r"[!-~]{1,64}")

OPENAI_IDS = IdRule(own=_PRINTABLE, foreign=_PORTABLE)
"""OpenAI's Responses API takes at most 64 characters (SDK: `call_id` of `ResponseFunctionToolCallParam`)."""

ANTHROPIC_IDS = IdRule(own=re.compile(r"[A-Za-z0-9_-]{1,64}"), foreign=_PORTABLE)
"""Anthropic refuses other characters, also in ids that a gateway let another vendor's model make."""

CHAT_IDS = IdRule(own=_PRINTABLE, foreign=re.compile(r"[A-Za-z0-9]{9}"), make=_shorten)
"""Mistral takes only nine letters and digits, also where vLLM serves its models (langchain-ai/langchain#24668). All other
servers accept such ids, too."""


def choose_call_ids(message: AssistantMessage, rule: IdRule, taken: set[str], *, is_own: bool) -> tuple[str, ...]:
    """Choose an id for each call of a turn, and add it to `taken`. The same history always gives the same ids."""
    ids = []
    for ordinal, call in enumerate(message.tool_calls):
        accepted = rule.own if is_own else rule.foreign
        call_id = call.id if accepted.fullmatch(call.id) else rule.make(message.group, ordinal, 1)
        # Group numbers are unique in a session. Only a hand-written history can repeat one.
        for again in range(1, len(taken) + 3):
            if call_id not in taken:
                break
            call_id = rule.make(message.group, ordinal, again)
        taken.add(call_id)
        ids.append(call_id)
    return tuple(ids)
