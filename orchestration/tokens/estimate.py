"""How many tokens a request will be: anchored on what the provider reported for the last call, learned for the rest.

Counting characters by four misses half of what recent tokenizers see in JSON (measured). Here the last call's true input is
known, so only what was added since is estimated: by its weight (see `weight`), and by the tokens that this model was seen to
charge for one of weight.
"""

from __future__ import annotations

import math
import threading

from midwatch.orchestration.protocol.anchor import Anchor

PRIOR = 1.6
"""Tokens for one of weight before anything was reported: 1.03 by o200k, 1.55 by the newest of Claude's (measured)."""

MARGIN = 1.3

LEARNING = 0.3
"""Weight of the newest report in the running mean."""

LEAST_DELTA = 100
"""A lighter addition says more about the framing of messages than about their text."""

BOUNDS = (0.25, 4.0)
"""Tokens for one of weight that can be true: outside of it a report is a server's mistake."""


class Estimator:
    """One per process. Thread-safe."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._lock = threading.Lock()

    def estimate(self, model: str, weight: int, anchor: Anchor | None) -> int:
        """Input tokens of a request that weighs so much (prompt, tools, messages)."""
        if anchor is None or anchor.model != model or not anchor.weight:
            return math.ceil(weight * self._rate(model))
        if weight >= anchor.weight:
            return anchor.tokens + math.ceil((weight - anchor.weight) * self._rate(model, anchor))
        return math.ceil(weight * _bounded(anchor.tokens / anchor.weight))  # it was compacted since

    def at_most(self, model: str, weight: int, anchor: Anchor | None) -> int:
        """The same with a margin on what no report has covered: a weight is a guess."""
        if anchor is None or anchor.model != model or not anchor.weight:
            return self.estimate(model, weight, anchor)
        if weight < anchor.weight:
            return math.ceil(self.estimate(model, weight, anchor) * MARGIN)
        rate = max(PRIOR, self._rate(model, anchor) * MARGIN)
        return anchor.tokens + math.ceil((weight - anchor.weight) * rate)

    def learn(self, model: str, weight: int, tokens: int, anchor: Anchor | None) -> None:
        """A request that weighs so much was reported to be `tokens`."""
        if weight <= 0 or not BOUNDS[0] <= tokens / weight <= BOUNDS[1]:
            return
        seen = tokens / weight
        if anchor is not None and anchor.model == model and weight - anchor.weight >= LEAST_DELTA:
            seen = _bounded((tokens - anchor.tokens) / (weight - anchor.weight))
        with self._lock:
            known = self._rates.get(model)
            self._rates[model] = seen if known is None else known + LEARNING * (seen - known)

    def correct(self, model: str, weight: int, tokens: int | None) -> None:
        """The provider said that a request is too long: it was more than we thought, `tokens` if it said so."""
        with self._lock:
            known = self._rates.get(model, PRIOR)
            said = tokens / weight if tokens and weight else 0.0
            self._rates[model] = min(BOUNDS[1], max(said, known * 1.25))

    def _rate(self, model: str, anchor: Anchor | None = None) -> float:
        with self._lock:
            known = self._rates.get(model)
        if known is not None:
            return known
        return _bounded(anchor.tokens / anchor.weight) if anchor else PRIOR


def _bounded(rate: float) -> float:
    return min(BOUNDS[1], max(BOUNDS[0], rate))
