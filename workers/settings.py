"""Settings: the only place where the environment is read. `midwatch settings` lists them all."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Self, cast

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from midwatch.orchestration.keyspace import ORIGINALS_BYTES
from midwatch.schemas.limits import Limits
from midwatch.workers.dev_address import find_address
from midwatch.workers.server_address import AddressError, is_redis, read_address


class Settings(BaseSettings):
    """Deployment settings: addresses, names and sizes. The behaviour of agents is code and not a setting.

    The environment comes first, then `midwatch.toml` in the working directory, then the address of a
    `midwatch dev` that runs in this folder, then the defaults here.
    """

    model_config = SettingsConfigDict(
        env_prefix="MIDWATCH_",
        toml_file="midwatch.toml",
        extra="forbid",
        populate_by_name=True,
        frozen=True,
        hide_input_in_errors=True,  # a URL may hold a password
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis that holds the state. It is also the broker unless broker_url is set.",
    )
    broker_url: str | None = Field(None, description="Celery's broker, if it is another server than redis_url.")
    agents: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with agents: `module` or `module:attr`, comma-separated."
    )
    prefix: str = Field(
        "mw", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15}$", description="Prefix of every key and queue of this fleet."
    )
    hand_off: bool = Field(
        True, description="Push the next step's message inside the commit. Works if broker and state are one Redis."
    )
    events: bool = Field(
        True,
        description="Send Celery and job events, which Flower shows. Costs about half a worker's CPU at full load.",
    )
    lease_ms: int = Field(3_000, ge=500, le=600_000, description="How long a claim is valid without renewal.")
    session_originals_bytes: int = Field(
        ORIGINALS_BYTES,
        ge=100_000,
        description="Most bytes that one session keeps of archived groups and full results, compressed. The oldest are deleted.",
    )
    sweep_ms: int = Field(500, ge=50, description="How often a steward looks for due steps, in ms.")
    redrive_ms: int = Field(
        10_000,
        ge=100,
        description="How long a cause must be known before its dead letters are redriven, in ms. Doubled after each failed try.",
    )
    log_level: str = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$",
        description="DEBUG, INFO, WARNING, ERROR or CRITICAL.",
    )
    log_format: str = Field(
        "json", pattern="^(json|console)$", description="json, or console for reading in a terminal."
    )

    limits: dict[str, Limits] = Field(
        {},
        description="Limits by a downstream's name or pattern. In midwatch.toml: one table `[limits.NAME]` for each.",
    )

    anthropic_api_key: SecretStr | None = Field(
        None, validation_alias="ANTHROPIC_API_KEY", description="API key of Anthropic."
    )
    anthropic_base_url: str | None = Field(
        None, validation_alias="ANTHROPIC_BASE_URL", description="URL of another Anthropic endpoint."
    )
    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="API key of OpenAI, or of a compatible server."
    )
    openai_base_url: str | None = Field(
        None, validation_alias="OPENAI_BASE_URL", description="URL of a compatible server."
    )
    gemini_api_key: SecretStr | None = Field(None, validation_alias="GEMINI_API_KEY", description="API key of Gemini.")
    gemini_base_url: str | None = Field(
        None, validation_alias="GEMINI_BASE_URL", description="URL of another Gemini endpoint."
    )

    @field_validator("agents", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        """Check the URL now. A Redis client would raise at its first command, and a worker would already have said ready."""
        read_address(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "://" not in value:
            raise AddressError(
                "expected the URL of a broker, as in redis://HOST:PORT/DB or amqp://USER:PASSWORD@HOST/VHOST"
            )
        if is_redis(value):
            read_address(value)
        return value

    @model_validator(mode="after")
    def _can_hand_off(self) -> Self:
        """Only a value that is set is refused. The default is not used with another broker."""
        if "hand_off" in self.model_fields_set and self.hand_off and not self.one_server:
            raise ValueError(
                "hand_off=true has no effect, because broker_url is another server than redis_url; leave one of them out"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in order: arguments, environment, `midwatch.toml`, a `midwatch dev` in this folder."""
        file = TomlConfigSettingsSource(settings_cls)

        def find_dev() -> dict[str, str]:
            is_set = "redis_url" in {**file(), **env_settings(), **init_settings()}
            return {} if is_set else find_address()

        return init_settings, env_settings, file, cast("PydanticBaseSettingsSource", find_dev)

    @property
    def limits_version(self) -> int:
        """The time at which the file with the limits was written, in ms since the epoch.

        The newest limits win, from a file or from `midwatch gate set`.
        """
        file = Path(str(self.model_config["toml_file"]))
        return file.stat().st_mtime_ns // 1_000_000 if file.is_file() else 0

    @property
    def broker(self) -> str:
        """URL of the broker."""
        return self.broker_url or self.redis_url

    @property
    def one_server(self) -> bool:
        """Are broker and state one Redis? Then a commit can hand off the next step."""
        if self.broker_url is None or self.broker_url == self.redis_url:
            return True
        return is_redis(self.broker_url) and read_address(self.broker_url) == read_address(self.redis_url)


@cache
def settings() -> Settings:
    """Return the process's settings. They are read once."""
    return Settings()
