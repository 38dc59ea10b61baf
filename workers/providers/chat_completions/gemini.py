"""Gemini, through the endpoint at which Google accepts the Chat Completions format."""

from __future__ import annotations

from midwatch.workers.providers.chat_completions.chat_format import ChatFormat
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.openai_client import open_connection
from midwatch.workers.providers.provider_model import ProviderModel

NAME = "gemini"
BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai"


def connect(credentials: Credentials) -> ProviderModel:
    """Make the provider; it connects at its first call.

    Raises:
        ModelError: GEMINI_API_KEY is not set.

    """
    key = credentials.need("gemini_api_key", NAME)
    connection = open_connection(key, credentials.gemini_base_url or BASE_URL, own_vendor=False)
    return ProviderModel(NAME, ChatFormat(NAME, gemini=True), connection)
