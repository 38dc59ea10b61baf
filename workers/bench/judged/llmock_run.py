"""llmock as a judge: run its model server as a process, and read its journal and its verdict.

llmock is an independent chaos server. It limits each vendor and key with a token bucket for one minute of requests. The
bucket is full at first and is refilled continuously. If it is empty, the answer is 429 with the exact wait. The verdict
groups requests with the same body into calls, and checks how a client retried each call.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2

from midwatch.orchestration.errors import ConfigError, MidwatchError
from midwatch.workers.local.fleet import Fleet, wait_ready

HOST = "127.0.0.1"
KEY = "one-key-for-all"
PATHS = {"anthropic": "/anthropic/v1/messages", "openai": "/v1/responses"}
KEY_HEADERS = {"anthropic": {"x-api-key": KEY}, "openai": {"authorization": f"Bearer {KEY}"}}
"""Headers by which llmock tells customers apart."""

THROTTLED = 429
READ_S = 30.0


@dataclass(frozen=True)
class Judgement:
    """The judge's figures for one fleet."""

    answered: int
    requests: int
    throttled_share: float
    """Share of requests that were answered with 429."""
    took_s: float
    """Time from the first request to the end of the last."""
    of_rate: float
    """Answers of the worse vendor, divided by its rate times the duration. The divisor leaves out the saved-up minute."""
    of_limit: float
    """Answers of the vendor with fewer answers, as a share of what the limit allowed. A full bucket at the start counts too."""
    most_attempts: int
    """Most attempts at one call: requests with the same body."""
    verdict: str
    """`passed`, or the findings of the strict verdict with their counts."""


class Judge:
    """A llmock server, as a member of a fleet.

    Args:
        fleet: starts and stops the server.
        rpm: requests per minute for each vendor and key.
        latency_ms: delay of each answer.

    Raises:
        ConfigError: llmock is not installed.
        MidwatchError: the server did not start.

    """

    def __init__(self, fleet: Fleet, rpm: int, latency_ms: int) -> None:
        if importlib.util.find_spec("llmock") is None:
            raise ConfigError("the judge is llmock, which is not installed here: pip install 'midwatch[dev]'")
        self.rpm = self._saved_up = rpm
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        serve = ["serve", "--host", HOST, "--port", str(port), "--rpm", str(rpm), "--latency-ms", str(latency_ms)]
        member = fleet.start("llmock", [sys.executable, "-m", "llmock.cli", *serve, "--log-level", "warning"])
        wait_ready(member, self._is_ready, timeout_s=60)
        self._http = httpx2.Client(base_url=self.url, timeout=READ_S, trust_env=False)

    def environment(self) -> dict[str, str]:
        """Return variables that direct both vendors' SDKs to this server, with one key."""
        return {
            "ANTHROPIC_BASE_URL": f"{self.url}/anthropic",
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": KEY,
        }

    def spend(self) -> None:
        """Empty the buckets, as other users of the same key would, and delete these requests from the journal."""

        def send(vendor: str) -> tuple[str, int]:
            body = {"model": "spender", "max_tokens": 1, "messages": [{"role": "user", "content": "-"}], "input": "-"}
            return vendor, self._http.post(PATHS[vendor], json=body, headers=KEY_HEADERS[vendor]).status_code

        with ThreadPoolExecutor(32) as threads:
            answers = Counter(threads.map(send, [*PATHS] * (self.rpm + self.rpm // 4)))
        for vendor in PATHS:
            if not answers[vendor, THROTTLED]:
                raise MidwatchError(
                    f"{answers[vendor, 200]} requests did not use up llmock's {self.rpm} a minute of {vendor}"
                )
        self._http.delete("/_llmock/requests").raise_for_status()
        self._saved_up = 0

    def judgement(self) -> Judgement:
        """Return the figures for all requests so far.

        Raises:
            MidwatchError: there was no request, or more than the journal keeps.

        """
        records = self._read("requests")["requests"]
        if not records or records[0]["seq"] != 1:
            raise MidwatchError(f"llmock's journal has {len(records)} requests and is incomplete: make fewer requests")
        statuses = Counter(record["status"] for record in records)
        took_s = _took_s(records)
        answers = Counter(record["provider"] for record in records if record["status"] < 400)
        worst, by_rate = min(answers[vendor] for vendor in PATHS), self.rpm * took_s / 60
        return Judgement(
            answered=answers.total(),
            requests=len(records),
            throttled_share=statuses[THROTTLED] / len(records),
            took_s=took_s,
            of_rate=worst / by_rate,
            of_limit=worst / (self._saved_up + by_rate),
            most_attempts=max(Counter(record["fingerprint"] for record in records).values()),
            verdict=_strict_verdict(self._read("verdict")),
        )

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def _read(self, what: str) -> dict[str, Any]:
        reply = self._http.get(f"/_llmock/{what}").raise_for_status()
        document: dict[str, Any] = reply.json()
        return document

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _took_s(records: Sequence[Mapping[str, Any]]) -> float:
    return float(max(r["ended_at"] for r in records) - min(r["started_at"] for r in records))


def _strict_verdict(verdict: Mapping[str, Any]) -> str:
    """Summarize the verdict. Warnings count as findings."""
    found = Counter(finding["code"] for finding in verdict["findings"])
    return ", ".join(f"{count} {code}" for code, count in found.most_common()) or "passed"
