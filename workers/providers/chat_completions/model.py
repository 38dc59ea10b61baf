"""Chat Completions: any server that speaks OpenAI's older format, and Gemini through its endpoint for it."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.chat_completions.reply import completion_answer
from midwatch.workers.providers.chat_completions.request import chat_request
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.dialect import Answer
from midwatch.workers.providers.openai_client import openai_connection
from midwatch.workers.providers.provider_model import ProviderModel

GEMINI_BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai"

NO_KEY = "no-key"
"""Sent where no key is set: most local servers want none, and the SDK insists on sending one."""


class ChatDialect:
    """The Chat Completions format, as one provider takes it. Its servers have no counter."""

    path = "/chat/completions"
    count_path = None

    def __init__(self, provider: str, *, gemini: bool) -> None:
        self._provider = provider
        self._gemini = gemini

    def request(self, request: ModelRequest) -> JsonObject:
        """The body of a call."""
        return chat_request(request, self._provider, gemini=self._gemini)

    def count_request(self, request: ModelRequest) -> JsonObject:
        """The body of a count, if there were a counter."""
        return self.request(request)

    def answer(self, reply: JsonObject, request: ModelRequest) -> Answer:
        """The validated reply."""
        return completion_answer(reply, request, self._provider)


def connect_gemini(credentials: Credentials) -> ProviderModel:
    """Gemini, ready for calls.

    Raises:
        ModelError: GEMINI_API_KEY is not set.

    """
    key = credentials.need("gemini_api_key", "gemini")
    connection = openai_connection(key, credentials.gemini_base_url or GEMINI_BASE_URL, own_vendor=False)
    return ProviderModel("gemini", ChatDialect("gemini", gemini=True), connection)


def connect_compatible(credentials: Credentials) -> ProviderModel:
    """Another server that speaks the format (vLLM, llama.cpp, a gateway), ready for calls. A key is optional.

    Raises:
        ModelError: OPENAI_BASE_URL is not set.

    """
    name = "openai-compatible"
    base_url = credentials.need("openai_base_url", name)
    connection = openai_connection(credentials.openai_api_key or NO_KEY, base_url, own_vendor=False)
    return ProviderModel(name, ChatDialect(name, gemini=False), connection)
