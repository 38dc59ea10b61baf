"""Anthropic: the Messages API through its own SDK."""

from __future__ import annotations

import anthropic
import httpx2

from midwatch.orchestration.dialects.vendor_form import to_vendor_output
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.reply import message_answer
from midwatch.workers.providers.anthropic.request import count_request, messages_request
from midwatch.workers.providers.credentials import Credentials
from midwatch.workers.providers.dialect import Answer
from midwatch.workers.providers.http.client import http_client, timeouts
from midwatch.workers.providers.provider_model import Connection, ProviderModel
from midwatch.workers.providers.quiet_logs import quiet
from midwatch.workers.providers.turns import Unsendable

NAME = "anthropic"
BASE_URL = "https://api.anthropic.com"


class MessagesDialect:
    """Anthropic's Messages format. Output schemas are cut to the subset the vendor's constrained decoding accepts."""

    path = "/v1/messages"
    count_path = "/v1/messages/count_tokens"

    def request(self, request: ModelRequest) -> JsonObject:
        """The body of a call."""
        return messages_request(_with_accepted_schema(request), NAME)

    def count_request(self, request: ModelRequest) -> JsonObject:
        """The body of a count."""
        return count_request(_with_accepted_schema(request), NAME)

    def answer(self, reply: JsonObject, request: ModelRequest) -> Answer:
        """The validated reply."""
        return message_answer(reply, request, NAME)


def connect(credentials: Credentials) -> ProviderModel:
    """The provider, ready for calls.

    Raises:
        ModelError: ANTHROPIC_API_KEY is not set.

    """
    key = credentials.need("anthropic_api_key", NAME)
    base_url = credentials.anthropic_base_url or BASE_URL
    quiet("anthropic")
    # Retries belong to the fleet's coordinator, spans to our own telemetry: the SDK's would count and trace twice.
    client = anthropic.Anthropic(
        api_key=key, base_url=base_url, max_retries=0, http_client=http_client(base_url), open_telemetry=False
    )

    def post(path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        return client.post(path, content=body, cast_to=httpx2.Response, options={"timeout": timeouts(timeout_s)})

    return ProviderModel(NAME, MessagesDialect(), Connection(post, client.close, (key,)))


def _with_accepted_schema(request: ModelRequest) -> ModelRequest:
    if request.output_schema is None:
        return request
    try:
        accepted = anthropic.transform_schema(to_vendor_output(NAME, request.output_schema))
    except (ValueError, AssertionError, TypeError, AttributeError):
        detail = "the output schema can't be reduced to what the vendor accepts; give every part of it a single type"
        raise Unsendable(detail, FailureKind.FORMAT_ERROR) from None
    return request.model_copy(update={"output_schema": accepted})
