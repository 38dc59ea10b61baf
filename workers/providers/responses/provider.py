"""The provider `openai`: the Responses API, called through OpenAI's SDK.

Chat Completions is not used, because current OpenAI models refuse function tools there.
"""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.openai_client import OPENAI_BASE_URL, open_connection
from midwatch.workers.providers.provider_model import ProviderModel
from midwatch.workers.providers.responses.reply import parse_response
from midwatch.workers.providers.responses.request import write_count_request, write_responses_request
from midwatch.workers.providers.vendor_format import ParsedReply

NAME = "openai"


class ResponsesFormat:
    """OpenAI's Responses format."""

    path = "/responses"
    count_path = "/responses/input_tokens"

    def write_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a call."""
        return write_responses_request(request, NAME)

    def write_count_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a token count."""
        return write_count_request(request, NAME)

    def parse_reply(self, reply: JsonObject, request: ModelRequest) -> ParsedReply:
        """Validate the reply and return it."""
        return parse_response(reply, request, NAME)


def connect(credentials: Credentials) -> ProviderModel:
    """Make the provider; it connects at its first call.

    Raises:
        ModelError: OPENAI_API_KEY is not set.

    """
    key = credentials.need("openai_api_key", NAME)
    connection = open_connection(key, credentials.openai_base_url or OPENAI_BASE_URL, own_vendor=True)
    return ProviderModel(NAME, ResponsesFormat(), connection)
