"""Tests of the settings: their sources, their validation, and hiding secrets."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from chordwise import settings
from chordwise.domain.tiers import Tier
from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.deliveries.receivers.webhook import Webhook
from chordwise.pipeline.models import model_client
from chordwise.settings import AUTO, FILE_NAME, ModelSettings, Settings, environment, load

PLANTED = "s3cr3tP4ssword"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_MODEL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, content: str) -> Path:
    file = folder / FILE_NAME
    file.write_text(content, "utf-8")
    return file


def refused(config: Path | None = None, **flags: object) -> str:
    """Load invalid settings; return all text of the error that may be shown."""
    with pytest.raises(ConfigurationError) as caught:
        load(config, **flags)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    chain = "".join(traceback.format_exception(caught.value))
    return f"{caught.value.what}\n{caught.value.hint}\n{chain}"


def test_defaults_apply_without_any_settings_and_are_frozen() -> None:
    options = load()

    assert options.model == "extractive"
    assert (options.database_url, options.broker_url) == (None, None)
    assert options.pipeline.heartbeat_seconds < options.pipeline.lease_seconds
    with pytest.raises(ValueError, match="frozen"):
        setattr(options, "model", "other")  # noqa: B010 - mypy forbids the plain assignment


def test_flags_override_variables_and_variables_override_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, 'model = "file"\n')
    assert load().model == "file"

    monkeypatch.setenv("CHORDWISE_MODEL", "variable")
    assert load().model == "variable"
    assert load(model=None).model == "variable"

    assert load(model="flag").model == "flag"


def test_sections_are_merged_by_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "[pipeline]\nlease_seconds = 90\nchunk_tokens = 100\n")
    monkeypatch.setenv("CHORDWISE_PIPELINE__CHUNK_TOKENS", "200")

    options = load().pipeline

    assert (options.lease_seconds, options.chunk_tokens, options.max_attempts) == (90, 200, 3)


def test_the_nearest_settings_file_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, 'model = "outer"\n')
    inner = folder / "project" / "notes"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert load().model == "outer"

    write(inner.parent, 'model = "inner"\n')
    assert load().model == "inner"

    monkeypatch.setenv("CHORDWISE_CONFIG", str(folder / FILE_NAME))
    assert load().model == "outer"
    assert load(inner.parent / FILE_NAME).model == "inner"


HOUSE = '[models.house]\nprovider = "openai"\n'
USD = "usd_per_million_tokens"
SCANS = '[tiers]\nlarge = "openai/gpt"\n[readers]\nvision = '
SHORT = "[retries]\ntotal_seconds = 60"
TOO_LONG = "timeout_seconds exceeds retries.total_seconds."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f'[pipeline]\nchunk_tokens = "{PLANTED}"', "pipeline.chunk_tokens: "),
        (f'database_url = ["{PLANTED}"]', "database_url: "),
        (f'[models.house]\nprovider = "{PLANTED}"\napi_key = "{PLANTED}"', "models.house."),
        (f'{HOUSE}api_key = {{ value = "{PLANTED}" }}', "models.house.api_key: "),
        (f'[logging]\nlevel = "{PLANTED}"', "logging.level: "),
        (f'unknown = "{PLANTED}"', "unknown setting unknown."),
        (f'[pipeline]\nunknown = "{PLANTED}"', "unknown setting pipeline.unknown."),
        ('modle = "x"\n[inbox]\nfolder = ["a"]', "unknown setting inbox.folder; unknown setting m"),
        # In the terms of TOML.
        (f'fallback = "{PLANTED}"', 'fallback: it must be a list, such as ["a", "b"].'),
        ('[inbox]\nfolders = "a"', 'inbox.folders: it must be a list, such as ["inbox"].'),
        (f'[models]\nhouse = "{PLANTED}"', "models.house: it must be a table."),
        ('inbox = "a"', "inbox: it must be a table."),
        ('profiles = "a"', "profiles: it must be a table."),
        ('[schedules."a b"]\ncron = "0 2 * * *"\nrun = "prune"', "schedules.a b: a name consists"),
        # A price that would be ignored silently, so that the public price or none would apply.
        (
            f'{HOUSE}price = "free"\ninput_{USD} = 1',
            f'models.house: price is "free" and input_{USD}',
        ),
        (f"{HOUSE}input_{USD} = 1", f"models.house: input_{USD} is set without output_{USD}"),
        (f"{HOUSE}output_{USD} = 1", f"models.house: output_{USD} is set without input_{USD}"),
        (f"{HOUSE}cached_input_{USD} = 1", f"house: cached_input_{USD} is set without input_{USD}"),
        # The built-in model cannot read images, and routing does not support them.
        *((f'{SCANS}"{name}"', "readers.vision: ") for name in ("auto", "extractive", "eyes")),
        (f'{SCANS}"extractive/minilm-1"', "readers.vision: "),
        # Two workers could process the same chunk; all models share the timeout of a chunk.
        ("[pipeline]\nheartbeat_seconds = 60", "pipeline.heartbeat_seconds must be shorter than l"),
        ("[retries]\ntotal_seconds = 901", "retries.total_seconds must not exceed half of"),
        ("[worker]\nvisibility_timeout_seconds = 599", "must not exceed half of worker.visibility"),
        (f'model = "openai/a"\n{SHORT}', f"models.openai/a.{TOO_LONG}"),
        (f'fallback = ["anthropic/a"]\n{SHORT}', f"models.anthropic/a.{TOO_LONG}"),
        (f"{HOUSE}timeout_seconds = 301", f"models.house.{TOO_LONG}"),
    ],
)
def test_an_invalid_entry_is_named_without_its_value(folder: Path, content: str, said: str) -> None:
    message = refused(write(folder, f"{content}\n"))

    assert f"The settings in {folder / FILE_NAME} or the environment are invalid: " in message
    assert said in message
    assert PLANTED not in message


@pytest.mark.parametrize(
    "name",
    [
        "CHORDWISE_PIPELINE__CHUNK_TOKENS",
        "CHORDWISE_PIPELINE",
        "CHORDWISE_MODELS",
        "CHORDWISE_FALLBACK",
        "CHORDWISE_MODELS__HOUSE__PROVIDER",
    ],
)
def test_an_invalid_variable_is_a_configuration_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, PLANTED)

    said = refused()

    assert name.split("_")[1].lower() in said
    assert PLANTED not in said


@pytest.mark.parametrize(
    "content", [None, b"model = ", b"model = 'a'\nmodel = 'b'", b"model = '\xff'", b"\xff\xfe"]
)
def test_a_missing_or_invalid_file_is_a_configuration_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file = folder / "named.toml"
    if content is not None:
        file.write_bytes(content)

    assert str(file) in refused(file)
    monkeypatch.setenv("CHORDWISE_CONFIG", str(folder))
    assert str(folder) in refused()


def test_an_unknown_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable without its section has no effect, whatever its case, so it is reported.

    Variables that Kubernetes sets for a service named chordwise are ignored.
    """
    unread = {"CHORDWISE_LEASE_SECONDS", "CHORDWISE_MODLE", "chordwise_modle"}
    read = {"CHORDWISE_PIPELINE__LEASE_SECONDS", "CHORDWISE_CONFIG", "chordwise_model"}
    known = {"CHORDWISE_FOLDERS", "CHORDWISE_WORKER_SERVICE_HOST", "CHORDWISE_PORT_8080_TCP_ADDR"}
    for name in unread | read | known | {"CHORDWISE_SERVICE_PORT_HTTP"}:
        monkeypatch.setenv(name, "10")

    unknown = set(environment.unknown_variables(Settings.model_fields))

    assert unread <= unknown
    assert not (read | known | {"CHORDWISE_SERVICE_PORT_HTTP"}) & unknown


def test_a_model_is_selected_by_its_name_or_its_provider(folder: Path) -> None:
    options = load(
        write(
            folder, '[models.house]\nprovider = "openai"\nmodel = "qwen"\nbase_url = "http://h/v1"'
        )
    )

    assert options.model_named("house").base_url == "http://h/v1"
    assert options.model_named("openai/gpt").model == "gpt"
    assert options.model_named("local/path/to/file.gguf").model == "path/to/file.gguf"
    assert options.model_named("extractive").provider == "extractive"
    assert options.model_named("extractive").model == "textrank-1"
    assert options.model_named("extractive/minilm-1").model == "minilm-1"


@pytest.mark.parametrize("name", ["", "houze", "openai/", "mistral/large", "extractive/x", "/x"])
def test_an_unknown_model_is_rejected_with_a_list_of_known_ones(folder: Path, name: str) -> None:
    options = load(write(folder, '[models.house]\nprovider = "openai"\n'))

    with pytest.raises(ConfigurationError) as caught:
        options.model_named(name)

    assert "house" in caught.value.hint


def test_keys_come_from_the_model_or_the_variable_of_its_provider(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own key overrides the variable, which overrides the provider's key in the file.

    The built-in model and local ones need none.
    """
    write(folder, 'openai_api_key = "file"\n')
    assert load().openai_api_key.get_secret_value() == "file"
    monkeypatch.setenv("OPENAI_API_KEY", "from the variable")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another")
    options = load()
    model = ModelSettings.model_validate({"provider": "openai", "api_key": "own"})

    assert options.api_key_for(model).get_secret_value() == "own"
    keys = [
        options.api_key_for(ModelSettings(provider=provider)).get_secret_value()
        for provider in ("openai", "anthropic", "local", "extractive")
    ]
    assert keys == ["from the variable", "another", "", ""]


def test_no_representation_has_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORDWISE_DATABASE_URL", f"postgresql://u:{PLANTED}@h/d")
    monkeypatch.setenv("CHORDWISE_BROKER_URL", f"redis://:{PLANTED}@h")
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    options = load(write(folder, f'[models.house]\nprovider = "openai"\napi_key = "{PLANTED}"'))

    shown = f"{options!r} {options} {options.model_dump()} {options.model_dump_json()}"

    assert "house" in shown
    assert PLANTED not in shown


def test_a_child_process_sees_the_same_settings(folder: Path) -> None:
    file = write(folder, 'model = "file"\n')

    variables = environment.child_environment(
        load(file, home=folder / "home").home, Path(file.name)
    )

    assert variables["CHORDWISE_HOME"] == str(folder / "home")
    assert variables["CHORDWISE_CONFIG"] == str(file.resolve())


@pytest.mark.parametrize(
    ("value", "expected"), [("7", 7), ("", None), ("-1", None), ("seven", None)]
)
def test_the_supervisors_pipe_is_a_descriptor_or_nothing(
    value: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.SUPERVISOR_PIPE_VARIABLE, value)

    assert environment.supervisor_pipe() == expected


def test_every_field_of_a_section_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORDWISE_MODELS__HOUSE__PROVIDER", "openai")
    monkeypatch.setenv("CHORDWISE_MODELS__HOUSE__API_KEY", PLANTED)
    monkeypatch.setenv("chordwise_worker__concurrency", "3")
    monkeypatch.setenv("CHORDWISE_FALLBACK", '["house", "extractive"]')

    options: Settings = load()

    assert options.api_key_for(options.model_named("house")).get_secret_value() == PLANTED
    assert options.worker.concurrency == 3
    assert options.fallback == ("house", "extractive")


@pytest.mark.parametrize(
    "content",
    [
        SHORT,
        'fallback = ["extractive"]\n[retries]\ntotal_seconds = 900',
        'fallback = ["openai/a", "openai/b", "openai/c"]\n[retries]\ntotal_seconds = 900',
        f'model = "unknown/model"\n{SHORT}',
        "[worker]\nvisibility_timeout_seconds = 600",
    ],
)
def test_the_exact_limits_of_times_are_accepted(folder: Path, content: str) -> None:
    """A missing model is reported when it is used."""
    write(folder, content)

    assert load().worker.visibility_timeout_seconds > 0


SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the convention


def test_a_webhook_address_with_a_secret_is_accepted() -> None:
    """Plain HTTP must be allowed explicitly, because every network on the way can read it."""
    for secret in (SECRET, SECRET.removeprefix("whsec_")):
        for url in ("https://example.org/hook?token=x", "http://example.org/hook?token=x"):
            webhook = Webhook.model_validate(
                {"url": url, "secret": secret, "allow_http": url[4] != "s"}
            )
            assert webhook.secret.get_secret_value() == secret
            assert "token" not in repr(webhook)


@pytest.mark.parametrize(
    ("url", "secret", "reason"),
    [
        ("ftp://example.org", SECRET, "ftp:// is not supported; use https://"),
        ("https://", SECRET, "has no host"),
        ("example.org/hook", SECRET, "begins with https://"),
        ("https://example.org:none", SECRET, "port is not a number"),
        (" http://example.org", SECRET, "use https:// or set allow_http"),
        ("https://exämple.org", SECRET, "begins with https://"),
        ("https://example.org", "", "secret is not 24 to 64 bytes"),
        ("https://example.org", "hunter2!", "secret is not base64"),
    ],
)
def test_an_invalid_webhook_is_rejected(url: str, secret: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        Webhook.model_validate({"url": url, "secret": secret})

    assert "hunter2" not in str(caught.value)
    assert "example" not in str(caught.value)


TINY = {"provider": "openai", "model": "tiny-1", "base_url": "http://127.0.0.1:9/v1"}
TIERS = {"small": "tiny", "large": "anthropic/claude-haiku-5-5"}


def with_tiers(**values: object) -> Settings:
    flags = {"models": {"tiny": TINY}, "tiers": TIERS, **values}
    return settings.load(None, **flags)


def test_auto_selects_the_tiers_and_a_tier_its_model() -> None:
    """A model may have the name of its tier."""
    options = with_tiers()
    alike = with_tiers(models={"small": TINY}, tiers={"small": "small"})

    assert options.tiers.selected_by(AUTO) == {Tier.SMALL: "tiny", Tier.LARGE: TIERS["large"]}
    assert options.selected_names(AUTO) == ("tiny", TIERS["large"])
    assert options.selected_names("small") == options.selected_names("tiny") == ("tiny",)
    assert options.model_named("small") == options.model_named("tiny")
    assert alike.model_named("small").model == "tiny-1"
    assert alike.tiers.selected_by("small") == {Tier.SMALL: "small"}


@pytest.mark.parametrize("name", [AUTO, "small", "medium"])
def test_tiers_that_are_not_configured_are_rejected(name: str) -> None:
    without = with_tiers(tiers={})

    with pytest.raises(ConfigurationError):
        model_client.identity(without, name)


@pytest.mark.parametrize(
    "values",
    [
        {"models": {"auto": TINY}},
        {"models": {"small": TINY, "tiny": TINY}},
        {"tiers": {"small": "auto"}},
        {"tiers": {"small": "medium", "medium": "tiny"}},
        {"models": {"tiny": TINY, "slow": {**TINY, "timeout_seconds": 999}}},
    ],
)
def test_contradictory_tiers_are_rejected(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        with_tiers(**values)


def test_the_identity_of_auto_includes_models_thresholds_and_fallbacks() -> None:
    """Each may change which model answers; with a single tier, the routing policy does not."""
    known = with_tiers()
    others = (
        with_tiers(tiers={**TIERS, "large": "openai/other"}),
        with_tiers(tiers={"medium": TIERS["small"], "large": TIERS["large"]}),
        with_tiers(routing={"large_from": 0.9}),
        with_tiers(routing={"cascade": False}),
        with_tiers(fallback=("extractive",)),
        with_tiers(models={"tiny": {**TINY, "temperature": 0.7}}),
    )

    identities = [tuple(model_client.identity(variant, AUTO)) for variant in (known, *others)]

    assert len(set(identities)) == len(identities)
    assert model_client.identity(known, "small") == model_client.identity(known, "tiny")
    assert model_client.identity(known, "small") == model_client.identity(others[2], "small")
    assert model_client.identity(known, "tiny") != model_client.identity(others[5], "tiny")
