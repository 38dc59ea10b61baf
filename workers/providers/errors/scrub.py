"""What a provider says about an error, made fit for logs and dead letters: short, without keys, without the transcript.

Vendors quote keys (masked ones, too) and some servers quote the request they could not validate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from midwatch.schemas.message import AssistantMessage, ToolCall, ToolMessage
from midwatch.schemas.model import ModelRequest

MAX_DETAIL_CHARS = 300
"""Longest detail of a failure: it is stored with every attempt and shown in a table."""

ECHO_CHARS = 20
"""A run of this many characters that also occurs in what was sent is taken for a quotation of it."""

_READ_CHARS = 4_000
"""How much of a message is looked at; more than the detail, so that cutting can't leave half a key behind."""

_KEY_LIKE = re.compile(
    r"""
      \b(?:sk|rk|pk)-[\w*.-]{6,}                                      # OpenAI, Anthropic, Stripe; masked or not
    | \b(?:AIza|AQ\.|ya29\.|gsk_|xai-|hf_|ghp_|xox[abp]-)[\w*.-]{8,}  # Google, Groq, xAI, Hugging Face, GitHub, Slack
    | \beyJ[\w-]{8,}\.[\w.-]*                                         # JSON Web Tokens
    | (?i:\b(?:bearer|basic)\s+)[\w.+/=~*-]{6,}
    | (?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}              # long and mixed: nothing a person needs to read
    """,
    re.VERBOSE,
)


def scrub(text: str, *, secrets: Iterable[str] = (), said: str = "") -> str:
    """At most 300 characters of `text`; secrets, whatever looks like a key, and quotations of `said` are cut out."""
    text = text[:_READ_CHARS]
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    text = _KEY_LIKE.sub("[key]", text)
    text = "".join(char if char.isprintable() else " " for char in text)
    text = _without_echo(" ".join(text.split())[: 3 * MAX_DETAIL_CHARS], " ".join(said.split()))
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"


def said_in(request: ModelRequest) -> str:
    """All text of a request that may not be quoted in an error: prompt, messages, arguments, results."""
    texts = [request.system]
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            texts.append(message.text)
            texts.extend(part.raw_arguments for part in message.parts if isinstance(part, ToolCall))
        else:
            texts.append(message.content if isinstance(message, ToolMessage) else message.text)
    return "\n".join(texts)


def _without_echo(text: str, said: str) -> str:
    """`text` with every run of ECHO_CHARS or more that also occurs in `said` replaced."""
    # Such a run holds a whole block of half its length: without a known block there is none, and that is quick to see.
    half = ECHO_CHARS // 2
    if not any(text[start : start + half] in said for start in range(0, len(text) - half + 1, half)):
        return text
    kept: list[str] = []
    start = 0
    while start < len(text):
        end = start + ECHO_CHARS
        if end > len(text) or text[start:end] not in said:
            kept.append(text[start])
            start += 1
            continue
        while end < len(text) and text[start : end + 1] in said:
            end += 1
        kept.append("[…]")
        start = end
    return "".join(kept)
