"""The same replies in each vendor's format.

To test a new provider, add a row to `VENDOR_REPLIES`. The provider is complete when the suite passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tests.contract.provider_reply_bodies import AnthropicReplies, ChatReplies, ResponsesReplies


class VendorReplies(Protocol):
    """Replies in one vendor's format."""

    @property
    def path(self) -> str:
        """The path that requests are sent to."""

    @property
    def rate_headers(self) -> Mapping[str, str]:
        """Rate-limit headers with this vendor's names."""

    def text(self, text: str) -> Any:
        """Return an answer with text."""

    def calls(self, *calls: tuple[str, str, str]) -> Any:
        """Return an answer with tool calls. Each call is (id, name, JSON arguments)."""

    def cut_at_length(self, text: str, output_tokens: int = 900) -> Any:
        """Return an answer that stopped at the output limit."""

    def stopped(self, answer: Any, word: object) -> Any:
        """Return the answer with this stop word. `...` leaves the field out."""

    def refusal(self) -> Any:
        """Return an answer in which the model refuses."""

    def with_usage(self, usage: object) -> Any:
        """Return an answer with this usage."""

    def usage(self, read: object, written: object) -> Any:
        """Return a usage object."""

    def error(self, kind: str, message: str) -> Any:
        """Return an error body with this code."""

    def bodies_without_an_answer(self) -> list[Any]:
        """Return JSON bodies of a 200 that hold no answer."""

    def odd_texts(self) -> list[tuple[Any, str]]:
        """Return answers whose text has an unusual type, and the text that is read."""

    def odd_calls(self) -> list[tuple[Any, str, str]]:
        """Return answers with a broken tool call, and the name and the arguments that are read."""

    def results(self, body: Any) -> list[tuple[str, str]]:
        """Return (id, content) of the tool results in a request."""

    def call_ids(self, body: Any) -> list[str]:
        """Return the ids of the tool calls in a request."""


VENDOR_REPLIES: dict[str, VendorReplies] = {
    "anthropic": AnthropicReplies(),
    "openai": ResponsesReplies(),
    "gemini": ChatReplies("/v1beta/openai/chat/completions"),
    "openai-compatible": ChatReplies("/v1/chat/completions"),
}
