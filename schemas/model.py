"""One model call: what is sent, what comes back, what it used."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Contract, JsonObject, Record
from midwatch.schemas.message import Message, Part, Text, ToolCall
from midwatch.schemas.tools import ToolSpec


class Stop(StrEnum):
    """Why the model stopped, in one vocabulary for all providers. Tool calls run only after TOOLS."""

    END = "end"
    TOOLS = "tools"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    REFUSAL = "refusal"
    PAUSE = "pause"
    UNKNOWN = "unknown"


class Usage(Record):
    """Tokens of one or more calls. `input_tokens` is everything that was read, cached or not."""

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    reported: bool = True
    """False when the provider sent no usage and these are not its figures."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            reported=self.reported and other.reported,
        )


class ModelRequest(Contract):
    """Everything one model call is made of. The same request builds the same bytes: no clock, no chance in it."""

    model: str
    """The vendor's own name, without `provider:`."""
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int = 8_000
    timeout_s: float = 120.0
    """Wall-clock bound on the whole call, first byte to last."""
    force_tool: str | None = None
    output_schema: JsonObject | None = None
    cache_key: str | None = None
    """Stable per session: lets a vendor route to a warm prompt cache."""


class ModelReply(Contract):
    """One answer, validated: parts in order, a known stop, usage."""

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

    @property
    def text(self) -> str:
        """All that was said, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))
