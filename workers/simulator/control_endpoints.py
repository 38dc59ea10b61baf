"""Answers every request that is no model call: token counts, `/__midwatch__/...`, and 404 for all others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qs

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.faults.faults import Faults
from midwatch.workers.simulator.journal import Journal
from midwatch.workers.simulator.model_calls import ModelCalls
from midwatch.workers.simulator.vendor_formats import FORMATS_BY_COUNT_PATH, FORMATS_BY_PATH
from midwatch.workers.simulator.vendor_formats.compact_json import encode_json
from midwatch.workers.simulator.vendor_formats.request_parsing import parse_request
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Refusal, RefusalKind

PREFIX = "/__midwatch__/"


class Control:
    """Answers control requests and token counts without waiting."""

    def __init__(self, calls: ModelCalls, journal: Journal) -> None:
        self._calls = calls
        self._journal = journal

    def answer(self, request: HTTPServerRequest) -> None:
        """Answer a request that is no model call."""
        status, body = self._route(request)
        payload = encode_json(body)
        headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(payload))})
        connection = cast(HTTP1Connection, request.connection)
        connection.write_headers(
            ResponseStartLine("HTTP/1.1", status, "OK" if status < 400 else "Error"), headers, payload
        )
        connection.finish()

    def _route(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        route = f"{request.method} {request.path.removeprefix(PREFIX)}"
        if request.method == "POST" and request.path in FORMATS_BY_COUNT_PATH:
            return self._count(request)
        if not request.path.startswith(PREFIX):
            return _not_found(request)
        if route == "GET health":
            return 200, {"ok": True, "brain": self._calls.brain.name}
        if route == "GET stats":
            return 200, self._journal.stats().model_dump(mode="json")
        if route == "GET journal":
            after = parse_qs(request.query).get("after", ["0"])[0]
            entries = self._journal.entries(int(after) if after.isdecimal() else 0)
            return 200, {"entries": [entry.model_dump(mode="json") for entry in entries]}
        if route == "GET faults":
            return 200, self._calls.faults.model_dump(mode="json")
        if route == "POST faults":
            return self._set_faults(request)
        return 404, {"error": f"unknown route {route!r}; there are: GET health, stats, journal, faults; POST faults"}

    def _count(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        vendor_format = FORMATS_BY_COUNT_PATH[request.path]
        self._journal.record_count()
        try:
            prompt = parse_request(vendor_format, request.body)
        except BadRequest as problem:
            return vendor_format.write_refusal(Refusal(RefusalKind.INVALID_REQUEST, str(problem)), "req_count")
        return 200, vendor_format.write_count(self._calls.meter.count(prompt.conversation))

    def _set_faults(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        """Replace the faults. The body is a JSON object of faults, or `{"chaos": "rate_limited=0.1"}`."""
        # A web page open in a browser on this machine can't send this content type without a CORS preflight.
        if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            return 415, {"error": "expected content-type application/json"}
        try:
            given = json.loads(request.body)
            chaos = given.get("chaos") if isinstance(given, dict) else None
            faults = Faults.parse(chaos if isinstance(chaos, str) else json.dumps(given))
        except ValueError as error:  # ConfigError is a ValueError
            return 400, {"error": str(error)}
        self._calls.use(faults)
        return 200, faults.model_dump(mode="json")


def _not_found(request: HTTPServerRequest) -> tuple[int, JsonObject]:
    """Answer 404 in the format of the vendor whose client sent the request."""
    vendor_format = FORMATS_BY_PATH["/v1/messages" if "anthropic-version" in request.headers else "/v1/responses"]
    paths = ", ".join([*FORMATS_BY_PATH, *FORMATS_BY_COUNT_PATH])
    hint = (
        "; an OpenAI base URL ends in /v1" if f"/v1{request.path}" in (*FORMATS_BY_PATH, *FORMATS_BY_COUNT_PATH) else ""
    )
    detail = f"no {request.method} {request.path} here{hint}. This model server answers POST {paths}"
    return vendor_format.write_refusal(Refusal(RefusalKind.NOT_FOUND, detail), f"req_{datetime.now(UTC):%H%M%S}")
