"""Estimate the tokens of a request before it is sent.

The provider reported the true input tokens of the last call. So only the part added since then is estimated: its weight (see
`weight`) times the tokens per unit of weight that this model was seen to charge. The usual rule, four characters a token,
gives only half of what recent tokenizers count in JSON (measured).
"""

from __future__ import annotations

import math
import threading
from typing import TypeGuard

from midwatch.orchestration.protocol.anchor import Anchor

PRIOR = 1.6
"""Tokens per unit of weight before a report: 1.03 for o200k, 1.55 for the newest tokenizer of Claude (measured)."""

LEAST_PRIOR = 1.05
"""The lowest rate of a real tokenizer (o200k: 1.03), with some reserve. Before a report, a prompt is cut only if it does not fit
even at this rate. If the provider then refuses it as too long, it is cut."""

MARGIN = 1.3
"""Factor in `at_most` for the part that no report covers."""

LEARNING = 0.3
"""Weight of the newest report in the running mean."""

LEAST_DELTA = 100
"""A rate is learned only if at least this weight was added. In smaller additions the message format outweighs the text."""

LEAST_WEIGHT = 200
"""In lighter requests the marks of a chat format outweigh the words."""

HIDDEN_TOKENS = 10_000
"""What a provider may add to a request: its own prompt for tools, images, a cached prefix."""

BOUNDS = (0.25, 4.0)
"""Possible tokens per unit of weight. A report outside these bounds is a server's mistake, and is ignored."""


class Estimator:
    """One per process. Thread-safe."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._lock = threading.Lock()

    def estimate(self, model: str, weight: int, anchor: Anchor | None) -> int:
        """Estimate the input tokens of a request (prompt, tools, messages) from its weight."""
        if not _is_usable(anchor, model):
            return math.ceil(weight * self._rate(model))
        if weight >= anchor.weight:
            return anchor.tokens + math.ceil((weight - anchor.weight) * self._rate(model, anchor))
        return math.ceil(weight * _clamp(anchor.tokens / anchor.weight))  # the window was compacted since the report

    def at_most(self, model: str, weight: int, anchor: Anchor | None) -> int:
        """Estimate with a margin on the part that no report covers."""
        if not _is_usable(anchor, model):
            return self.estimate(model, weight, anchor)
        if weight < anchor.weight:
            return math.ceil(self.estimate(model, weight, anchor) * MARGIN)
        rate = max(PRIOR, self._rate(model, anchor) * MARGIN)
        return anchor.tokens + math.ceil((weight - anchor.weight) * rate)

    def learn(self, model: str, weight: int, tokens: int, anchor: Anchor | None) -> None:
        """Learn from a provider's report that a request of this weight had this number of input tokens."""
        if weight <= 0 or not BOUNDS[0] <= tokens / weight <= BOUNDS[1]:
            return
        seen = tokens / weight
        if anchor is not None and anchor.model == model and weight - anchor.weight >= LEAST_DELTA:
            seen = (tokens - anchor.tokens) / (weight - anchor.weight)
            if not BOUNDS[0] <= seen <= BOUNDS[1]:
                return  # one of both reports is wrong
        with self._lock:
            known = self._rates.get(model)
            self._rates[model] = seen if known is None else known + LEARNING * (seen - known)

    def known_rate(self, model: str, anchor: Anchor | None) -> float | None:
        """Tokens per unit of weight of the session's last call, or as learned from other sessions. None before a report."""
        if _is_usable(anchor, model):
            return _clamp(anchor.tokens / anchor.weight)
        with self._lock:
            return self._rates.get(model)

    def forget(self, model: str) -> None:
        """Forget the rate of a model whose reports can't be true. Its earlier ones, of lighter requests, are wrong as well."""
        with self._lock:
            self._rates.pop(model, None)

    def correct(self, model: str, weight: int, tokens: int | None) -> None:
        """Raise the rate after a provider refused a request as too long. `tokens` is its size, if the provider reported it."""
        with self._lock:
            known = self._rates.get(model, PRIOR)
            reported = tokens / weight if tokens and weight else 0.0
            self._rates[model] = min(BOUNDS[1], max(reported, known * 1.25))

    def _rate(self, model: str, anchor: Anchor | None = None) -> float:
        with self._lock:
            known = self._rates.get(model)
        if known is not None:
            return known
        return _clamp(anchor.tokens / anchor.weight) if anchor else PRIOR


def _is_usable(anchor: Anchor | None, model: str) -> TypeGuard[Anchor]:
    """Is this the report of the same model, and can it be true? An earlier release may have stored one that can't."""
    if anchor is None or anchor.model != model or not anchor.weight:
        return False
    fewest, most = BOUNDS
    least = fewest * anchor.weight if anchor.weight >= LEAST_WEIGHT else 0
    return least <= anchor.tokens <= most * anchor.weight + HIDDEN_TOKENS


def _clamp(rate: float) -> float:
    return min(BOUNDS[1], max(BOUNDS[0], rate))
