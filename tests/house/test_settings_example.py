"""Tests that `chordwise.example.toml` documents every setting with its default."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeAlias

import pytest
from pydantic import BaseModel

from chordwise import settings
from chordwise.domain.json_values import JsonObject
from chordwise.settings import ModelSettings, Profile, ScheduleSettings, Settings
from chordwise.settings.receivers import RECEIVERS
from tests.house.checkout import ROOT

EXAMPLE = ROOT / "chordwise.example.toml"
Defaults: TypeAlias = dict[str, object]


def uncommented(text: str) -> JsonObject:
    """Return the contents of the file with all commented entries enabled."""
    lines = [
        line.removeprefix("# ") if line.startswith("# [") or " = " in line else line
        for line in text.splitlines()
    ]
    parsed: JsonObject = tomllib.loads("\n".join(lines))
    return parsed


def sections() -> dict[str, type[BaseModel]]:
    """Return the tables of the file, which are the settings with a model as their type."""
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def test_every_setting_is_documented() -> None:
    assert set(uncommented(EXAMPLE.read_text("utf-8"))) == set(Settings.model_fields)


@pytest.mark.parametrize("name", sections())
def test_every_setting_of_a_table_is_documented_with_its_default(name: str) -> None:
    """An entry has the default; a setting without one has an example."""
    shown = uncommented(EXAMPLE.read_text("utf-8"))[name]
    holding = tomllib.loads(EXAMPLE.read_text("utf-8"))[name]

    defaults = sections()[name]().model_dump(mode="json")

    assert isinstance(shown, dict)
    assert set(shown) == set(defaults)
    assert set(holding) == {entry for entry, value in defaults.items() if value is not None}
    assert sections()[name].model_validate(holding) == sections()[name]()


@pytest.mark.parametrize(
    ("table", "section"),
    [("models", ModelSettings), ("profiles", Profile), ("schedules", ScheduleSettings)],
)
def test_every_setting_of_a_named_table_is_documented(table: str, section: type[BaseModel]) -> None:
    """The first example of a kind has each entry once."""
    documented = uncommented(EXAMPLE.read_text("utf-8"))
    examples = documented[table]
    assert isinstance(examples, dict)

    first = next(iter(examples.values()))

    assert isinstance(first, dict)
    entries = {field.alias or name for name, field in section.model_fields.items()}
    assert set(first) == entries


@pytest.mark.parametrize("kind", list(RECEIVERS))
def test_every_setting_of_a_receiver_is_documented_with_its_default(kind: str) -> None:
    deliveries = uncommented(EXAMPLE.read_text("utf-8"))["deliveries"]
    assert isinstance(deliveries, dict)

    example = RECEIVERS[kind].model_validate(deliveries[kind])

    assert example.model_fields_set == set(RECEIVERS[kind].model_fields)
    for name, field in RECEIVERS[kind].model_fields.items():
        if not field.is_required() and name != "secret":
            assert getattr(example, name) == field.default


def test_the_file_can_be_used_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy as chordwise.toml changes only the tables that users name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / settings.FILE_NAME).write_bytes(EXAMPLE.read_bytes())

    with_file = settings.load()
    monkeypatch.chdir(tmp_path.parent)
    without_file = settings.load()

    assert set(with_file.models) == {"house", "tiny"}
    tables = {"models", "profiles", "schedules"}
    assert with_file.model_dump(exclude=tables) == without_file.model_dump(exclude=tables)
