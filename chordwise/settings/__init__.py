"""The settings: the only reader of the environment and of `chordwise.toml`.

Order of precedence: command-line flags, then `CHORDWISE_…` variables, then files of secrets, then
`chordwise.toml`, then defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from chordwise.domain import identifiers
from chordwise.domain.tiers import Tier
from chordwise.errors import ConfigurationError
from chordwise.settings import schedules as schedules_module
from chordwise.settings import service_addresses
from chordwise.settings.environment import variable
from chordwise.settings.locations import FILE_NAME, default_home, find_home, settings_file
from chordwise.settings.profiles import Profile
from chordwise.settings.receivers import Receivers
from chordwise.settings.schedules import ScheduleSettings
from chordwise.settings.sections import (
    AUTO,
    BY_MEANING,
    BY_WORDS,
    BatchSettings,
    BudgetSettings,
    CacheSettings,
    CritiqueSettings,
    EmbeddedSettings,
    InboxSettings,
    IntakeSettings,
    LimitSettings,
    LoggingSettings,
    MetricsSettings,
    ModelSettings,
    PipelineSettings,
    PromptSettings,
    ReaderSettings,
    RetrySettings,
    RoutingSettings,
    TierSettings,
    TraceSettings,
    WebSettings,
    WorkerSettings,
    problems,
)
from chordwise.settings.service_addresses import PROVIDERS, is_at_provider

__all__ = [
    "AUTO",
    "FILE_NAME",
    "EmbeddedSettings",
    "InboxSettings",
    "IntakeSettings",
    "LimitSettings",
    "LoggingSettings",
    "ModelSettings",
    "PipelineSettings",
    "Profile",
    "PromptSettings",
    "ReaderSettings",
    "RetrySettings",
    "RoutingSettings",
    "ScheduleSettings",
    "Settings",
    "TierSettings",
    "WebSettings",
    "WorkerSettings",
    "find_home",
    "load",
    "secret_values",
]


class Settings(BaseSettings):
    """All settings; `chordwise.example.toml` documents each entry."""

    model_config = SettingsConfigDict(
        env_prefix="CHORDWISE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )
    toml_file: ClassVar[Path | None] = None
    toml_values: ClassVar[Mapping[str, object]] = {}
    secrets_folder: ClassVar[Path] = Path("/run/secrets")

    home: Path = Field(default_factory=default_home)
    database_url: SecretStr | None = Field(default=None, description="Unset: embedded.")
    reader_url: SecretStr | None = Field(
        default=None,
        description="The login for SQL queries; unset: chordwise_reader, at database_url.",
    )
    broker_url: SecretStr | None = Field(default=None, description="Unset: embedded.")
    model: str = Field(
        default="extractive", description="A name in [models], provider/model, a tier, or auto."
    )
    fallback: tuple[str, ...] = Field(default=(), description="Further models, in order.")
    models: Mapping[str, ModelSettings] = Field(default_factory=dict)
    pipeline: PipelineSettings = PipelineSettings()
    retries: RetrySettings = RetrySettings()
    limits: LimitSettings = LimitSettings()
    tiers: TierSettings = TierSettings()
    routing: RoutingSettings = RoutingSettings()
    budget: BudgetSettings = BudgetSettings()
    batch: BatchSettings = BatchSettings()
    cache: CacheSettings = CacheSettings()
    critique: CritiqueSettings = CritiqueSettings()
    prompts: PromptSettings = PromptSettings()
    profiles: Mapping[str, Profile] = Field(default_factory=dict)
    inbox: InboxSettings = InboxSettings()
    intake: IntakeSettings = IntakeSettings()
    schedules: Mapping[str, ScheduleSettings] = Field(default_factory=dict)
    readers: ReaderSettings = ReaderSettings()
    deliveries: Receivers = Field(default_factory=dict)
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings = TraceSettings()
    openai_api_key: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("openai_api_key", "OPENAI_API_KEY"))
    ] = SecretStr("")
    anthropic_api_key: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("anthropic_api_key", "ANTHROPIC_API_KEY"))
    ] = SecretStr("")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: flags, environment, secret files, `chordwise.toml`."""
        file = InitSettingsSource(settings_cls, dict(cls.toml_values))
        return init_settings, env_settings, _secret_files(file_secret_settings), file

    @field_validator("database_url", "reader_url", "broker_url")
    @classmethod
    def check_address(cls, url: SecretStr | None, entry: ValidationInfo[None]) -> SecretStr | None:
        """Refuse an address that is not one of PostgreSQL, or of Valkey or Redis."""
        is_broker = entry.field_name == "broker_url"
        check = service_addresses.check_broker if is_broker else service_addresses.check_database
        if url is not None:
            check(url.get_secret_value())
        return url

    @field_validator("profiles")
    @classmethod
    def name_tables(cls, profiles: Mapping[str, Profile]) -> Mapping[str, Profile]:
        """Name the answer table of each profile after the profile, unless it is set."""
        return {
            name: profile
            if profile.save_as
            else profile.model_copy(update={"save_as": identifiers.sql_identifier(name)})
            for name, profile in profiles.items()
        }

    @model_validator(mode="after")
    def check_times(self) -> Settings:
        """Refuse times that contradict each other."""
        if self.pipeline.heartbeat_seconds >= self.pipeline.lease_seconds:
            raise ValueError("pipeline.heartbeat_seconds must be shorter than lease_seconds")
        if self.retries.total_seconds > self.worker.chunk_seconds:
            raise ValueError(
                "retries.total_seconds must not exceed half of worker.visibility_timeout_seconds"
            )
        tiers = self.tiers.configured().values()
        vision = [self.readers.vision] if self.readers.vision else []
        for name in {*self.models, self.model, *self.fallback, *tiers, *vision}:
            if self._timeout_seconds(name) > self.retries.total_seconds:
                raise ValueError(f"models.{name}.timeout_seconds exceeds retries.total_seconds")
        return self

    @model_validator(mode="after")
    def check_names(self) -> Settings:
        """Refuse ambiguous names of models."""
        if AUTO in self.models:
            raise ValueError(f"models.{AUTO}: this name is reserved for the tiers; choose another")
        for tier, name in self.tiers.configured().items():
            if name == AUTO or (name in set(Tier) and name not in self.models):
                raise ValueError(f"tiers.{tier} is not a model: {name}")
            if tier in self.models and name != tier:
                raise ValueError(
                    f"tiers.{tier} and models.{tier} have the same name but different models"
                )
        return self

    @model_validator(mode="after")
    def check_vision(self) -> Settings:
        """Refuse a vision model that is not a single language model."""
        name = self.readers.vision
        if name == AUTO or name.partition("/")[0] == "extractive":
            raise ValueError(f"readers.vision: {name} is not a model that can read images")
        if name:
            try:
                self.model_named(name)
            except ConfigurationError as error:
                raise ValueError(f"readers.vision: {error.what}") from error
        return self

    @model_validator(mode="after")
    def check_schedules(self) -> Settings:
        """Refuse invalid names of schedules."""
        for name in self.schedules:
            schedules_module.check_name(name)
        return self

    def _timeout_seconds(self, name: str) -> float:
        try:
            model = self.model_named(name)
        except (ConfigurationError, ValidationError):
            return 0.0  # its use reports the error
        return 0.0 if model.provider == "extractive" else model.timeout_seconds

    @property
    def base_folder(self) -> Path:
        """The base of relative paths in the settings: the folder of `chordwise.toml`."""
        return (self.toml_file.parent if self.toml_file else Path()).resolve()

    def require_database_url(self) -> SecretStr:
        """Return the address of the database.

        Raises:
            ConfigurationError: None is set.
        """
        if self.database_url is None:
            raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
        return self.database_url

    @property
    def readers_of_profiles(self) -> Mapping[str, Collection[str] | None]:
        """Who may read the answers of each profile; `None`: everyone."""
        return {name: profile.readers for name, profile in self.profiles.items()}

    def require_sql_url(self) -> SecretStr:
        """Return the address for the SQL queries of the user.

        Raises:
            ConfigurationError: None is set.
        """
        return self.reader_url or self.require_database_url()

    def selected_names(self, name: str) -> tuple[str, ...]:
        """Return the names of the models that a name selects, without fallbacks.

        Raises:
            ConfigurationError: `auto` without any tier.
        """
        return tuple(self.tiers.selected_by(name).values()) or (name,)

    def is_built_in(self, name: str) -> bool:
        """Return whether a name selects only the built-in model, regardless of fallbacks.

        Raises:
            ConfigurationError: There is no such model or tier.
        """
        return all(
            self.model_named(model).provider == "extractive" for model in self.selected_names(name)
        )

    def model_named(self, name: str) -> ModelSettings:
        """Return the model for a name in `[models]`, the name of a tier, or `provider/model`.

        Raises:
            ConfigurationError: The name or the provider is unknown.
        """
        tiers = self.tiers.selected_by(name)
        if len(tiers) == 1 and name != AUTO:
            (name,) = tiers.values()
        if name in self.models:
            return self.models[name]
        provider, _, model = name.partition("/")
        if provider == "extractive" and model in ("", BY_WORDS, BY_MEANING):
            return ModelSettings(provider="extractive", model=model or BY_WORDS)
        if provider in PROVIDERS and provider != "extractive" and model:
            return ModelSettings.model_validate({"provider": provider, "model": model})
        known = identifiers.known_names(name, sorted({*self.models, "extractive"}))
        raise ConfigurationError(
            f"There is no model named “{name}”.",
            f"{known} Others: {'/NAME, '.join(PROVIDERS)}/NAME.",
        )

    def api_key_for(self, model: ModelSettings) -> SecretStr:
        """Return the key of a model, or the provider's key at its public address; may be empty."""
        if model.api_key.get_secret_value():
            return model.api_key
        if model.api_key_env:
            return variable(model.api_key_env)
        if not is_at_provider(model.provider, model.base_url):
            return SecretStr("")
        name = f"{model.provider}_api_key"
        key: SecretStr = getattr(self, name, variable(name.upper()))
        return key


def secret_values() -> Mapping[str, object]:
    """Return the settings from secret files."""
    return _secret_files(SecretsSettingsSource(Settings))()


def _secret_files(source: PydanticBaseSettingsSource) -> NestedSecretsSettingsSource:
    return NestedSecretsSettingsSource(
        source,
        secrets_dir=Settings.secrets_folder,
        secrets_dir_missing="ok",
        secrets_nested_delimiter="__",
    )


def load(config: Path | None = None, **flags: object) -> Settings:
    """Read the settings; `flags` that are `None` are ignored.

    Raises:
        ConfigurationError: A file is missing, invalid or not trusted, or a value is invalid.
    """
    file = settings_file(config)
    path = file.path if file else None
    values = {name: value for name, value in flags.items() if value is not None}
    source: type[Settings] = Settings
    if file:  # creating a class is slow
        members = {"toml_file": path, "toml_values": file.values(), "__doc__": Settings.__doc__}
        source = type("Settings", (Settings,), members)
    try:
        return source(**values)  # type: ignore[arg-type]  # flags are of any type until they are read
    except ValidationError as error:
        where = f" in {path} or the environment" if path else ""
        what = f"The settings{where} are invalid: {'; '.join(problems(error))}."
        raise ConfigurationError(what, "See chordwise.example.toml.") from error
    except SettingsError as error:  # names the field; the variable's text is in its cause only
        what = f"An environment variable is invalid: {error}."
        raise ConfigurationError(
            what, "Write lists and tables as JSON in environment variables."
        ) from error
