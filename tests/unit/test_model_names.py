"""Model names: which provider they belong to, and how firmly they are pinned."""

from __future__ import annotations

import pytest

from midwatch.orchestration.agents.model_names import ModelName, pinning_of
from midwatch.orchestration.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("claude-sonnet-4-6", "anthropic", "claude-sonnet-4-6"),
        ("gpt-5-2025-08-07", "openai", "gpt-5-2025-08-07"),
        ("o3-2025-04-16", "openai", "o3-2025-04-16"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("ft:gpt-4o-2024-08-06:acme::abc123", "openai", "ft:gpt-4o-2024-08-06:acme::abc123"),
        ("gemini-2.5-pro", "gemini", "gemini-2.5-pro"),
        ("anthropic:claude-sonnet-4-6", "anthropic", "claude-sonnet-4-6"),
        ("openai-compatible:llama3:8b", "openai-compatible", "llama3:8b"),
        ("openai-compatible:org/model-7b", "openai-compatible", "org/model-7b"),
        ("scripted:anything", "scripted", "anything"),
        ("bench:fast", "bench", "fast"),
    ],
)
def test_the_provider_is_implied_or_a_prefix(name: str, provider: str, model: str) -> None:
    """A vendor's own model name implies its provider. Any other provider is written before a colon, even an unknown one."""
    parsed = ModelName.parse(name)
    assert (parsed.provider, parsed.model) == (provider, model)
    assert ModelName.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "name", ["llama-3-70b", "org/model", "us.anthropic.claude-v1:0", "provider:", ":model", "Upper:x"]
)
def test_a_name_without_a_provider_is_refused(name: str) -> None:
    """The message shows the form and the known providers."""
    with pytest.raises(ConfigError, match="provider:model with one of anthropic, openai, gemini, openai-compatible"):
        ModelName.parse(name)


@pytest.mark.parametrize("name", ["", " ", "claude sonnet", "claude-ü", "x" * 201, "gpt-5\n", None, 5])
def test_an_invalid_name_is_refused(name: str) -> None:
    """No vendor's name has spaces, control characters, non-ASCII, or more than 200 characters."""
    with pytest.raises(ConfigError, match="expected a name such as") as refused:
        ModelName.parse(name)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "pinning"),
    [
        ("claude-sonnet-4-6", "pinned"),
        ("claude-opus-5-5", "pinned"),
        ("claude-sonnet-5", "pinned"),
        ("claude-haiku-10-1", "pinned"),
        ("claude-sonnet-4-5-20250929", "pinned"),
        ("claude-3-5-sonnet-20241022", "pinned"),
        ("claude-sonnet-4-5", "alias"),
        ("claude-opus-4", "alias"),
        ("claude-3-5-sonnet-latest", "alias"),
        ("claude-sonnet", "alias"),
        ("gpt-5-2025-08-07", "pinned"),
        ("gpt-5.5-2026-04-23", "pinned"),
        ("gpt-4o-mini-2024-07-18", "pinned"),
        ("gpt-4-0613", "pinned"),
        ("gpt-4-1106-preview", "pinned"),
        ("ft:gpt-4o:acme::1", "pinned"),
        ("gpt-5", "alias"),
        ("gpt-5.5", "alias"),
        ("gpt-4o", "alias"),
        ("o3", "alias"),
        ("chatgpt-4o-latest", "alias"),
        ("gpt-5-chat-latest", "alias"),
        ("gpt-6-latest", "alias"),
        ("gpt-5.6-terra", "versioned"),
        ("gpt-6-astra", "versioned"),
        ("gpt-6.2-sol", "versioned"),
        ("gemini-2.5-pro", "versioned"),
        ("gemini-2.0-flash-001", "pinned"),
        ("gemini-3-pro-preview", "alias"),
        ("gemini-2.5-flash-preview-09-2025", "alias"),
        ("gemini-flash-latest", "alias"),
        ("gemini-2.0-flash-exp", "alias"),
        ("openai-compatible:llama3:latest", "pinned"),
        ("scripted:x", "pinned"),
    ],
)
def test_how_firmly_a_name_is_pinned(name: str, pinning: str) -> None:
    """Each vendor has its own rules. Claude from 4.6 on needs no date, and gpt from 5.6 on has none."""
    parsed = ModelName.parse(name)
    assert parsed.pinning == pinning
    assert pinning_of(parsed.provider, parsed.model) == pinning
