"""The providers: name -> where it lives. An SDK is imported when its provider is first used, never before.

A new provider is one file and one line here; the suite in `tests/contract/test_providers.py` finds it by itself.
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

__all__ = ["Credentials", "Provider", "close", "load", "names", "register"]


class Provider(Model, Protocol):
    """A model whose connections are kept, and closed when the process ends."""

    def close(self) -> None:
        """Close every connection. The object is not used afterwards."""
        ...


Connect = Callable[[Credentials], Provider]

REGISTRY: dict[str, str] = {
    "anthropic": "midwatch.workers.providers.anthropic.model:connect",
    "openai": "midwatch.workers.providers.responses.model:connect",
    "gemini": "midwatch.workers.providers.chat_completions.model:connect_gemini",
    "openai-compatible": "midwatch.workers.providers.chat_completions.model:connect_compatible",
}
"""Provider name -> `module:function`; the function takes `Credentials` and returns the `Provider`."""

BUILT_IN = tuple(REGISTRY)
"""Names of those that come with Midwatch."""

_kept: dict[tuple[str, Credentials], Provider] = {}
_lock = threading.Lock()


def names() -> tuple[str, ...]:
    """Every registered provider, in the order of registration."""
    return tuple(REGISTRY)


def register(name: str, target: str) -> None:
    """Add a provider. `target` is `module:function`, imported on first use.

    Raises:
        ConfigError: the name is taken, or `target` is not of that form.

    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"expected 'module:function' for provider {name!r}, got {target!r}")
    if name in REGISTRY:
        raise ConfigError(f"provider {name!r} is registered already, as {REGISTRY[name]!r}; choose another name")
    REGISTRY[name] = target


def load(provider: str, credentials: Credentials | None = None) -> Provider:
    """The model of a provider: made once per process and credentials, then shared by all threads.

    Without `credentials` the vendors' own environment variables are read.

    Raises:
        ConfigError: no such provider is registered.
        ModelError: a key is missing (`auth_error`; the detail names the variable).

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
            module, _, attribute = REGISTRY[provider].partition(":")
            connect = cast("Connect", getattr(importlib.import_module(module), attribute))
            _kept[key] = connect(key[1])
        return _kept[key]


def close() -> None:
    """Close every kept client and forget it; a later `load` makes a new one."""
    with _lock:
        models = tuple(_kept.values())
        _kept.clear()
    for model in models:
        model.close()


def _forget_after_fork() -> None:
    """A forked child must not talk over its parent's TLS connections: it makes its own clients."""
    global _lock
    _lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
