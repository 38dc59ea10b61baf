"""OpenAI's SDK as a way to post bytes: to OpenAI itself, or to whatever speaks its formats."""

from __future__ import annotations

import httpx2
import openai

from midwatch.workers.providers.http.client import http_client, timeouts
from midwatch.workers.providers.provider_model import Connection
from midwatch.workers.providers.quiet_logs import quiet

OPENAI_BASE_URL = "https://api.openai.com/v1"


def openai_connection(key: str, base_url: str, *, own_vendor: bool) -> Connection:
    """A client for one base URL, without retries: they belong to the fleet's coordinator.

    The SDK picks an organization and a project up from the environment; they are names of OpenAI's, so another
    vendor (`own_vendor=False`) is not told of them.
    """
    quiet("openai")
    client = openai.OpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=http_client(base_url))
    if not own_vendor:
        client.organization = None
        client.project = None

    def post(path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        return client.post(path, content=body, cast_to=httpx2.Response, options={"timeout": timeouts(timeout_s)})

    return Connection(post, client.close, (key,))
