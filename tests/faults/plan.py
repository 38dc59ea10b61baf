"""A job's plan: what its model does, turn by turn. The plan is the job's input, so it survives every crash."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Call = tuple[str, str]
"""A tool, and the word that it is called with."""


@dataclass(frozen=True)
class Plan:
    """`turns[n]` are the calls of model turn n, from 0. After the last turn the model answers.

    `model[n]` is the model's fault in turn n, before its reply: ("hold", word), ("die_once", word) or ("think", seconds).
    """

    turns: Sequence[Sequence[Call]]
    model: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return json.dumps({"turns": self.turns, "model": {str(n): fate for n, fate in self.model.items()}})

    @classmethod
    def read(cls, text: str) -> Plan:
        """Parse the plan that `str` wrote."""
        raw = json.loads(text)
        turns = [[(name, word) for name, word in turn] for turn in raw["turns"]]
        return cls(turns, {int(n): (fate, word) for n, (fate, word) in raw["model"].items()})


def calls(*one_each: Call, **model: tuple[str, str]) -> str:
    """Return the input of a job that makes these calls, one in each turn.

    `at0=("hold", "word")` is the model's fault in turn 0.
    """
    return str(
        Plan([[call] for call in one_each], {int(name.removeprefix("at")): fate for name, fate in model.items()})
    )
