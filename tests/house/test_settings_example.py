"""`chordwise.example.toml` documents every setting, with the default that the code has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeAlias

import pytest
from pydantic import BaseModel

from chordwise import settings
from chordwise.domain.json_values import JsonObject
from chordwise.settings import ModelSettings, Settings
from tests.house.checkout import ROOT

EXAMPLE = ROOT / "chordwise.example.toml"
Defaults: TypeAlias = dict[str, object]


def with_comments_lifted(text: str) -> JsonObject:
    """Return what the file says once every entry that is commented out counts too."""
    lifted = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in text.splitlines()
    ]
    parsed: JsonObject = tomllib.loads("\n".join(lifted))
    return parsed


def sections() -> dict[str, type[BaseModel]]:
    """Return the tables of the file: the fields of the settings that are models themselves."""
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def test_every_setting_is_documented() -> None:
    """Nothing can be set that the file does not show, and nothing is shown that is not there."""
    documented = with_comments_lifted(EXAMPLE.read_text("utf-8"))

    assert set(documented) == set(Settings.model_fields)


@pytest.mark.parametrize("name", sections())
def test_every_setting_of_a_table_is_documented_with_its_default(name: str) -> None:
    """What the file shows is what holds without it; an entry that is unset shows an example."""
    shown = with_comments_lifted(EXAMPLE.read_text("utf-8"))[name]
    holding = tomllib.loads(EXAMPLE.read_text("utf-8"))[name]

    defaults = sections()[name]().model_dump(mode="json")

    assert isinstance(shown, dict)
    assert set(shown) == set(defaults)
    assert holding == {entry: value for entry, value in defaults.items() if value is not None}


def test_every_setting_of_a_model_is_documented() -> None:
    """The first example model shows each entry once."""
    documented = with_comments_lifted(EXAMPLE.read_text("utf-8"))
    models = documented["models"]
    assert isinstance(models, dict)

    first = next(iter(models.values()))

    assert isinstance(first, dict)
    assert set(first) == set(ModelSettings.model_fields)


def test_the_file_can_be_used_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copied to chordwise.toml it changes nothing but the names of models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / settings.FILE_NAME).write_bytes(EXAMPLE.read_bytes())

    with_file = settings.load()
    monkeypatch.chdir(tmp_path.parent)
    without_file = settings.load()

    assert set(with_file.models) == {"house", "tiny"}
    assert with_file.model_dump(exclude={"models"}) == without_file.model_dump(exclude={"models"})
