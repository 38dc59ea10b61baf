"""The API keys and base URLs of the providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import Failure, FailureKind

if TYPE_CHECKING:
    from midwatch.workers.settings import Settings

VARIABLES: dict[str, str] = {
    "anthropic_api_key": "ANTHROPIC_API_KEY",
    "anthropic_base_url": "ANTHROPIC_BASE_URL",
    "openai_api_key": "OPENAI_API_KEY",
    "openai_base_url": "OPENAI_BASE_URL",
    "gemini_api_key": "GEMINI_API_KEY",
    "gemini_base_url": "GEMINI_BASE_URL",
}
"""Field -> the vendor's own environment variable."""

NEEDED: dict[str, str] = {
    "anthropic": "anthropic_api_key",
    "openai": "openai_api_key",
    "gemini": "gemini_api_key",
    "openai-compatible": "openai_base_url",
}
"""Provider -> the field without which it can't be made. A test compares it with the providers."""


@dataclass(frozen=True)
class Credentials:
    """Keys and base URLs. The repr shows none of them: it appears in tracebacks, and a URL may contain a password."""

    anthropic_api_key: str | None = field(default=None, repr=False)
    anthropic_base_url: str | None = field(default=None, repr=False)
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = field(default=None, repr=False)
    gemini_api_key: str | None = field(default=None, repr=False)
    gemini_base_url: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the vendors' variables. A blank value counts as not set. Whitespace around a key is removed."""
        return cls(**{name: environ.get(variable, "").strip() or None for name, variable in VARIABLES.items()})

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the settings of a worker: the same variables, or `midwatch.toml`."""
        return cls(**{name: _reveal(getattr(settings, name)).strip() or None for name in VARIABLES})

    def find_missing(self, provider: str) -> str | None:
        """Return the variable that must be set before this provider can be called. None if it is set, or none is needed."""
        name = NEEDED.get(provider)
        return VARIABLES[name] if name is not None and not getattr(self, name) else None

    def need(self, name: str, provider: str) -> str:
        """Return the value of a required field.

        Raises:
            ModelError: the value is not set (`auth_error`, which is never retried).

        """
        value: str | None = getattr(self, name)
        if value:
            return value
        detail = f"{provider}: {VARIABLES[name]} is not set; set it in the environment of the workers"
        raise ModelError(Failure(kind=FailureKind.AUTH_ERROR, detail=detail), sent=False)


def _reveal(value: object) -> str:
    """Return the text of a setting that may be a secret. Empty if it is not set."""
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if reveal else value or "")
