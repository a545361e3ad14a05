"""Where the settings file and the data are, whatever else the settings say."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from chordwise.errors import ConfigurationError
from chordwise.settings.environment import config_path

FILE_NAME = "chordwise.toml"


def find_file(start: Path) -> Path | None:
    """Return the nearest `chordwise.toml` from `start` upward."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def settings_file(config: Path | None) -> Path | None:
    """Return the settings file that counts, if there is one.

    Raises:
        ConfigurationError: The file that is asked for is missing.
    """
    path = config or config_path() or find_file(Path.cwd())
    if path is not None and not path.is_file():
        raise ConfigurationError(f"There is no settings file {path}.", "Check --config.")
    return path


def default_home() -> Path:
    """Return the folder where the data is unless somebody says otherwise."""
    return Path(platformdirs.user_data_dir("chordwise"))


class _Home(BaseSettings):
    """The one setting that counts here, as flags and the environment have it."""

    model_config = SettingsConfigDict(env_prefix="CHORDWISE_", extra="ignore")

    home: Path = Field(default_factory=default_home)


def find_home(config: Path | None = None, home: Path | None = None) -> Path:
    """Return where the data is, even where other settings are wrong; ranked as they are.

    Raises:
        ConfigurationError: The file that is asked for is missing.
    """
    file = settings_file(config)
    known = _Home() if home is None else _Home(home=home)
    if "home" in known.model_fields_set or file is None:
        return known.home
    return _home_in(file) or known.home


def _home_in(file: Path) -> Path | None:
    """Return the home that a file names, also where TOML breaks in another line."""
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    before_tables = takewhile(lambda line: not line.startswith("["), content.splitlines())
    for part in (content, *before_tables):
        with suppress(tomllib.TOMLDecodeError):
            home = tomllib.loads(part).get("home")
            if isinstance(home, str):
                return Path(home)
    return None
