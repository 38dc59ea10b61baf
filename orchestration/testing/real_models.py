"""May this process reach a real provider? A switch that tests turn off, consulted where providers are loaded.

It holds for the whole process, not for one thread: what a test must not reach, its tool threads must not reach either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from midwatch.orchestration.errors import ConfigError

_forbidden: list[frozenset[str]] = []


@contextmanager
def forbidden(allow: tuple[str, ...] = ()) -> Iterator[None]:
    """During the block no provider can be loaded, but those in `allow`. Blocks may be nested; each of them holds."""
    _forbidden.append(frozenset(allow))
    try:
        yield
    finally:
        _forbidden.pop()


def check(provider: str) -> None:
    """Called before a provider is loaded.

    Raises:
        ConfigError: a test has forbidden it.

    """
    for allowed in _forbidden:
        if provider not in allowed:
            raise ConfigError(
                f"provider {provider!r} was about to be called, and this test forbids real models; "
                "hand in a ScriptedModel, or allow it: forbid_real_models(allow=(...,))"
            )
