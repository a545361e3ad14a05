"""The sections of the settings: each a table of `chordwise.toml`."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from chordwise.domain.addresses import has_user
from chordwise.domain.people import Role
from chordwise.domain.tiers import Tier
from chordwise.errors import ConfigurationError
from chordwise.settings import service_addresses
from chordwise.settings.service_addresses import ProviderName, host_of, is_at_provider

AUTO = "auto"
"""The model name that lets routing choose among the tiers."""

BY_WORDS = "textrank-1"
BY_MEANING = "minilm-1"
"""The built-in model, and its variant that also compares meanings (extra `encoder`)."""


def _checked_address(url: str) -> str:
    if url:
        service_addresses.check_web(url)
    return url


WebAddress: TypeAlias = Annotated[str, AfterValidator(_checked_address)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65_535)]
StructuredOutput: TypeAlias = Literal["json_schema", "json_object", "none"]

_PRICES = (
    "input_usd_per_million_tokens",
    "output_usd_per_million_tokens",
    "cached_input_usd_per_million_tokens",
)
RAISED_BY = 4
"""The factor of `max_output_tokens` for an unset `max_output_tokens_on_retry`."""


class Section(BaseModel):
    """A table of `chordwise.toml`: frozen, without unknown keys, and without input in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ModelSettings(Section):
    """One table `[models.NAME]`."""

    provider: ProviderName
    model: str = Field(default="", description="The provider's model name, or a GGUF file (local).")
    base_url: WebAddress = Field(default="", description="Empty: the provider's public address.")
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Empty: api_key_env, else the provider's key at its public address.",
    )
    api_key_env: str = Field(
        default="",
        pattern=r"^([A-Z][A-Z0-9_]*_API_KEY)?$",
        description="The variable with the key: NAME_API_KEY.",
    )
    context_tokens: PositiveInt = 32_768
    max_output_tokens: PositiveInt = 2_048
    timeout_seconds: PositiveFloat = Field(
        default=120, description="Of one request, or of one answer of the built-in model."
    )
    structured_output: StructuredOutput = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = Field(default=None, description="Sent only when set.")
    service_tier: Literal["", "flex"] = Field(
        default="", description="flex: half the price, may take minutes (OpenAI)."
    )
    batch: bool | None = Field(
        default=None, description="Has a Batch API; unset: only at the provider's public address."
    )
    keep_alive: str = Field(
        default="",
        pattern=r"^(-1|[1-9]\d{0,5}[smh])?$",
        description="How long Ollama keeps the model loaded after a question: 30s, 10m, 2h, -1.",
    )
    max_output_tokens_on_retry: PositiveInt | None = Field(
        default=None,
        description="For one retry of a truncated answer; unset: 4 x max_output_tokens.",
    )
    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Unset: as the provider reports."
    )
    tokens_per_minute: PositiveInt | None = Field(
        default=None, description="Unset: as the provider reports."
    )
    max_in_flight: PositiveInt | None = Field(
        default=None, description="Concurrent calls of all workers; unset: measured."
    )
    price: Literal["", "free"] = Field(
        default="", description="free: no cost; empty: the prices below, or the price list."
    )
    input_usd_per_million_tokens: Decimal | None = Field(default=None, ge=0)
    cached_input_usd_per_million_tokens: Decimal | None = Field(
        default=None, ge=0, description="Unset: the price of uncached input tokens."
    )
    output_usd_per_million_tokens: Decimal | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def check_prices(self) -> ModelSettings:
        """Refuse an incomplete price, which would otherwise be ignored.

        Raises:
            ValueError: One of the two prices is missing, or the model is also free.
        """
        prices = [name for name in _PRICES if getattr(self, name) is not None]
        if prices and self.price:
            raise ValueError(f'price is "free" and {prices[0]} is set: remove one of them')
        missing = [name for name in _PRICES[:2] if name not in prices]
        if prices and missing:
            raise ValueError(f"{prices[0]} is set without {missing[0]}: set both or neither")
        return self

    @model_validator(mode="after")
    def check_key(self) -> ModelSettings:
        """Refuse a provider's variable at another address, and a key beside user information.

        Raises:
            ValueError: `api_key_env` names such a variable, or both are set.
        """
        provider = self.api_key_env.removesuffix("_API_KEY").lower()
        host = host_of(provider)
        if host and not (provider == self.provider and is_at_provider(provider, self.base_url)):
            raise ValueError(
                f"api_key_env names {self.api_key_env}, which is sent only to {host}: use a "
                "different variable for this address"
            )
        if has_user(self.base_url) and (self.api_key.get_secret_value() or self.api_key_env):
            raise ValueError(
                "base_url contains user information and a key is set: use only one of them"
            )
        return self

    @property
    def output_ceiling(self) -> int:
        """The output limit for the retry of a truncated answer."""
        limit = self.max_output_tokens_on_retry or RAISED_BY * self.max_output_tokens
        return max(self.max_output_tokens, limit)


class PipelineSettings(Section):
    """The table `[pipeline]`: chunks, leases and attempts."""

    chunk_tokens: PositiveInt | None = Field(
        default=None,
        description="Maximum text of one chunk; unset: from the model's context and the question.",
    )
    lease_seconds: PositiveFloat = 60
    heartbeat_seconds: PositiveFloat = 15
    recovery_interval_seconds: PositiveFloat = 5
    dispatch_interval_seconds: PositiveFloat = 0.2
    max_attempts: PositiveInt = Field(default=3, description="Claims before quarantine.")
    max_postponements: PositiveInt = Field(default=8, description="Waits for a provider.")
    postponement_base_seconds: PositiveFloat = 30
    max_postponement_seconds: PositiveFloat = 900
    database_outage_timeout_seconds: PositiveFloat = Field(
        default=600, description="For an unavailable database."
    )
    stalled_seconds: PositiveFloat = Field(
        default=60,
        description="Sent but unclaimed work is sent again after this time, or a sixth of it if no"
        " message waits in the broker; the wait doubles each time.",
    )

    @property
    def resend_wait(self) -> timedelta:
        """How long a message that was sent once waits before it is sent again."""
        return timedelta(seconds=self.stalled_seconds / 6)


class RetrySettings(Section):
    """The table `[retries]`: retries of model calls."""

    attempts: PositiveInt = 4
    base_seconds: PositiveFloat = 1
    max_wait_seconds: PositiveFloat = 30
    total_seconds: PositiveFloat = Field(default=300, description="Calls and waits of a question.")


class LimitSettings(Section):
    """The table `[limits]`: limits for a provider whose own limits are unknown."""

    first_in_flight: PositiveInt = Field(default=16, description="Concurrent calls at the start.")
    max_in_flight: PositiveInt = Field(default=1_024, description="Maximum concurrent calls.")
    max_wait_seconds: PositiveFloat = Field(
        default=60, description="For a permit; then the work is postponed."
    )
    breaker_failures: PositiveInt = Field(
        default=6, description="Consecutive failures after which requests stop."
    )
    breaker_seconds: PositiveFloat = Field(default=15, description="The first such stop.")
    pause_seconds: PositiveFloat = Field(
        default=300, description="After a refused key, model or quota; then one call tries again."
    )


class TierSettings(Section):
    """The table `[tiers]`: the models of `--model auto`."""

    small: str = ""
    medium: str = ""
    large: str = ""

    def configured(self) -> dict[Tier, str]:
        """Return the model name of each configured tier, in ascending order."""
        models = {Tier.SMALL: self.small, Tier.MEDIUM: self.medium, Tier.LARGE: self.large}
        return {tier: name for tier, name in models.items() if name}

    def selected_by(self, name: str) -> dict[Tier, str]:
        """Return the models of the tiers in a name, ascending: all for `auto`, none for a model.

        Raises:
            ConfigurationError: `auto` without any tier.
        """
        tiers = self.configured()
        if name == AUTO and not tiers:
            raise ConfigurationError(
                "The model “auto” needs at least one tier.",
                "Set tiers.small, tiers.medium or tiers.large (docs/models.md).",
            )
        return tiers if name == AUTO else {tier: tiers[tier] for tier in tiers if tier == name}


class RoutingSettings(Section):
    """The table `[routing]` (docs/models.md)."""

    medium_from: float = Field(default=0.3, ge=0, le=1, description="Complexity, 0 to 1.")
    large_from: float = Field(default=0.45, ge=0, le=1, description="Complexity, 0 to 1.")
    cascade: bool = Field(default=True, description="Ask the next tier if an answer is weak.")
    accept_quality: float = Field(default=0.8, ge=0, le=1)
    accept_confidence: float = Field(default=0.6, ge=0, le=1)


CapUsd: TypeAlias = Annotated[Decimal, Field(gt=0, lt=1_000_000, decimal_places=8)]


class BudgetSettings(Section):
    """The table `[budget]`; the `--budget` of a run overrides `usd_per_run`."""

    usd_per_run: CapUsd | None = Field(default=None, description="If --budget is not given.")
    usd_per_day: CapUsd | None = Field(default=None, description="Of all runs of a UTC day.")
    confirm_usd: CapUsd = Field(
        default=Decimal(20), description="Runs of a higher expected cost need --yes or a budget."
    )
    allow_unknown_prices: bool = Field(
        default=False, description="Allow models of unknown price despite a budget."
    )


class CacheSettings(Section):
    """The table `[cache]`: reuse of completions for identical requests."""

    enabled: bool = True
    max_age_days: PositiveFloat = 30


class PromptSettings(Section):
    """The table `[prompts]`: the user's templates, and fallback prompts for invalid answers."""

    folder: Path | None = Field(default=None, description="Templates, relative to chordwise.toml.")
    fallback: tuple[Literal["plain"], ...] = Field(
        default=("plain",), description="In this order, before further models."
    )
    learned_examples: NonNegativeInt = Field(
        default=4, le=20, description="Maximum corrected answers of a profile in a prompt; 0: none."
    )
    learned_example_tokens: PositiveInt = Field(
        default=1_200, description="Maximum tokens of these together."
    )


class ReaderSettings(Section):
    """The table `[readers]`: limits of reading files."""

    timeout_seconds: PositiveFloat = 60
    file_timeout_seconds: PositiveFloat = Field(
        default=1_200, description="For one file, in total."
    )
    memory_megabytes: PositiveInt | None = Field(
        default=None, description="Unset: derived from the available memory."
    )
    max_file_megabytes: PositiveInt | None = Field(
        default=None, description="Unset: derived from the available memory."
    )
    max_characters: PositiveInt = 50_000_000
    max_documents: PositiveInt = 100_000
    max_unpacked_megabytes: PositiveInt = 1_024
    hidden_text: Literal["keep", "leave_out"] = Field(
        default="keep", description="Text that a person does not see in the file."
    )
    ocr: bool = Field(default=False, description="Recognize scans and images with Tesseract.")
    ocr_languages: str = Field(default="eng", pattern=r"^[A-Za-z]\w*(\+[A-Za-z]\w*)*$")
    ocr_data: Path | None = Field(
        default=None, description="The folder of Tesseract's languages; unset: its default."
    )
    ocr_timeout_seconds: PositiveFloat = 900
    vision: str = Field(
        default="",
        description="The model that reads scans and images: a name in [models] or provider/model.",
    )
    max_vision_pages: PositiveInt = Field(default=200, description="Maximum pages of one document.")
    max_vision_edge_pixels: int = Field(
        default=1_568, ge=256, le=2_576, description="Longer edge of a page image."
    )


class WorkerSettings(Section):
    """The table `[worker]`; the processes of a worker share `concurrency`."""

    concurrency: PositiveInt = Field(default=16, description="Concurrent calls of all processes.")
    processes: PositiveInt | Literal["auto"] = Field(
        default="auto", description="“auto”: one per core, at most `concurrency`."
    )
    memory_megabytes: PositiveInt | None = Field(
        default=None, description="Of each process; unset: derived from the available memory."
    )
    consumer_timeout_seconds: PositiveFloat = 45
    shutdown_grace_seconds: PositiveFloat = 20
    visibility_timeout_seconds: PositiveInt = 1_800

    @property
    def chunk_seconds(self) -> float:
        """The time for all calls of a chunk; the other half is for waits and storing."""
        return self.visibility_timeout_seconds / 2


class EmbeddedSettings(Section):
    """The table `[embedded]`: services that Chordwise starts automatically."""

    start: bool = Field(
        default=True,
        description="False: database, broker, workers and scheduler are run separately.",
    )
    idle_minutes: PositiveFloat = 10


class WebSettings(Section):
    """The table `[web]` (docs/web.md)."""

    address: str = Field(
        default="127.0.0.1",
        description="Any other address needs a password_hash or a trusted proxy.",
    )
    port: Port = Field(default=0, description="0: a free port.")
    public_url: str = Field(default="", description="The URL behind a proxy: https://docs.lan.")
    password_hash: SecretStr = Field(
        default=SecretStr(""), description="The output of `chordwise web --set-password`."
    )
    trusted_user_header: str = Field(
        default="", description="Header with the user that the proxy has authenticated."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="The proxies whose header is trusted."
    )
    roles: dict[str, Role] = Field(
        default={}, description="By name of a user or token; `*`: all others."
    )
    max_upload_megabytes: PositiveInt = Field(default=256, description="Of one upload.")
    submit_folders: tuple[Path, ...] = Field(
        default=(), description="The folders below which the API may submit files by path."
    )

    @model_validator(mode="after")
    def check_access(self) -> WebSettings:
        """Refuse a URL without a scheme, and a user header without trusted proxies."""
        if self.public_url and not self.public_url.startswith(("https://", "http://")):
            raise ValueError("public_url must begin with https:// or http://")
        if bool(self.trusted_user_header) != bool(self.trusted_proxies):
            raise ValueError("trusted_user_header and trusted_proxies must be set together")
        return self


class LoggingSettings(Section):
    """The table `[logging]`: logs on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"


Principle: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)
]
Principles: TypeAlias = Annotated[tuple[Principle, ...], Field(max_length=20)]


class MetricsSettings(Section):
    """The table `[metrics]`: ports of `/metrics` for Prometheus; 0 serves none."""

    address: str = Field(default="127.0.0.1", description="Without access control.")
    worker_port: Port = 0
    reader_port: Port = 0
    scheduler_port: Port = 0
    token: SecretStr = Field(default=SecretStr(""), description="For /metrics of the pages.")


class TraceSettings(Section):
    """The table `[traces]`: traces of documents over OTLP; without an endpoint there are none."""

    endpoint: WebAddress = Field(default="", description="Of a collector: http://localhost:4318.")
    share: float = Field(default=0.1, ge=0, le=1, description="Of all documents.")


class CritiqueSettings(Section):
    """The table `[critique]` (docs/models.md)."""

    principles: Principles = Field(default=(), description="Empty: those of each analysis type.")


class BatchSettings(Section):
    """The table `[batch]` (docs/costs.md)."""

    gather_seconds: NonNegativeFloat = Field(
        default=30, description="Time without a new question after which a batch is submitted."
    )
    poll_seconds: PositiveFloat = Field(default=30, description="Until the first poll of a batch.")
    max_poll_seconds: PositiveFloat = Field(default=600, description="Maximum time between polls.")
    spill_over_hours: PositiveFloat = Field(
        default=20, description="Time after which unanswered questions are asked online."
    )
    max_requests: PositiveInt = Field(default=20_000, le=50_000, description="In one batch.")


class IntakeSettings(Section):
    """The table `[intake]`."""

    read: Literal["here", "workers"] = Field(
        default="here", description="“workers”: by python -m worker --queues read."
    )


class InboxSettings(Section):
    """The table `[inbox]` (docs/inbox.md)."""

    enabled: bool = True
    folders: tuple[Path, ...] = Field(default=(), description="Relative to chordwise.toml.")
    stability_seconds: PositiveFloat = Field(
        default=5, description="A file is complete when it has not changed for this time."
    )
    quiet_seconds: PositiveFloat = Field(
        default=10, description="A run is closed when no file has arrived for this time."
    )
    rescan_seconds: PositiveFloat = Field(default=300, description="Interval of full scans.")
    polling: bool = Field(default=False, description="For network shares, which send no events.")
    polling_seconds: PositiveFloat = 2

    @property
    def is_watched(self) -> bool:
        """Whether the scheduler watches any folder."""
        return self.enabled and bool(self.folders)


_LISTS = {"folders": '["inbox"]', "types": '["summary"]'}
_ANY_LIST = '["a", "b"]'


def problems(error: ValidationError) -> list[str]:
    """Return each problem, without a final full stop and without the input."""
    texts = []
    for detail in error.errors(include_input=False, include_url=False):
        steps, problem = [*map(str, detail["loc"])], detail["msg"].removeprefix("Value error, ")
        place = f"{'.'.join(steps)}: " if steps else ""
        match detail["type"]:
            case "extra_forbidden":
                place, problem = "", f"unknown setting {'.'.join(steps)}"
            case "tuple_type":
                problem = f"it must be a list, such as {_LISTS.get(steps[-1], _ANY_LIST)}"
            case "dict_type" | "mapping_type" | "model_type":
                problem = "it must be a table"
        texts.append(f"{place}{problem}")
    return texts
