"""The anchor of the token estimate: what the provider counted for the session's last call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Anchor:
    """The last call of a session: the weight of its request, and the tokens that the provider counted."""

    weight: int
    tokens: int
    model: str = ""

    def __str__(self) -> str:
        return f"w{self.weight}|{self.tokens}|{self.model}"

    @classmethod
    def read(cls, text: str) -> Anchor | None:
        """Parse what `str()` wrote. None for any other text, such as that of earlier releases, which counted bytes."""
        weight, _, rest = text.partition("|")
        tokens, _, model = rest.partition("|")
        if not (weight.startswith("w") and weight[1:].isdigit() and tokens.isdigit()):
            return None
        return cls(int(weight[1:]), int(tokens), model)
