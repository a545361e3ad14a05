"""Tests of `chordwise config`: values, their origins, and no secrets."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.domain.json_values import as_json
from chordwise.errors import ExitCode
from chordwise.settings import Settings, load
from tests.fakes.commands import output_of

SIGNING = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
WEBHOOK = "https://hooks.example/services/PLANTED/x?PLANTED"
FILE = """
model = "mine"

[models.mine]
provider = "openai"
model = "gpt"
api_key = "sk-inthefile"

[pipeline]
chunk_tokens = 700
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chordwise.toml").write_text(FILE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHORDWISE_CONFIG", raising=False)
    monkeypatch.delenv("CHORDWISE_HOME", raising=False)
    monkeypatch.setenv("CHORDWISE_WORKER__CONCURRENCY", "3")
    monkeypatch.setenv("CHORDWISE_DATABASE_URL", "postgresql://u:hunter2@host:5/db?password=hush")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-inthevariable")


def test_every_value_has_its_origin(tmp_path: Path) -> None:
    """The origin is a flag, the environment, the file or the default."""
    shown = json.loads(output_of("config", "--json", "--home", str(tmp_path)).out)

    by_name = {(setting["section"], setting["name"]): setting for setting in shown["settings"]}
    origins = {
        ("", "home"): "flag",
        ("", "database_url"): "environment",
        ("", "openai_api_key"): "environment",
        ("worker", "concurrency"): "environment",
        ("", "model"): "file",
        ("models.mine", "model"): "file",
        ("pipeline", "chunk_tokens"): "file",
        ("pipeline", "lease_seconds"): "default",
        ("", "broker_url"): "default",
    }
    assert {place: by_name[place]["origin"] for place in origins} == origins
    assert by_name["pipeline", "chunk_tokens"]["value"] == 700
    assert by_name["worker", "concurrency"]["value"] == 3
    assert shown["file"] == str(tmp_path / "chordwise.toml")


def test_the_output_is_toml_without_secrets() -> None:
    """The output can be used as a configuration file."""
    shown = output_of("config").out

    parsed = tomllib.loads(shown)
    assert parsed["pipeline"]["chunk_tokens"] == 700
    assert parsed["models"]["mine"]["model"] == "gpt"
    assert "postgresql://u:********@host:5/db?…" in shown
    assert "\n# broker_url is not set" in shown
    shown += output_of("config", "--json").out
    assert [secret for secret in ("hunter2", "hush", "sk-in") if secret in shown] == []


MODEL = '[models.m]\nprovider = "openai"\nbase_url = "{}"'


HOOK = f'[deliveries.webhook]\nsecret = "{SIGNING}"\nurl = "{WEBHOOK}"'
BROKER = 'broker_url = "redis+socket://:PLANTED@/run/valkey.sock"'


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        (MODEL.format("https://me:PLANTED@g.ex:8/v1?k=PLANTED"), "https://********@g.ex:8/v1?…"),
        (MODEL.format("https://PLANTED@g.example/v1#PLANTED"), "https://********@g.example/v1"),
        (MODEL.format("https://g.example/sk-PLANTED12/v1"), "https://g.example/********/v1"),
        (HOOK, "https://hooks.example/…?…"),
        (BROKER, "redis+socket://:********@/run"),
    ],
)
def test_secret_parts_of_an_address_are_hidden(tmp_path: Path, table: str, shown: str) -> None:
    """These are user information, the query, keys in a path, and the whole path of a webhook."""
    (tmp_path / "chordwise.toml").write_text(f"{table}\n", "utf-8")

    out = output_of("config").out + output_of("config", "--json").out

    assert "PLANTED" not in out
    assert out.count(f'url = "{shown}') == 1
    assert out.count(f'"value": "{shown}') >= 1


@pytest.mark.parametrize(
    "table",
    [
        '[models.m]\nprovider = "openai"\nbase_url = "me:PLANTED@g.example/v1"',
        'broker_url = "redis://:1/PLANTED@host"',
    ],
)
def test_an_invalid_address_is_rejected_without_its_secrets(tmp_path: Path, table: str) -> None:
    """The message names the setting but not its value."""
    (tmp_path / "chordwise.toml").write_text(f"{table}\n", "utf-8")

    said = output_of("config", code=ExitCode.CONFIGURATION)

    assert "_url" in said.err
    assert "PLANTED" not in said.out + said.err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1.50"), 1.5),
        (Decimal(3), 3),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (Decimal("NaN"), "NaN"),
        (float("inf"), "inf"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (timedelta(minutes=1), 60.0),
        ((1, [None, {"a": True}]), [1, [None, {"a": True}]]),
        (b"\x00", "\\x00"),
    ],
)
def test_every_database_value_is_converted_to_json(value: object, expected: object) -> None:
    """A number stays a number unless precision would be lost; other values become text."""
    assert as_json(value) == expected


def test_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They override `chordwise.toml`; the environment overrides them; other files are ignored."""
    monkeypatch.setattr(Settings, "secrets_folder", tmp_path)
    monkeypatch.delenv("CHORDWISE_DATABASE_URL")
    (tmp_path / "chordwise_database_url").write_text("postgresql://u:planted@host/db\n", "utf-8")
    (tmp_path / "chordwise_models__mine__api_key").write_text("planted\n", "utf-8")
    (tmp_path / "openai_api_key").write_text("planted", "utf-8")
    (tmp_path / "kubernetes.io").mkdir()
    settings = load()

    shown = output_of("config", "--json").out

    origins = {
        (setting["section"], setting["name"]): setting["origin"]
        for setting in json.loads(shown)["settings"]
    }
    assert settings.require_database_url().get_secret_value() == "postgresql://u:planted@host/db"
    assert settings.models["mine"].api_key.get_secret_value() == "planted"
    assert settings.openai_api_key.get_secret_value() == "sk-inthevariable"
    assert origins["", "database_url"] == origins["models.mine", "api_key"] == "secret"
    assert "planted" not in shown
