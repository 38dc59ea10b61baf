"""Any other server that accepts the Chat Completions format: vLLM, llama.cpp, a gateway."""

from __future__ import annotations

from midwatch.workers.providers.chat_completions.chat_format import ChatFormat
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.history.opaque_parts import name_server
from midwatch.workers.providers.openai_client import open_connection
from midwatch.workers.providers.provider_model import ProviderModel

NAME = "openai-compatible"

NO_KEY = "no-key"
"""Sent when no key is set. Most local servers need none, but the SDK always sends one."""


def connect(credentials: Credentials) -> ProviderModel:
    """Make the provider; it connects at its first call. A key is optional.

    Raises:
        ModelError: OPENAI_BASE_URL is not set.

    """
    base_url = credentials.need("openai_base_url", NAME)
    connection = open_connection(credentials.openai_api_key or NO_KEY, base_url, own_vendor=False)
    return ProviderModel(NAME, ChatFormat(NAME, gemini=False, server=name_server(base_url)), connection)
