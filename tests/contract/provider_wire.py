"""What each provider's server says on the wire: the same answers in each vendor's own words.

A new provider is done when it has a row in `WIRES` and the suite passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tests.contract.provider_words import AnthropicWire, ChatWire, ResponsesWire


class Wire(Protocol):
    """One vendor's words."""

    @property
    def path(self) -> str:
        """Where requests arrive."""

    @property
    def rate_headers(self) -> Mapping[str, str]:
        """Rate-limit headers as this vendor names them."""

    def text(self, text: str) -> Any:
        """An answer that is text."""

    def calls(self, *calls: tuple[str, str, str]) -> Any:
        """An answer that calls tools: (id, name, JSON arguments) each."""

    def cut_at_length(self, text: str, output_tokens: int = 900) -> Any:
        """An answer that ran into the output limit."""

    def unfinished(self) -> Any:
        """An answer without a stop reason."""

    def odd_stop(self) -> Any:
        """An answer with a stop reason that nobody has heard of."""

    def refusal(self) -> Any:
        """An answer by which the model refuses."""

    def with_usage(self, usage: object) -> Any:
        """An answer with this in place of its usage."""

    def usage(self, read: object, written: object) -> Any:
        """A usage object."""

    def error(self, kind: str, message: str) -> Any:
        """An error body with this code."""

    def raise_wrong_type(self) -> list[Any]:
        """Bodies of a 200 that are JSON and no answer."""

    def results(self, body: Any) -> list[tuple[str, str]]:
        """(id, content) of the tool results in a request."""

    def call_ids(self, body: Any) -> list[str]:
        """Ids of the tool calls in a request."""


WIRES: dict[str, Wire] = {
    "anthropic": AnthropicWire(),
    "openai": ResponsesWire(),
    "gemini": ChatWire("/v1beta/openai/chat/completions"),
    "openai-compatible": ChatWire("/v1/chat/completions"),
}
