"""How many tokens a request will be: anchored on what the provider reported for the last call, learned for the rest.

Counting characters by four misses half of what recent tokenizers see in JSON (measured). Here the last call's true input is
known, so only what was added since is estimated, at the tokens per byte that this model was seen to charge.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

PRIOR_TOKENS_PER_BYTE = 1 / 2.5
"""Before anything was reported: conservative for JSON and prose alike."""

DENSE_TOKENS_PER_BYTE = 1 / 2.0
"""Tables of numbers and lists of ids, in recent tokenizers (measured with o200k on recorded tool results: 1.9 to 2.3 bytes)."""

MARGIN = 1.15

LEARNING = 0.3
"""Weight of the newest report in the running mean."""

LEAST_DELTA_BYTES = 400
"""A smaller addition says more about the framing of messages than about their text."""

BOUNDS = (1 / 12, 1.0)
"""Tokens per byte that can be true: outside of it a report is a server's mistake."""


@dataclass(frozen=True)
class Anchor:
    """The last call of a session: how large its request was, and what the provider counted."""

    size_bytes: int
    tokens: int
    model: str = ""

    def __str__(self) -> str:
        return f"{self.size_bytes}|{self.tokens}|{self.model}"

    @classmethod
    def read(cls, text: str) -> Anchor | None:
        """What `str` wrote; None for anything else."""
        size, _, rest = text.partition("|")
        tokens, _, model = rest.partition("|")
        return cls(int(size), int(tokens), model) if size.isdigit() and tokens.isdigit() else None


class Estimator:
    """One per process. Thread-safe."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._lock = threading.Lock()

    def estimate(self, model: str, size_bytes: int, anchor: Anchor | None) -> int:
        """Input tokens of a request of `size_bytes` bytes of JSON (prompt, tools, messages)."""
        if anchor is None or anchor.model != model or not anchor.size_bytes:
            return math.ceil(size_bytes * self._rate(model))
        if size_bytes >= anchor.size_bytes:
            return anchor.tokens + math.ceil((size_bytes - anchor.size_bytes) * self._rate(model, anchor))
        return math.ceil(size_bytes * _bounded(anchor.tokens / anchor.size_bytes))  # it was compacted since

    def at_most(self, model: str, size_bytes: int, anchor: Anchor | None) -> int:
        """The same with a margin on what no report has covered: a table of digits has twice the tokens of its size in prose."""
        if anchor is None or anchor.model != model or not anchor.size_bytes:
            return self.estimate(model, size_bytes, anchor)
        if size_bytes < anchor.size_bytes:
            return math.ceil(self.estimate(model, size_bytes, anchor) * MARGIN)
        rate = max(DENSE_TOKENS_PER_BYTE, self._rate(model, anchor) * MARGIN)
        return anchor.tokens + math.ceil((size_bytes - anchor.size_bytes) * rate)

    def learn(self, model: str, size_bytes: int, tokens: int, anchor: Anchor | None) -> None:
        """A request of `size_bytes` was reported to be `tokens`."""
        if size_bytes <= 0 or not BOUNDS[0] <= tokens / size_bytes <= BOUNDS[1]:
            return
        seen = tokens / size_bytes
        if anchor is not None and anchor.model == model and size_bytes - anchor.size_bytes >= LEAST_DELTA_BYTES:
            seen = _bounded((tokens - anchor.tokens) / (size_bytes - anchor.size_bytes))
        with self._lock:
            known = self._rates.get(model)
            self._rates[model] = seen if known is None else known + LEARNING * (seen - known)

    def correct(self, model: str, size_bytes: int, tokens: int | None) -> None:
        """The provider said that a request is too long: it was more than we thought, `tokens` if it said so."""
        with self._lock:
            known = self._rates.get(model, PRIOR_TOKENS_PER_BYTE)
            said = tokens / size_bytes if tokens and size_bytes else 0.0
            self._rates[model] = min(BOUNDS[1], max(said, known * 1.25))

    def _rate(self, model: str, anchor: Anchor | None = None) -> float:
        with self._lock:
            known = self._rates.get(model)
        if known is not None:
            return known
        return _bounded(anchor.tokens / anchor.size_bytes) if anchor else PRIOR_TOKENS_PER_BYTE


def _bounded(rate: float) -> float:
    return min(BOUNDS[1], max(BOUNDS[0], rate))
