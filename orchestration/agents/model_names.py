"""Model names: which provider a name belongs to, and whether the name is pinned to one model.

The simple rule "a pinned name has a date" is wrong for half of the names. The vendors' rules, as of November 2026:

- Anthropic: from version 4.6 on, a name such as `claude-sonnet-4-6` is the pinned id. Older names are pinned only with a
  date (platform.claude.com, "Model IDs and versions").
- OpenAI: a name with a date is a pinned snapshot. Families from 5.6 on have no dated names, so they are versioned: the
  vendor may still change the build. All other names are aliases (`gpt-5` means `gpt-5-2025-08-07` today).
- Gemini: `-001` is a pinned snapshot, a plain `gemini-2.5-pro` is versioned, `-preview`, `-exp` and `-latest` are aliases.
- Any other server runs the model that its operator loaded. Its names count as pinned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from midwatch.orchestration.errors import ConfigError

Pinning = Literal["pinned", "versioned", "alias"]
"""`pinned`: always the same model. `versioned`: a release whose build may change. `alias`: any model the vendor chooses."""

PROVIDERS = ("anthropic", "openai", "gemini", "openai-compatible")

_VENDORS = (
    ("anthropic", re.compile(r"claude-")),
    ("openai", re.compile(r"(gpt-|chatgpt-|codex-|o\d|ft:)")),
    ("gemini", re.compile(r"gemini-")),
)
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MODEL = re.compile(r"[!-~]{1,200}")

_ANTHROPIC_DATE = re.compile(r"-20\d{6}$")
_ANTHROPIC_VERSION = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?$")
_ANTHROPIC_SELF_PINNED = (4, 6)
_OPENAI_DATE = re.compile(r"(-20\d\d-\d\d-\d\d|-\d{4}(-preview)?)$")
_OPENAI_VERSION = re.compile(r"gpt-(\d{1,2})(?:\.(\d{1,2}))?(?:-[a-z]+)*$")
_OPENAI_UNDATED = (5, 6)
_GEMINI_SNAPSHOT = re.compile(r"-\d{3}$")
_GEMINI_VERSION = re.compile(r"gemini-\d")
_MOVES = re.compile(r"-(latest|preview|exp|experimental)\b")


@dataclass(frozen=True)
class ModelName:
    """A provider, and the provider's name for the model."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"

    @classmethod
    def parse(cls, name: str) -> ModelName:
        """Read a name such as `claude-sonnet-4-6`, which implies the provider, or `provider:model`.

        A provider that is not built in is accepted, since an application can register its own.

        Raises:
            ConfigError: the name implies no provider, or is not a valid name.

        """
        text: object = name
        if not isinstance(text, str) or not _MODEL.fullmatch(text):
            raise ConfigError(
                f"model: expected a name such as 'claude-sonnet-4-6' or 'provider:model', got {name!r:.120}"
            )
        for provider, pattern in _VENDORS:
            if pattern.match(name):
                return cls(provider, name)
        provider, colon, model = name.partition(":")
        close = get_close_matches(provider, PROVIDERS, 1, 0.8)
        if colon and close and provider not in PROVIDERS:
            raise ConfigError(f"model {name!r:.120}: no provider {provider!r}; did you mean {close[0]!r}?")
        if colon and model and _PROVIDER.fullmatch(provider):
            return cls(provider, model)
        raise ConfigError(
            f"model {name!r:.120}: this name implies no provider; write it as provider:model with one of "
            f"{', '.join(PROVIDERS)}, e.g. 'openai-compatible:{name.rpartition(':')[2][:60] or 'my-model'}'"
        )

    @property
    def pinning(self) -> Pinning:
        """How firmly the name is bound to one model."""
        return pinning_of(self.provider, self.model)


def pinning_of(provider: str, model: str) -> Pinning:
    """How firmly a name is bound to one model, by the vendor's own rules."""
    rule = _RULES.get(provider)
    return rule(model) if rule else "pinned"


def _anthropic(model: str) -> Pinning:
    if _ANTHROPIC_DATE.search(model):
        return "pinned"
    version = _ANTHROPIC_VERSION.match(model)
    return "pinned" if version and _version(version) >= _ANTHROPIC_SELF_PINNED else "alias"


def _openai(model: str) -> Pinning:
    if model.startswith("ft:") or (_OPENAI_DATE.search(model) and not model.startswith("chatgpt-")):
        return "pinned"
    version = _OPENAI_VERSION.match(model)
    if version and not _MOVES.search(model) and _version(version) >= _OPENAI_UNDATED:
        return "versioned"
    return "alias"


def _gemini(model: str) -> Pinning:
    if _MOVES.search(model) or not _GEMINI_VERSION.match(model):
        return "alias"
    return "pinned" if _GEMINI_SNAPSHOT.search(model) else "versioned"


def _version(match: re.Match[str]) -> tuple[int, int]:
    return int(match[1]), int(match[2] or 0)


_RULES = {"anthropic": _anthropic, "openai": _openai, "gemini": _gemini}
