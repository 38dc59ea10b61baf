"""Settings: the only place where the environment is read. `midwatch settings` lists them all."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from midwatch.orchestration.keyspace import ORIGINALS_BYTES
from midwatch.schemas.limits import Limits


class Settings(BaseSettings):
    """Deployment: where things are and how much of them. What agents do is code, not environment.

    Order: environment, then `midwatch.toml` in the working directory, then the defaults here.
    """

    model_config = SettingsConfigDict(
        env_prefix="MIDWATCH_", toml_file="midwatch.toml", extra="forbid", populate_by_name=True, frozen=True
    )

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="State, and broker unless broker_url is set.")
    broker_url: str | None = Field(None, description="Celery's broker, when it is not the state's Redis.")
    agents: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with agents: `module` or `module:attr`, comma-separated."
    )
    prefix: str = Field(
        "mw", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15}$", description="Prefix of every key and queue of this fleet."
    )
    hand_off: bool = Field(
        True, description="Push the next step's message inside the commit (broker and state are one Redis)."
    )
    events: bool = Field(
        True, description="Send Celery and job events, for Flower's rows. Costs about half a worker's CPU at full load."
    )
    lease_ms: int = Field(3_000, ge=500, le=600_000, description="How long a claim holds without renewal.")
    session_originals_bytes: int = Field(
        ORIGINALS_BYTES,
        ge=100_000,
        description="Most bytes of archived groups and whole results, compressed, kept for one session; the oldest leave.",
    )
    sweep_ms: int = Field(500, ge=50, description="How often a steward looks for due steps.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: str = Field("json", pattern="^(json|console)$", description="json, or console for people.")

    limits: dict[str, Limits] = Field(
        {}, description="Limits of each downstream, by name or pattern: a table `[limits.NAME]` each in midwatch.toml."
    )

    anthropic_api_key: SecretStr | None = Field(
        None, validation_alias="ANTHROPIC_API_KEY", description="Anthropic's key."
    )
    anthropic_base_url: str | None = Field(
        None, validation_alias="ANTHROPIC_BASE_URL", description="Another Anthropic endpoint."
    )
    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="OpenAI's key, or that of a compatible server."
    )
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL", description="A compatible server.")
    gemini_api_key: SecretStr | None = Field(None, validation_alias="GEMINI_API_KEY", description="Gemini's key.")
    gemini_base_url: str | None = Field(
        None, validation_alias="GEMINI_BASE_URL", description="Another Gemini endpoint."
    )

    @field_validator("agents", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Initialiser, environment, `midwatch.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def limits_version(self) -> int:
        """When the limits were written, in ms since the epoch: the newest wins, be it a file or `midwatch gate set`."""
        file = Path(str(self.model_config["toml_file"]))
        return file.stat().st_mtime_ns // 1_000_000 if file.is_file() else 0

    @property
    def broker(self) -> str:
        """The broker's address."""
        return self.broker_url or self.redis_url

    @property
    def one_server(self) -> bool:
        """Are broker and state one Redis? Then a commit can hand the next step off."""
        return self.broker_url is None or self.broker_url == self.redis_url


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
