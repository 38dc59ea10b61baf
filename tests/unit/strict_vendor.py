"""A vendor in this process: a function decides about each request body, and real provider code writes and reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2

from midwatch.workers.providers.anthropic.provider import MessagesFormat
from midwatch.workers.providers.chat_completions.chat_format import ChatFormat
from midwatch.workers.providers.provider_model import Connection, ProviderModel
from midwatch.workers.providers.responses.provider import ResponsesFormat
from midwatch.workers.providers.vendor_format import VendorFormat

Answer = Callable[[dict[str, Any]], tuple[int, Any]]
"""Answers a request body with a status and a body."""

FORMATS: dict[str, Callable[[], VendorFormat]] = {
    "anthropic": MessagesFormat,
    "openai": ResponsesFormat,
    "gemini": lambda: ChatFormat("gemini", gemini=True),
    "openai-compatible": lambda: ChatFormat("openai-compatible", gemini=False),
}


class StatusError(Exception):
    """An error response, as the vendors' SDKs raise it."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__("status")
        self.response = response


class StrictVendor:
    """`ports.Model` over a function. `bodies` holds the request bodies, `statuses` the statuses of the answers."""

    def __init__(self, provider: str, answer: Answer, base_url: str = "https://vendor.test/v1") -> None:
        self.bodies: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self._answer = answer
        connection = Connection(self._post, lambda: None, (), base_url)
        self.model = ProviderModel(provider, FORMATS[provider](), connection)

    def _post(self, path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        self.bodies.append(json.loads(body))
        status, answer = self._answer(self.bodies[-1])
        self.statuses.append(status)
        response = httpx2.Response(status, json=answer)
        if status >= 300:
            raise StatusError(response)
        return response


def chat_text(text: str, **fields: Any) -> dict[str, Any]:
    """An answer in the Chat Completions format."""
    message = {"role": "assistant", "content": text, **fields}
    return {"choices": [{"finish_reason": "stop", "message": message}], "model": "m", "usage": USAGE}


def chat_call(name: str, arguments: str, **fields: Any) -> dict[str, Any]:
    """A tool call in the Chat Completions format."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], **fields}
    return {"choices": [{"finish_reason": "tool_calls", "message": message}], "model": "m", "usage": USAGE}


USAGE = {"prompt_tokens": 120, "completion_tokens": 20, "total_tokens": 140}
