"""The sections of the settings: each a table of `chordwise.toml`."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
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
    field_validator,
    model_validator,
)

from chordwise.domain import webhook_signatures
from chordwise.domain.addresses import has_user, is_at_provider, provider_host
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.inbox_names import is_inside
from chordwise.domain.states import Lane
from chordwise.domain.tasks import CONFIDENCE_THRESHOLD, MAX_VOTES, AnalysisType
from chordwise.domain.tiers import Tier
from chordwise.errors import ConfigurationError
from chordwise.settings import addresses

AUTO = "auto"
"""The name that stands for the tiers: routing chooses among them."""

BY_WORDS = "textrank-1"
BY_MEANING = "minilm-1"
"""The built-in model, and the one that also compares meanings by the encoder of an extra."""
Provider: TypeAlias = Literal["extractive", "openai", "anthropic", "local"]
StructuredOutput: TypeAlias = Literal["json_schema", "json_object", "none"]

_PRICES = (
    "input_usd_per_million_tokens",
    "output_usd_per_million_tokens",
    "cached_input_usd_per_million_tokens",
)
RAISED_BY = 4
"""`max_output_tokens_on_retry` is so many times `max_output_tokens` where it is unset."""


class Section(BaseModel):
    """A table of `chordwise.toml`: closed, frozen, and silent about its input in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ModelSettings(Section):
    """A model under a name of the user's choice: `[models.NAME]`."""

    provider: Provider
    model: str = Field(default="", description="The provider's name of it, or a GGUF file (local).")
    base_url: str = Field(default="", description="Empty: the provider's public address.")
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Empty: of api_key_env, else at the public address the provider's.",
    )
    api_key_env: str = Field(
        default="",
        pattern=r"^([A-Z][A-Z0-9_]*_API_KEY)?$",
        description="The variable that holds the key: NAME_API_KEY.",
    )
    context_tokens: PositiveInt = 32_768
    max_output_tokens: PositiveInt = 2_048
    timeout_seconds: PositiveFloat = Field(
        default=120, description="Of one request, in total; of an answer of the built-in model."
    )
    structured_output: StructuredOutput = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = Field(default=None, description="Sent only when set.")
    service_tier: Literal["", "flex"] = Field(
        default="", description="flex: half the price, may take minutes (OpenAI)."
    )
    batch: bool | None = Field(
        default=None, description="Has a Batch API; unset: at the provider's public address only."
    )
    keep_alive: str = Field(
        default="",
        pattern=r"^(-1|[1-9]\d{0,5}[smh])?$",
        description="How long Ollama keeps the model loaded after a question: 30s, 10m, 2h, -1.",
    )
    max_output_tokens_on_retry: PositiveInt | None = Field(
        default=None, description="Once, where an answer was cut off; unset: 4 x max_output_tokens."
    )
    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Unset: learnt from the provider."
    )
    tokens_per_minute: PositiveInt | None = Field(
        default=None, description="Unset: learnt from the provider."
    )
    max_in_flight: PositiveInt | None = Field(
        default=None, description="Calls at the same time, of all workers; unset: found out."
    )
    price: Literal["", "free"] = Field(
        default="", description="free: costs nothing; unset: the prices below, or the price list."
    )
    input_usd_per_million_tokens: Decimal | None = Field(default=None, ge=0)
    cached_input_usd_per_million_tokens: Decimal | None = Field(
        default=None, ge=0, description="Unset: as the others."
    )
    output_usd_per_million_tokens: Decimal | None = Field(default=None, ge=0)

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, url: str) -> str:
        """Refuse an address that no web server can have."""
        if url:
            addresses.check_web(url)
        return url

    @model_validator(mode="after")
    def check_prices(self) -> ModelSettings:
        """Refuse half a price: it would be passed over, and the public list's or none would hold.

        Raises:
            ValueError: One of the two prices is missing, or the model is free as well.
        """
        given = [name for name in _PRICES if getattr(self, name) is not None]
        if given and self.price:
            raise ValueError(f'price is "free", and {given[0]} is set too: remove one of them')
        missing = [name for name in _PRICES[:2] if name not in given]
        if given and missing:
            raise ValueError(
                f"{given[0]} is set without {missing[0]}: set both, or neither of them"
            )
        return self

    @model_validator(mode="after")
    def check_key(self) -> ModelSettings:
        """Refuse a provider's own variable at another address, and a key beside user information.

        Raises:
            ValueError: `api_key_env` names such a variable, or both are set.
        """
        provider = self.api_key_env.removesuffix("_API_KEY").lower()
        host = provider_host(provider)
        if host and not (provider == self.provider and is_at_provider(provider, self.base_url)):
            raise ValueError(
                f"api_key_env names {self.api_key_env}, which goes to {host} only: put the key for "
                "this address into a variable of its own"
            )
        if has_user(self.base_url) and (self.api_key.get_secret_value() or self.api_key_env):
            raise ValueError("base_url holds user information beside a key: set one of the two")
        return self

    @property
    def output_ceiling(self) -> int:
        """The limit up to which that of an answer which was cut off is raised."""
        most = self.max_output_tokens_on_retry or RAISED_BY * self.max_output_tokens
        return max(self.max_output_tokens, most)


class PipelineSettings(Section):
    """How work is cut, leased and retried."""

    chunk_tokens: PositiveInt = Field(default=3_000, description="Of text in one chunk, at most.")
    lease_seconds: PositiveFloat = 60
    heartbeat_seconds: PositiveFloat = 15
    recovery_interval_seconds: PositiveFloat = 5
    dispatch_interval_seconds: PositiveFloat = 0.2
    max_attempts: PositiveInt = Field(default=3, description="Claims before quarantine.")
    max_postponements: PositiveInt = Field(default=8, description="Waits for a provider.")
    postponement_base_seconds: PositiveFloat = 30
    postponement_max_seconds: PositiveFloat = 900
    database_outage_timeout_seconds: PositiveFloat = Field(
        default=600, description="For a database that is away."
    )
    stalled_seconds: PositiveFloat = Field(
        default=60, description="Sent work that was not claimed is sent again after this long."
    )


class RetrySettings(Section):
    """The one retry layer around a model call."""

    attempts: PositiveInt = 4
    base_seconds: PositiveFloat = 1
    max_wait_seconds: PositiveFloat = 30
    total_seconds: PositiveFloat = Field(default=300, description="Waits and calls of a question.")


class LimitSettings(Section):
    """How hard all workers together may press a provider whose limits are not known."""

    first_in_flight: PositiveInt = Field(default=16, description="Calls at once, to begin with.")
    max_in_flight: PositiveInt = Field(default=1_024, description="Never more than this.")
    longest_wait_seconds: PositiveFloat = Field(
        default=60, description="For a permit; then the work is put off."
    )
    breaker_failures: PositiveInt = Field(
        default=6, description="Failures in a row after which requests stop for a while."
    )
    breaker_seconds: PositiveFloat = Field(default=15, description="The first such while.")
    pause_seconds: PositiveFloat = Field(
        default=300, description="After a refused key, model or quota; then one call looks."
    )


class TierSettings(Section):
    """The models behind `--model auto`, by names of `[models]` or provider/model."""

    small: str = ""
    medium: str = ""
    large: str = ""

    def configured(self) -> dict[Tier, str]:
        """Return the model's name of each tier that has one, in ascending order."""
        named = {Tier.SMALL: self.small, Tier.MEDIUM: self.medium, Tier.LARGE: self.large}
        return {tier: name for tier, name in named.items() if name}

    def behind(self, name: str) -> dict[Tier, str]:
        """Return the models of the tiers that a name stands for, in ascending order.

        That are all of them for `auto`, one for a tier's own name, and none for a model's.

        Raises:
            ConfigurationError: `auto` without any tier.
        """
        tiers = self.configured()
        if name == AUTO and not tiers:
            raise ConfigurationError(
                "The model “auto” needs tiers to choose from.",
                "Set tiers.small, tiers.medium or tiers.large (docs/routing.md).",
            )
        return tiers if name == AUTO else {each: tiers[each] for each in tiers if each == name}


class RoutingSettings(Section):
    """Which tier answers a question, and when the next one is asked (docs/routing.md)."""

    medium_from: float = Field(default=0.3, ge=0, le=1, description="Complexity, 0 to 1.")
    large_from: float = Field(default=0.45, ge=0, le=1, description="Complexity, 0 to 1.")
    cascade: bool = Field(default=True, description="Ask a tier higher where an answer is weak.")
    accept_quality: float = Field(default=0.8, ge=0, le=1)
    accept_confidence: float = Field(default=0.6, ge=0, le=1)


class BudgetSettings(Section):
    """What may be spent; a run's own `--budget` goes before `usd_per_run`."""

    usd_per_run: Decimal | None = Field(
        default=None,
        gt=0,
        lt=1_000_000,
        decimal_places=8,
        description="Where --budget is not given.",
    )
    usd_per_day: Decimal | None = Field(
        default=None,
        gt=0,
        lt=1_000_000,
        decimal_places=8,
        description="All runs of a UTC day.",
    )
    allow_unknown_prices: bool = Field(
        default=False, description="Ask models of unknown price, although there is a cap."
    )


class CacheSettings(Section):
    """Completions that are used again for the very same request."""

    enabled: bool = True
    max_age_days: PositiveFloat = 30


class PromptSettings(Section):
    """Prompts of one's own, and further ones for questions whose answers stay invalid."""

    folder: Path | None = Field(
        default=None, description="Templates of one's own, relative to chordwise.toml."
    )
    fallback: tuple[Literal["plain"], ...] = Field(
        default=("plain",), description="In this order, before further models are asked."
    )
    learned_examples: NonNegativeInt = Field(
        default=4, le=20, description="Of a profile's feedback, at most in a prompt; 0: none."
    )
    learned_example_tokens: PositiveInt = Field(default=1_200, description="Of them together.")


class ReaderSettings(Section):
    """The limits within which files become text."""

    timeout_seconds: PositiveFloat = 60
    file_timeout_seconds: PositiveFloat = Field(
        default=1_200, description="For everything that a file holds, in total."
    )
    memory_megabytes: PositiveInt | None = Field(
        default=None, description="Follows from the memory there is where it is not set."
    )
    max_file_megabytes: PositiveInt | None = Field(
        default=None, description="Follows from the memory there is where it is not set."
    )
    max_characters: PositiveInt = 50_000_000
    max_documents: PositiveInt = 100_000
    max_unpacked_megabytes: PositiveInt = 1_024
    ocr: bool = Field(default=False, description="Recognize scans and images with Tesseract.")
    ocr_languages: str = Field(default="eng", pattern=r"^[A-Za-z]\w*(\+[A-Za-z]\w*)*$")
    ocr_data: Path | None = Field(
        default=None, description="The folder of Tesseract's languages; found where it is not set."
    )
    ocr_timeout_seconds: PositiveFloat = 900
    vision: str = Field(
        default="",
        description="The model that reads scans and images: a name in [models] or provider/model.",
    )
    vision_max_pages: PositiveInt = Field(
        default=200, description="Of one document that the model reads; more are too many."
    )
    vision_max_edge_pixels: int = Field(
        default=1_568, ge=256, le=2_576, description="Of the longer edge of a page's picture."
    )


class WorkerSettings(Section):
    """The worker of one machine: its processes share `concurrency`."""

    concurrency: PositiveInt = Field(default=16, description="Calls at once, of all processes.")
    processes: PositiveInt | Literal["auto"] = Field(
        default="auto", description="“auto”: as many as cores, at most one for each call at once."
    )
    consumer_timeout_seconds: PositiveFloat = 45
    shutdown_grace_seconds: PositiveFloat = 20
    visibility_timeout_seconds: PositiveInt = 1_800

    @property
    def chunk_seconds(self) -> float:
        """The time that all calls of a chunk share; the other half is for waits and storing."""
        return self.visibility_timeout_seconds / 2


class EmbeddedSettings(Section):
    """What Chordwise starts by itself in the background."""

    start: bool = Field(
        default=True,
        description="False where database, broker, workers and scheduler are run by others.",
    )
    idle_minutes: PositiveFloat = 10
    command_server: bool = Field(
        default=True,
        description="Keep the commands loaded, so that they start at once; Linux only.",
    )


class WebSettings(Section):
    """The pages of `chordwise web` (docs/web.md)."""

    address: str = Field(
        default="127.0.0.1", description="Any other needs a password_hash or a trusted proxy."
    )
    port: int = Field(default=0, ge=0, le=65_535, description="0: a free one.")
    public_url: str = Field(
        default="", description="Where browsers find it behind a proxy, such as https://docs.lan."
    )
    password_hash: SecretStr = Field(
        default=SecretStr(""), description="What `chordwise web --set-password` prints."
    )
    trusted_user_header: str = Field(
        default="", description="In which a proxy that has checked the user names them."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="The addresses from which that header is believed."
    )
    max_upload_megabytes: PositiveInt = Field(default=256, description="Of files dropped at once.")

    @model_validator(mode="after")
    def check_access(self) -> WebSettings:
        """Refuse an address without a scheme, and a header that anyone could send."""
        if self.public_url and not self.public_url.startswith(("https://", "http://")):
            raise ValueError("public_url begins with https:// or http://")
        if bool(self.trusted_user_header) != bool(self.trusted_proxies):
            raise ValueError("trusted_user_header and trusted_proxies belong together")
        return self


class LoggingSettings(Section):
    """What the processes write to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"


Principle: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)
]
Principles: TypeAlias = Annotated[tuple[Principle, ...], Field(max_length=20)]


class CritiqueSettings(Section):
    """The table `[critique]` (docs/votes-and-critique.md)."""

    principles: Principles = Field(
        default=(), description="Empty: those of all types and of each analysis type."
    )


class BatchSettings(Section):
    """The table `[batch]` (docs/batch-lane.md)."""

    gather_seconds: NonNegativeFloat = Field(
        default=30, description="Without a new question, then what there is goes out."
    )
    poll_seconds: PositiveFloat = Field(default=30, description="The first look at a batch.")
    poll_max_seconds: PositiveFloat = Field(default=600, description="Between later looks.")
    spill_over_hours: PositiveFloat = Field(
        default=20, description="After which the rest is asked online."
    )
    max_requests: PositiveInt = Field(default=20_000, le=50_000, description="In one batch.")


class ProfileSettings(Section):
    """One table `[profiles.NAME]`; a side-car beside a file has the same entries for that file."""

    folder: Path | None = Field(
        default=None, description="Relative to an inbox, or absolute; unset: the profile's name."
    )
    types: tuple[AnalysisType, ...] = Field(
        default=(), description="Empty: what schema and labels imply, else summary."
    )
    instructions: str = ""
    labels: tuple[str, ...] = Field(default=(), description="For classifications, two or more.")
    labels_file: Path | None = Field(
        default=None, description="In place of labels: with what they mean, relative as a schema."
    )
    answer_language: str = Field(
        default="", description="A tag such as de; empty: left to the model."
    )
    schema_file: Path | None = Field(
        default=None, alias="schema", description="A JSON Schema, relative to chordwise.toml."
    )
    save_as: str = Field(
        default="", description="Its table in the schema answers; empty: the profile's name."
    )
    model: str = Field(default="", description="Empty: the setting `model`.")
    lane: Lane = Field(default=Lane.ONLINE, description="batch: half the price, within a day.")
    nightly: bool = Field(default=False, description="Let the calls of other runs go first.")
    budget_usd: Decimal | None = Field(
        default=None, gt=0, lt=1_000_000, decimal_places=8, description="Of one run."
    )
    confidence_threshold: float = Field(
        default=CONFIDENCE_THRESHOLD, ge=0, le=1, description="Answers below it need review."
    )
    critique: bool = Field(default=False, description="Examine answers, and revise them once.")
    principles: Principles = Field(
        default=(), description="To examine by, and then they are; empty: [critique]."
    )
    examples_file: Path | None = Field(
        default=None, alias="examples", description="Texts with the right answers, relative so."
    )
    learned_examples: bool = Field(
        default=True, description="Show what people said is right of its answers as examples."
    )
    pack: str = Field(
        default="", description="legal, financial, scientific or support; own entries go before it."
    )
    prompt: str = Field(
        default="", description="The variant of templates in prompts.folder; empty: released ones."
    )
    votes: int = Field(
        default=1, ge=1, le=MAX_VOTES, description="How often a question is asked; 1: no vote."
    )
    chunk_tokens: PositiveInt | None = Field(
        default=None, description="Of text in one chunk; unset: pipeline.chunk_tokens."
    )
    text_column: str = Field(
        default="", description="CSV, JSONL and XLSX: a row for each document, its text from here."
    )
    id_column: str = Field(default="", description="The column that names the rows.")

    @field_validator(
        *("schema_file", "labels_file", "examples_file", "budget_usd", "chunk_tokens"),
        mode="before",
    )
    @classmethod
    def unset(cls, value: object) -> object:
        """Take an empty text for none: so a side-car takes away what its profile has."""
        return None if value == "" else value


def folders_of(name: str, profile: ProfileSettings, inboxes: Iterable[Path]) -> tuple[Path, ...]:
    """Return the folders that a profile is for: its absolute one, else one in each inbox.

    Raises:
        ValueError: It leads out of the inboxes.
    """
    folder = (profile.folder or Path(name)).expanduser()
    if folder.is_absolute():
        return (folder,)
    if not is_inside(folder / "file"):
        raise ValueError(f"profiles.{name}.folder leads out of the inbox: {folder}")
    return tuple(inbox / folder for inbox in inboxes)


class InboxSettings(Section):
    """The table `[inbox]`; without any folder nothing is watched (docs/inbox.md)."""

    enabled: bool = True
    folders: tuple[Path, ...] = Field(default=(), description="Relative to chordwise.toml.")
    stability_seconds: PositiveFloat = Field(
        default=5, description="A file is complete when nothing happened to it for so long."
    )
    quiet_seconds: PositiveFloat = Field(
        default=10, description="A run is closed when no file came for so long."
    )
    rescan_seconds: PositiveFloat = Field(
        default=300, description="A full look at the folders, for what no event told of."
    )
    polling: bool = Field(default=False, description="For network shares, which tell no events.")
    polling_seconds: PositiveFloat = 2

    @property
    def is_watched(self) -> bool:
        """Whether the scheduler has something to watch."""
        return self.enabled and bool(self.folders)


class DeliverySettings(Section):
    """The table `[delivery]`; the scheduler delivers, so its settings count."""

    webhook_url: SecretStr = Field(
        default=SecretStr(""), description="Told when a run ends; empty: none."
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="Signs it; 24 to 64 bytes in base64, after whsec_."
    )
    allow_http: bool = Field(default=False, description="Let webhook_url begin with http://.")
    allow_private_addresses: bool = Field(
        default=False, description="Let webhook_url lead into this machine or its network."
    )
    folder: Path | None = Field(
        default=None, description="Where a finished run's answers go, relative to chordwise.toml."
    )
    format: ExportFormat = Field(default=ExportFormat.JSONL, description="Of that file.")
    timeout_seconds: PositiveFloat = Field(default=15, description="Of one request, in total.")
    max_attempts: PositiveInt = 12
    first_wait_seconds: PositiveFloat = Field(
        default=10, description="After a failure; each further wait is twice as long."
    )
    max_wait_seconds: PositiveFloat = 3600

    @model_validator(mode="after")
    def check_webhook(self) -> DeliverySettings:
        """Refuse an address that cannot be called, and one without a signature."""
        url = self.webhook_url.get_secret_value()
        if not url:
            return self
        if not url.isascii():
            raise ValueError("webhook_url is not an address that begins with https://")
        try:
            addresses.check_web(url)
        except ValueError as error:
            raise ValueError(f"webhook_url: {error}") from None
        if url.strip().lower().startswith("http://") and not self.allow_http:
            raise ValueError("webhook_url begins with http://: take https, or set allow_http")
        try:
            webhook_signatures.key_of(self.webhook_secret.get_secret_value())
        except ValueError as error:
            raise ValueError(f"webhook_secret is {error}: openssl rand -base64 32") from None
        return self


_LISTS = {"folders": '["inbox"]', "paths": '["letters"]', "types": '["summary"]'}
_ANY_LIST = '["a", "b"]'
_TABLES = ("dict_type", "mapping_type", "model_type")


def problems(error: ValidationError) -> list[str]:
    """Return each problem, without a stop at its end and without what was entered."""
    return [
        _problem([str(step) for step in each["loc"]], each["type"], each["msg"])
        for each in error.errors(include_input=False, include_url=False)
    ]


def _problem(steps: list[str], kind: str, message: str) -> str:
    place = ".".join(steps)
    if kind == "extra_forbidden":
        return f"there is no setting {place}"
    said = message.removeprefix("Value error, ")
    if kind == "tuple_type":
        said = f"it wants a list, such as {_LISTS.get(steps[-1], _ANY_LIST)}"
    elif kind in _TABLES:
        said = "it wants a table"
    return f"{place}: {said}" if place else said
