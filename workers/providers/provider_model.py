"""One provider behind the `Model` port: the only way a call is made, whatever the dialect.

Write, send under one deadline without retries, read, and turn whatever went wrong into a `ModelError`.

The SDK sends bytes that were written here instead of building the request from keyword arguments: for a history of
200 messages its own walk over them costs 75 ms of CPU a call (OpenAI Responses), sending them as bytes 1.2 ms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.protocol.retry_after import ratelimit
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.workers.providers.dialect import Dialect
from midwatch.workers.providers.errors.classify import Circumstances, failure, never_sent, request_id
from midwatch.workers.providers.errors.scrub import said_in
from midwatch.workers.providers.http import deadline
from midwatch.workers.providers.read_json import misshapen, read_object
from midwatch.workers.providers.token_usage import MAX_TOKENS
from midwatch.workers.providers.turns import Unsendable

if TYPE_CHECKING:
    import httpx2

COUNT_TIMEOUT_S = 15.0
"""Counting is a convenience: it must not hold a step for as long as a call may."""

NO_COUNTER = frozenset({404, 405, 501})
"""Statuses by which a server behind another base URL says that it has no counter."""

_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Connection:
    """A provider's SDK client: how to post bytes with it, how to close it, and what must never be shown."""

    post: Callable[[str, bytes, float], httpx2.Response]
    """(path, body, timeout in seconds) -> response; raises the SDK's exceptions. Never retries."""
    close: Callable[[], None]
    secrets: tuple[str, ...] = field(repr=False)


class ProviderModel:
    """A provider's model endpoint. Safe for any number of threads."""

    def __init__(self, name: str, dialect: Dialect, connection: Connection) -> None:
        self.name = name
        self._dialect = dialect
        self._connection = connection

    def complete(self, request: ModelRequest) -> ModelReply:
        """Make one call, without retrying.

        Raises:
            ModelError: whatever went wrong, classified, with the response's rate-limit headers when one came. Nothing
                else leaves this method.

        """
        outcome = self._attempt(request)
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome

    def count(self, request: ModelRequest) -> int | None:
        """Input tokens of the request by the provider's own counter; None when it has none.

        Raises:
            ModelError: the count failed. The estimate is good enough then.

        """
        outcome = self._count(request, min(request.timeout_s, COUNT_TIMEOUT_S))
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Close every connection. The object is not used afterwards."""
        self._connection.close()

    # Errors are returned up to here and raised outside of any handler: an exception raised inside one would carry the
    # SDK's exception as its context, and with it the key and the prompt.
    def _attempt(self, request: ModelRequest) -> ModelReply | ModelError:
        begun = time.monotonic()
        headers = _NO_HEADERS
        try:
            response = self._post(self._dialect.path, self._dialect.request(request), request.timeout_s)
            headers = response.headers
            answer = self._dialect.answer(_object(response), request)
            return ModelReply(
                parts=answer.parts,
                stop=answer.stop,
                usage=answer.usage,
                model=answer.model or request.model,
                request_id=request_id(headers),
                raw_stop=answer.raw_stop,
                latency_ms=round(1_000 * (time.monotonic() - begun)),
                ratelimit=ratelimit(headers) or None,
            )
        except Exception as error:
            return self._error(error, request, request.timeout_s, headers)

    def _count(self, request: ModelRequest, timeout_s: float) -> int | ModelError | None:
        if self._dialect.count_path is None:
            return None
        headers = _NO_HEADERS
        try:
            response = self._post(self._dialect.count_path, self._dialect.count_request(request), timeout_s)
            headers = response.headers
            return _counted(_object(response))
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", 0) in NO_COUNTER:
                return None
            return self._error(error, request, timeout_s, headers)

    def _post(self, path: str, body: JsonObject, timeout_s: float) -> httpx2.Response:
        content = _bytes(body)
        with deadline.within(timeout_s):
            return self._connection.post(path, content, timeout_s)

    def _error(
        self, error: Exception, request: ModelRequest, timeout_s: float, headers: Mapping[str, str]
    ) -> ModelError:
        """`headers` are those of a good status that was no answer; the SDK's error has those of a bad one."""
        headers = getattr(getattr(error, "response", None), "headers", headers)
        call = Circumstances(self.name, timeout_s, self._connection.secrets, said_in(request), headers)
        return ModelError(failure(error, call), ratelimit(headers), sent=not never_sent(error))


def _bytes(body: JsonObject) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError is one
        detail = "the request is no JSON: it holds NaN, Infinity or half a character, or nests too deep"
        raise Unsendable(detail) from None


def _object(response: httpx2.Response) -> JsonObject:
    return read_object(response.content, response.headers.get("content-type", ""))


def _counted(reply: JsonObject) -> int:
    tokens = reply.get("input_tokens")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 < tokens <= MAX_TOKENS:
        misshapen("input_tokens", "a positive number", tokens)
    return tokens
