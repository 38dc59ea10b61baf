"""Count the tokens of a request with a real tokenizer, which is independent of the fleet's estimator.

Everything that is sent is counted: the text of every message, the names, arguments and ids of calls, the tools as compact
JSON, and the framing of a chat format around each of them.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Opaque, Part, Text, ToolMessage
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.tools import ToolSpec

FRAME_TOKENS = 4
"""Tokens around each message, tool and call: role and delimiters (3 and a role in OpenAI's published counting recipe)."""

PIECE_CHARS = 50_000
"""Text is tokenized in pieces of this size. The library refuses more than 200,000 tokens, and a character is at most four."""

BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens. `name` names the tokenizer."""

    name: str
    exact: bool
    text: Callable[[str], int]
    """Tokens of a text."""

    def request(self, request: ModelRequest) -> int:
        """Count the input tokens of one call."""
        return self.fixed(request.system, request.tools) + self.messages(request.messages)

    def fixed(self, system: str, tools: Iterable[ToolSpec]) -> int:
        """Count the system prompt and the tools, which every call begins with."""
        tokens = FRAME_TOKENS + self.text(system)
        return tokens + sum(FRAME_TOKENS + self.text(canonical_json(tool.model_dump(mode="json"))) for tool in tools)

    def messages(self, messages: Iterable[Message]) -> int:
        """Count the conversation."""
        return sum(map(self.message, messages))

    def message(self, message: Message) -> int:
        """Count one message as it is sent, with ids and marks."""
        if isinstance(message, ToolMessage):
            mark = "ERROR: " if message.is_error else ""
            return FRAME_TOKENS + self.text(message.call_id) + self.text(mark + message.content)
        if not isinstance(message, AssistantMessage):
            text = f"<reminder>{message.text}</reminder>" if isinstance(message, NoteMessage) else message.text
            return FRAME_TOKENS + self.text(text)
        return FRAME_TOKENS + self.parts(message.parts)

    def parts(self, parts: Iterable[Part]) -> int:
        """Count the parts of one model turn."""
        tokens = 0
        for part in parts:
            if isinstance(part, Text):
                tokens += self.text(part.text)
            elif isinstance(part, Opaque):
                tokens += self.text(canonical_json(part.raw))
            else:
                tokens += FRAME_TOKENS + sum(map(self.text, (part.id, part.name, part.raw_arguments)))
        return tokens


@functools.cache
def token_counter() -> TokenCounter:
    """Return a counter with o200k if its tokenizer is installed (without a download), else by bytes."""
    if importlib.util.find_spec("bpe_openai") is None:
        return by_bytes()
    with warnings.catch_warnings():  # it uses a function that is deprecated in Python 3.11 and 3.12
        warnings.simplefilter("ignore", DeprecationWarning)
        import bpe_openai

        encode = bpe_openai.get_encoding("o200k_base").encode_ordinary

    @functools.lru_cache(maxsize=8_192)  # a window mostly repeats the previous window
    def tokens(text: str) -> int:
        whole = text.encode(errors="replace").decode()
        return sum(len(encode(whole[at : at + PIECE_CHARS])) for at in range(0, len(whole), PIECE_CHARS))

    return TokenCounter("o200k_base", True, tokens)


def by_bytes() -> TokenCounter:
    """Return a counter with four bytes per token, for use without a tokenizer. It undercounts JSON by a third (measured)."""
    name = "bytes/4: no tokenizer is installed (pip install 'midwatch[bench]')"
    return TokenCounter(name, False, lambda text: math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN))
