"""Everything but model calls: token counts, `/__midwatch__/...`, and a clear 404."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qs

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.faults import Faults
from midwatch.workers.simulator.journal import Journal
from midwatch.workers.simulator.modelcall import ModelCalls
from midwatch.workers.simulator.vendor_formats import ANSWERS, COUNTERS
from midwatch.workers.simulator.vendor_formats.jsontext import encoded
from midwatch.workers.simulator.vendor_formats.reading import read
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Refusal, RefusalKind

PREFIX = "/__midwatch__/"


class Control:
    """Answers at once: nothing here waits."""

    def __init__(self, calls: ModelCalls, journal: Journal) -> None:
        self._calls = calls
        self._journal = journal

    def answer(self, request: HTTPServerRequest) -> None:
        """Answer any request that is no model call."""
        status, body = self._answered(request)
        payload = encoded(body)
        headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(payload))})
        connection = cast(HTTP1Connection, request.connection)
        connection.write_headers(
            ResponseStartLine("HTTP/1.1", status, "OK" if status < 400 else "Error"), headers, payload
        )
        connection.finish()

    def _answered(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        asked = f"{request.method} {request.path.removeprefix(PREFIX)}"
        if request.method == "POST" and request.path in COUNTERS:
            return self._count(request)
        if not request.path.startswith(PREFIX):
            return _lost(request)
        if asked == "GET health":
            return 200, {"ok": True, "brain": self._calls.brain.name}
        if asked == "GET stats":
            return 200, self._journal.stats().model_dump(mode="json")
        if asked == "GET journal":
            after = parse_qs(request.query).get("after", ["0"])[0]
            entries = self._journal.entries(int(after) if after.isdecimal() else 0)
            return 200, {"entries": [entry.model_dump(mode="json") for entry in entries]}
        if asked == "GET faults":
            return 200, self._calls.faults.model_dump(mode="json")
        if asked == "POST faults":
            return self._set_faults(request)
        return 404, {"error": f"no {asked!r} here; there are: GET health, stats, journal, faults; POST faults"}

    def _count(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        wire = COUNTERS[request.path]
        self._journal.counted()
        try:
            prompt = read(wire, request.body)
        except BadRequest as problem:
            return wire.refuse(Refusal(RefusalKind.INVALID_REQUEST, str(problem)), "req_count")
        return 200, wire.count(self._calls.meter.count(prompt.conversation))

    def _set_faults(self, request: HTTPServerRequest) -> tuple[int, JsonObject]:
        """Replace the faults by a JSON object of them, or by `{"chaos": "rate_limited=0.1"}`."""
        # A web page open in a browser on this machine can't send this content type without being asked first.
        if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            return 415, {"error": "expected content-type application/json"}
        try:
            given = json.loads(request.body)
            chaos = given.get("chaos") if isinstance(given, dict) else None
            faults = Faults.parse(chaos if isinstance(chaos, str) else json.dumps(given))
        except ValueError as error:  # of which ConfigError is one
            return 400, {"error": str(error)}
        self._calls.use(faults)
        return 200, faults.model_dump(mode="json")


def _lost(request: HTTPServerRequest) -> tuple[int, JsonObject]:
    """A path that no vendor has, or that this server does not serve: in the words of the vendor whose client asks."""
    wire = ANSWERS["/v1/messages" if "anthropic-version" in request.headers else "/v1/responses"]
    paths = ", ".join([*ANSWERS, *COUNTERS])
    hint = "; an OpenAI base URL ends in /v1" if f"/v1{request.path}" in (*ANSWERS, *COUNTERS) else ""
    detail = f"no {request.method} {request.path} here{hint}. This model server answers POST {paths}"
    return wire.refuse(Refusal(RefusalKind.NOT_FOUND, detail), f"req_{datetime.now(UTC):%H%M%S}")
