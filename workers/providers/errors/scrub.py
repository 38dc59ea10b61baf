"""Makes a provider's error message safe for logs and dead letters: short, without keys and without the conversation.

Vendors quote keys, some of them masked. Some servers quote a request that they could not validate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.schemas.message import AssistantMessage, ToolCall, ToolMessage
from midwatch.schemas.model import ModelRequest

MAX_DETAIL_CHARS = 300
"""Longest detail of a failure. It is stored with every attempt and shown in a table."""

ECHO_CHARS = 20
"""If this many consecutive characters also occur in the request, they count as a quotation from it."""

_READ_CHARS = 4_000
"""How much of a message is read. It is more than a detail's length, so that no key is cut in half before the search."""

_KEY_LIKE = re.compile(
    r"""
      \b(?:sk|rk|pk)-[\w*.-]{6,}                                      # OpenAI, Anthropic, Stripe; masked or not
    | \b(?:AIza|AQ\.|ya29\.|gsk_|xai-|hf_|ghp_|xox[abp]-)[\w*.-]{8,}  # Google, Groq, xAI, Hugging Face, GitHub, Slack
    | \beyJ[\w-]{8,}\.[\w.-]*                                         # JSON Web Tokens
    | (?i:\b(?:bearer|basic)\s+)[\w.+/=~*-]{6,}
    | (?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}              # any long mix of letters and digits
    """,
    re.VERBOSE,
)


def scrub(text: str, *, secrets: Iterable[str] = (), request_text: str = "", prefix: str = "") -> str:
    """Return at most 300 characters of `text`, without secrets, key-like words and quotations from the request.

    `prefix` is put in front. The prefix comes from headers and may hold long ids, so only secrets are removed from it.
    """
    prefix = _remove_secrets(prefix, secrets)[: MAX_DETAIL_CHARS - 40]
    text = _remove_secrets(text[:_READ_CHARS], secrets)
    text = _KEY_LIKE.sub("[key]", hide_passwords(text))
    text = "".join(char if char.isprintable() else " " for char in text)
    text = _remove_quotations(" ".join(text.split())[: 3 * MAX_DETAIL_CHARS], " ".join(request_text.split()))
    text = prefix + text
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"


def collect_request_text(request: ModelRequest) -> str:
    """Join all text of a request that an error may not quote: prompt, messages, arguments and results."""
    texts = [request.system]
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            texts.append(message.text)
            texts.extend(part.raw_arguments for part in message.parts if isinstance(part, ToolCall))
        else:
            texts.append(message.content if isinstance(message, ToolMessage) else message.text)
    return "\n".join(texts)


def _remove_secrets(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return text


def _remove_quotations(text: str, request_text: str) -> str:
    """Replace every run of ECHO_CHARS or more characters that also occurs in the request."""
    # A quick check first: every such run contains a whole aligned block of half its length. If no block of `text`
    # occurs in the request, there is no such run.
    half = ECHO_CHARS // 2
    if not any(text[start : start + half] in request_text for start in range(0, len(text) - half + 1, half)):
        return text
    kept: list[str] = []
    start = 0
    while start < len(text):
        end = start + ECHO_CHARS
        if end > len(text) or text[start:end] not in request_text:
            kept.append(text[start])
            start += 1
            continue
        while end < len(text) and text[start : end + 1] in request_text:
            end += 1
        kept.append("[…]")
        start = end
    return "".join(kept)
