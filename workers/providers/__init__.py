"""The registry of providers. A provider's SDK is imported when the provider is first used, never before.

To add a provider, write its file and add one line here. `tests/contract/test_providers.py` then tests it, too.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from difflib import get_close_matches
from typing import Protocol, cast

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.ports import Model
from midwatch.orchestration.testing import real_models
from midwatch.workers.providers.credentials import Credentials

__all__ = ["Credentials", "Provider", "close", "import_target", "load", "names", "register"]


class Provider(Model, Protocol):
    """A model that keeps its connections open until it is closed."""

    def close(self) -> None:
        """Close every connection. The object must not be used afterwards."""
        ...


Connect = Callable[[Credentials], Provider]

REGISTRY: dict[str, str] = {
    "anthropic": "midwatch.workers.providers.anthropic.provider:connect",
    "openai": "midwatch.workers.providers.responses.provider:connect",
    "gemini": "midwatch.workers.providers.chat_completions.gemini:connect",
    "openai-compatible": "midwatch.workers.providers.chat_completions.openai_compatible:connect",
}
"""Provider name -> `module:function`; the function takes `Credentials` and returns the `Provider`."""

BUILT_IN = tuple(REGISTRY)
"""Names of the providers that come with Midwatch."""

_kept: dict[tuple[str, Credentials], Provider] = {}
_lock = threading.Lock()


def names() -> tuple[str, ...]:
    """Return the name of every registered provider, in the order of registration."""
    return tuple(REGISTRY)


def register(name: str, target: str) -> None:
    """Add a provider. `target` is `module:function`, imported on first use.

    Raises:
        ConfigError: the name is taken, or `target` does not have the form `module:function`.

    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"expected 'module:function' for provider {name!r}, got {target!r}")
    if name in REGISTRY:
        raise ConfigError(f"provider {name!r} is already registered as {REGISTRY[name]!r}; choose another name")
    REGISTRY[name] = target


def load(provider: str, credentials: Credentials | None = None) -> Provider:
    """Return the model of a provider. It is made once per process and credentials, and shared by all threads.

    Without `credentials`, they are read from the vendors' own environment variables.

    Raises:
        ConfigError: no provider of that name is registered.
        ModelError: a key is missing (`auth_error`). The detail names the environment variable.

    """
    real_models.check(provider)
    if provider not in REGISTRY:
        close_names = get_close_matches(provider, REGISTRY, n=1)
        hint = f"; did you mean {close_names[0]!r}?" if close_names else ""
        raise ConfigError(f"no provider {provider!r}; there are: {', '.join(REGISTRY)}{hint}")
    key = (provider, Credentials.from_environment(os.environ) if credentials is None else credentials)
    model = _kept.get(key)
    if model is not None:
        return model
    with _lock:
        if key not in _kept:
            _kept[key] = import_target(provider)(key[1])
        return _kept[key]


def import_target(provider: str) -> Connect:
    """Import the module of a registered provider, and return the function that makes the provider."""
    module, _, attribute = REGISTRY[provider].partition(":")
    return cast("Connect", getattr(importlib.import_module(module), attribute))


def close() -> None:
    """Close and remove every kept provider. A later `load` makes a new one."""
    with _lock:
        models = tuple(_kept.values())
        _kept.clear()
    for model in models:
        model.close()


def _forget_after_fork() -> None:
    """Empty the cache in a forked child, which must not share its parent's TLS connections."""
    global _lock
    _lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
