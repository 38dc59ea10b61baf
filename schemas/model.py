"""One model call: the request, the reply, and the tokens it used."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from midwatch.schemas.contract import Contract, JsonObject, Record
from midwatch.schemas.message import Message, Part, Text, ToolCall
from midwatch.schemas.tools import ToolSpec


class Stop(StrEnum):
    """Why the model stopped, in the same words for all providers. Tool calls run only after TOOLS."""

    END = "end"
    TOOLS = "tools"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    REFUSAL = "refusal"
    PAUSE = "pause"
    UNKNOWN = "unknown"


TokenCount = Literal["input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"]
"""The name of a count of `Usage`."""


class Usage(Record):
    """Tokens of one or more calls. `input_tokens` includes the cached ones."""

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    reported: bool = True
    """False if the provider sent no usage, so that these figures are not the provider's."""
    impossible: TokenCount | None = None
    """The count that can't be true, if the provider sent one. Then `reported` is False. It is kept in the trace, not for jobs."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            reported=self.reported and other.reported,
            impossible=self.impossible or other.impossible,
        )


class ModelRequest(Contract):
    """Everything that one model call sends. Equal requests give equal bytes, because no time or random value is added."""

    model: str
    """The vendor's own name, without `provider:`."""
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int = 8_000
    timeout_s: float = 120.0
    """Time limit of the whole call, from the first byte to the last."""
    output_schema: JsonObject | None = None
    cache_key: str | None = None
    """Constant within a session, so that a vendor can route its calls to a warm prompt cache."""
    opaque_refused_by: frozenset[str] = frozenset()
    """Servers that refused opaque parts of earlier turns. The request is written for them without these parts."""


class ModelReply(Contract):
    """One reply, validated: its parts in order, a known stop reason, and its usage."""

    parts: tuple[Part, ...]
    stop: Stop
    usage: Usage
    model: str
    """The model id that the response named."""
    request_id: str | None = None
    raw_stop: str = ""
    latency_ms: int = 0
    ratelimit: dict[str, str] | None = None
    """The provider's rate-limit headers, for the coordinator."""
    server: str = ""
    """The server that answered: host and path of its base URL. Empty if the provider does not name it."""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))
