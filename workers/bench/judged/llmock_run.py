"""llmock as a judge: its model server as a process of its own, and what its journal and its verdict say of a client.

llmock is somebody else's chaos server. It limits each vendor and key by a token bucket that holds a whole minute's
requests, is full at first and is refilled continuously; beyond it comes a 429 with the exact wait. Its verdict groups
attempts of the same body into calls and looks at how a client came back to each of them.
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
"""What llmock tells one customer from another by."""

THROTTLED = 429
READ_S = 30.0


@dataclass(frozen=True)
class Judgement:
    """What the journal says of one fleet."""

    answered: int
    requests: int
    throttled_share: float
    """429s among the requests."""
    took_s: float
    """From the first request to the end of the last."""
    of_rate: float
    """Answers of the vendor that fared worse, against its limit a minute: the minute saved up at the start is a gift."""
    of_limit: float
    """The same against all that the limit let through: that minute too, unless others had spent it."""
    most_attempts: int
    """Requests with the same body: attempts at one call."""
    verdict: str
    """`passed`, or what the strict verdict found and how often."""


class Judge:
    """A llmock server, which ends with the fleet it is a member of.

    Args:
        fleet: starts and stops it.
        rpm: requests a minute for each vendor and key.
        latency_ms: what each answer takes.

    Raises:
        ConfigError: llmock is not installed.
        MidwatchError: it did not come up.

    """

    def __init__(self, fleet: Fleet, rpm: int, latency_ms: int) -> None:
        if importlib.util.find_spec("llmock") is None:
            raise ConfigError("the judge is llmock, which is not installed here: pip install 'midwatch[dev]'")
        self.rpm = self._saved_up = rpm
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        serve = ["serve", "--host", HOST, "--port", str(port), "--rpm", str(rpm), "--latency-ms", str(latency_ms)]
        member = fleet.start("llmock", [sys.executable, "-m", "llmock.cli", *serve, "--log-level", "warning"])
        wait_ready(member, self._answers, timeout_s=60)
        self._http = httpx2.Client(base_url=self.url, timeout=READ_S, trust_env=False)

    def environment(self) -> dict[str, str]:
        """Variables that send both vendors' SDKs here, with one key."""
        return {
            "ANTHROPIC_BASE_URL": f"{self.url}/anthropic",
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": KEY,
        }

    def spend(self) -> None:
        """Use up the minute that the buckets hold, as others with the same key do, and strike it from the journal."""

        def ask(vendor: str) -> tuple[str, int]:
            body = {"model": "spender", "max_tokens": 1, "messages": [{"role": "user", "content": "-"}], "input": "-"}
            return vendor, self._http.post(PATHS[vendor], json=body, headers=KEY_HEADERS[vendor]).status_code

        with ThreadPoolExecutor(32) as threads:
            said = Counter(threads.map(ask, [*PATHS] * (self.rpm + self.rpm // 4)))
        for vendor in PATHS:
            if not said[vendor, THROTTLED]:
                raise MidwatchError(f"{said[vendor, 200]} requests did not use up llmock's {self.rpm} of {vendor}")
        self._http.delete("/_llmock/requests").raise_for_status()
        self._saved_up = 0

    def judgement(self) -> Judgement:
        """What became of every request so far.

        Raises:
            MidwatchError: there was none, or more than the journal keeps.

        """
        records = self._read("requests")["requests"]
        if not records or records[0]["seq"] != 1:
            raise MidwatchError(f"llmock's journal holds {len(records)} requests and not all there were: do less")
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
            verdict=_strict(self._read("verdict")),
        )

    def close(self) -> None:
        """Close the connections to it."""
        self._http.close()

    def _read(self, what: str) -> dict[str, Any]:
        reply = self._http.get(f"/_llmock/{what}").raise_for_status()
        said: dict[str, Any] = reply.json()
        return said

    def _answers(self) -> bool:
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


def _strict(verdict: Mapping[str, Any]) -> str:
    """Warnings count, too."""
    found = Counter(finding["code"] for finding in verdict["findings"])
    return ", ".join(f"{count} {code}" for code, count in found.most_common()) or "passed"
