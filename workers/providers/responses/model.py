"""OpenAI: the Responses API through its own SDK. Current models refuse function tools in Chat Completions."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.dialect import Answer
from midwatch.workers.providers.openai_client import OPENAI_BASE_URL, openai_connection
from midwatch.workers.providers.provider_model import ProviderModel
from midwatch.workers.providers.responses.reply import response_answer
from midwatch.workers.providers.responses.request import count_request, responses_request

NAME = "openai"


class ResponsesDialect:
    """OpenAI's Responses format."""

    path = "/responses"
    count_path = "/responses/input_tokens"

    def request(self, request: ModelRequest) -> JsonObject:
        """The body of a call."""
        return responses_request(request, NAME)

    def count_request(self, request: ModelRequest) -> JsonObject:
        """The body of a count."""
        return count_request(request, NAME)

    def answer(self, reply: JsonObject, request: ModelRequest) -> Answer:
        """The validated reply."""
        return response_answer(reply, request, NAME)


def connect(credentials: Credentials) -> ProviderModel:
    """The provider, ready for calls.

    Raises:
        ModelError: OPENAI_API_KEY is not set.

    """
    key = credentials.need("openai_api_key", NAME)
    connection = openai_connection(key, credentials.openai_base_url or OPENAI_BASE_URL, own_vendor=True)
    return ProviderModel(NAME, ResponsesDialect(), connection)
