"""A connection through OpenAI's SDK, to OpenAI or to any server that accepts one of its formats."""

from __future__ import annotations

import httpx2
import openai

from midwatch.workers.providers.http.client import make_http_client, make_timeouts
from midwatch.workers.providers.provider_model import Connection
from midwatch.workers.providers.quiet_logs import silence_debug_logs

OPENAI_BASE_URL = "https://api.openai.com/v1"


def open_connection(key: str, base_url: str, *, own_vendor: bool) -> Connection:
    """Make a client for one base URL. It never retries, because the fleet's coordinator decides about retries.

    The SDK reads an organization and a project from the environment. They are names at OpenAI, so they are not sent
    to another vendor (`own_vendor=False`).
    """
    silence_debug_logs("openai")
    client = openai.OpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=make_http_client(base_url))
    if not own_vendor:
        client.organization = None
        client.project = None

    def post(path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        return client.post(path, content=body, cast_to=httpx2.Response, options={"timeout": make_timeouts(timeout_s)})

    return Connection(post, client.close, (key,), base_url)
