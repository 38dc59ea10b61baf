"""The registry of providers: names, error messages, and one kept client per provider and credentials."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ConfigError, ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from midwatch.workers.providers import REGISTRY, Credentials

GIVEN = Credentials(
    anthropic_api_key="k", openai_api_key="k", gemini_api_key="k", openai_base_url="http://127.0.0.1:9/v1"
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    providers.close()


def test_built_in_providers() -> None:
    """Four providers come with the package."""
    ours = tuple(
        name for name, target in providers.REGISTRY.items() if target.startswith("midwatch.workers.providers.")
    )
    assert ours == ("anthropic", "openai", "gemini", "openai-compatible")


def test_unknown_provider_gets_a_suggestion() -> None:
    """The error lists the registered providers and suggests the nearest name."""
    with pytest.raises(
        ConfigError, match=r"no provider 'antropic'; there are: anthropic, .*; did you mean 'anthropic'\?"
    ):
        providers.load("antropic", GIVEN)


@pytest.mark.parametrize(
    ("name", "variable"),
    [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY"), ("gemini", "GEMINI_API_KEY"),
     ("openai-compatible", "OPENAI_BASE_URL")],
)  # fmt: skip
def test_a_missing_variable_is_named(name: str, variable: str) -> None:
    """If a required variable is missing, loading fails with an auth error that names it, every time."""
    for _ in range(2):
        with pytest.raises(ModelError, match=f"{name}: {variable} is not set") as caught:
            providers.load(name, Credentials())
        assert caught.value.failure.kind is FailureKind.AUTH_ERROR
        assert not caught.value.sent
    assert Credentials().find_missing(name) == variable
    assert GIVEN.find_missing(name) is None


@pytest.mark.parametrize("name", providers.names())
def test_provider_is_kept_per_credentials(name: str) -> None:
    """Threads that load a provider at the same time get the same object. Other credentials give another object."""
    found: list[object] = []
    together = threading.Barrier(8)

    def run() -> None:
        together.wait(10)
        found.append(providers.load(name, GIVEN))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len({id(model) for model in found}) == 1
    other = Credentials(**{**vars(GIVEN), "anthropic_api_key": "l", "openai_api_key": "l", "gemini_api_key": "l"})
    assert providers.load(name, other) is not found[0]


def test_environment_is_read_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, the vendors' variables are read. A blank value counts as not set; whitespace is removed."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "  \n")
    with pytest.raises(ModelError):
        providers.load("anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", " sk-ant-1\n")
    assert providers.load("anthropic").name == "anthropic"
    read = Credentials.from_environment({"ANTHROPIC_API_KEY": " sk-ant-1\n", "OPENAI_BASE_URL": "http://x"})
    assert read == Credentials(anthropic_api_key="sk-ant-1", openai_base_url="http://x")


def test_credentials_are_not_shown() -> None:
    """The repr of credentials shows no key and no URL, because a URL may contain a password."""
    assert repr(Credentials(anthropic_api_key="sk-secret", openai_base_url="http://u:p@host")) == "Credentials()"


def test_own_provider_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user can register a provider. A name that is taken and an incomplete target are refused."""
    monkeypatch.setattr(providers, "REGISTRY", dict(REGISTRY))
    providers.register("mine", "midwatch.workers.providers.chat_completions.openai_compatible:connect")
    assert providers.load("mine", GIVEN).name == "openai-compatible"
    with pytest.raises(ConfigError, match="already registered"):
        providers.register("mine", "a:b")
    with pytest.raises(ConfigError, match="expected 'module:function'"):
        providers.register("other", "module_only")
