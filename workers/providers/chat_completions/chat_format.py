"""The Chat Completions format: OpenAI's older API, which many other servers accept."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.chat_completions.reply import parse_completion
from midwatch.workers.providers.chat_completions.request import write_chat_request
from midwatch.workers.providers.vendor_format import ParsedReply

WANT_REASONING = frozenset({"api.deepseek.com", "api.moonshot.ai", "api.moonshot.cn"})
"""Hosts that refuse a model message without `reasoning_content` while thinking is on, also one that another model wrote
(MoonshotAI/kimi-cli#2141, charmbracelet/crush#2696). Other servers of the same models may refuse the field."""


class ChatFormat:
    """The Chat Completions format for one provider. Its servers have no token counter."""

    path = "/chat/completions"
    count_path = None

    def __init__(self, provider: str, *, gemini: bool, server: str = "") -> None:
        self._provider = provider
        self._gemini = gemini
        self._server = server

    def write_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a call."""
        wants_reasoning = self._server.partition("/")[0] in WANT_REASONING
        fill = wants_reasoning and self._server not in request.opaque_refused_by
        return write_chat_request(request, self._provider, gemini=self._gemini, fill_reasoning=fill)

    def write_count_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a token count. Not used: `count_path` is None."""
        return self.write_request(request)

    def parse_reply(self, reply: JsonObject, request: ModelRequest) -> ParsedReply:
        """Validate the reply and return it."""
        return parse_completion(reply, request, self._provider)
