"""The sections of the settings: each a table of `chordwise.toml`."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr

Provider: TypeAlias = Literal["extractive", "openai", "anthropic", "local"]
StructuredOutput: TypeAlias = Literal["json_schema", "json_object", "none"]


class Section(BaseModel):
    """A table of `chordwise.toml`: closed, frozen, and silent about its input in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ModelSettings(Section):
    """A model under a name of the user's choice: `[models.NAME]`."""

    provider: Provider
    model: str = Field(default="", description="The provider's name of it, or a GGUF file (local).")
    base_url: str = Field(default="", description="Empty: the provider's public address.")
    api_key: SecretStr = Field(
        default=SecretStr(""), description="Empty: OPENAI_API_KEY or ANTHROPIC_API_KEY."
    )
    context_tokens: PositiveInt = 32_768
    max_output_tokens: PositiveInt = 2_048
    timeout_seconds: PositiveFloat = Field(default=120, description="Of one request, in total.")
    structured_output: StructuredOutput = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = Field(default=None, description="Sent only when set.")
    input_usd_per_million_tokens: Decimal | None = None
    output_usd_per_million_tokens: Decimal | None = None


class PipelineSettings(Section):
    """How work is cut, leased and taken up again."""

    chunk_tokens: PositiveInt = Field(default=3_000, description="Of text in one chunk, at most.")
    lease_seconds: PositiveFloat = 60
    heartbeat_seconds: PositiveFloat = 15
    recovery_interval_seconds: PositiveFloat = 5
    dispatch_interval_seconds: PositiveFloat = 0.2
    max_attempts: PositiveInt = Field(default=3, description="Claims before quarantine.")
    max_postponements: PositiveInt = Field(default=8, description="Waits for a provider.")
    postponement_base_seconds: PositiveFloat = 30
    postponement_max_seconds: PositiveFloat = 900
    outage_seconds: PositiveFloat = Field(default=600, description="For a database that is away.")
    stalled_seconds: PositiveFloat = Field(
        default=60, description="Sent work that nobody claimed is sent again after this long."
    )


class RetrySettings(Section):
    """The one retry layer around a model call."""

    attempts: PositiveInt = 4
    base_seconds: PositiveFloat = 1
    max_wait_seconds: PositiveFloat = 30
    total_seconds: PositiveFloat = Field(default=240, description="Waits and calls of a question.")


class ReaderSettings(Section):
    """The limits within which files become text."""

    timeout_seconds: PositiveFloat = 60
    memory_megabytes: PositiveInt = 1_024
    max_file_megabytes: PositiveInt = 256
    max_characters: PositiveInt = 50_000_000


class WorkerSettings(Section):
    """One worker process."""

    concurrency: PositiveInt = 16
    consumption_seconds: PositiveFloat = 45
    shutdown_grace_seconds: PositiveFloat = 20
    visibility_timeout_seconds: PositiveInt = 1_800


class EmbeddedSettings(Section):
    """What Chordwise starts by itself in the background."""

    start: bool = Field(
        default=True,
        description="False where database, broker, workers and scheduler are run by others.",
    )
    idle_minutes: PositiveFloat = 10


class LoggingSettings(Section):
    """What the processes write to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"
