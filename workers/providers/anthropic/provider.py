"""The provider `anthropic`: the Messages API, called through Anthropic's SDK."""

from __future__ import annotations

import anthropic
import httpx2

from midwatch.orchestration.dialects.answer import answer_form
from midwatch.orchestration.dialects.vendor_form import to_vendor_output
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.reply import parse_message
from midwatch.workers.providers.anthropic.request import write_count_request, write_messages_request
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.http.client import make_http_client, make_timeouts
from midwatch.workers.providers.provider_model import Connection, ProviderModel
from midwatch.workers.providers.quiet_logs import silence_debug_logs
from midwatch.workers.providers.request_turns import Unsendable
from midwatch.workers.providers.vendor_format import ParsedReply

NAME = "anthropic"
BASE_URL = "https://api.anthropic.com"


class MessagesFormat:
    """Anthropic's Messages format. Output schemas are reduced to the subset that Anthropic accepts."""

    path = "/v1/messages"
    count_path = "/v1/messages/count_tokens"

    def write_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a call."""
        return write_messages_request(_with_accepted_schema(request), NAME)

    def write_count_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a token count."""
        return write_count_request(_with_accepted_schema(request), NAME)

    def parse_reply(self, reply: JsonObject, request: ModelRequest) -> ParsedReply:
        """Validate the reply and return it."""
        return parse_message(reply, request, NAME)


def connect(credentials: Credentials) -> ProviderModel:
    """Make the provider; it connects at its first call.

    Raises:
        ModelError: ANTHROPIC_API_KEY is not set.

    """
    key = credentials.need("anthropic_api_key", NAME)
    base_url = credentials.anthropic_base_url or BASE_URL
    silence_debug_logs("anthropic")
    # The coordinator retries and our telemetry traces. If the SDK did it, too, calls would be retried and traced twice.
    client = anthropic.Anthropic(
        api_key=key, base_url=base_url, max_retries=0, http_client=make_http_client(base_url), open_telemetry=False
    )

    def post(path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        return client.post(path, content=body, cast_to=httpx2.Response, options={"timeout": make_timeouts(timeout_s)})

    return ProviderModel(NAME, MessagesFormat(), Connection(post, client.close, (key,), base_url))


def _with_accepted_schema(request: ModelRequest) -> ModelRequest:
    if request.output_schema is None:
        return request
    answer = answer_form(NAME, to_vendor_output(NAME, request.output_schema))
    if answer.refused:
        detail = f"the output schema can't be reduced to what Anthropic accepts: {answer.refused}"
        raise Unsendable(detail, FailureKind.FORMAT_ERROR)
    return request.model_copy(update={"output_schema": answer.schema})
