"""A switch by which tests forbid real providers. It is checked where a provider is loaded.

It applies to the whole process, because the threads of a test's tools must not call real providers either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from midwatch.orchestration.errors import ConfigError

_forbidden: list[frozenset[str]] = []


@contextmanager
def forbid(allow: tuple[str, ...] = ()) -> Iterator[None]:
    """During the block, only providers in `allow` can be loaded. In nested blocks, every block's rule applies."""
    _forbidden.append(frozenset(allow))
    try:
        yield
    finally:
        _forbidden.pop()


def check(provider: str) -> None:
    """Check that `provider` may be loaded.

    Raises:
        ConfigError: a test forbids it.

    """
    for allowed in _forbidden:
        if provider not in allowed:
            raise ConfigError(
                f"provider {provider!r} was about to be called, and this test forbids real models; "
                "hand in a ScriptedModel, or allow it: forbid_real_models(allow=(...,))"
            )
