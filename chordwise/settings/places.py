"""Where the settings file and the data are, whatever else the settings say."""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from chordwise.errors import ConfigurationError
from chordwise.settings.environment import config_path
from chordwise.settings.trust import require_trusted

FILE_NAME = "chordwise.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """A settings file and what stood in it when it was opened and found to be trusted."""

    path: Path
    content: bytes

    def values(self) -> dict[str, object]:
        """Return what it sets.

        Raises:
            ConfigurationError: It is no TOML in UTF-8.
        """
        try:
            return tomllib.loads(self.content.decode("utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{self.path} is not valid TOML: {error}.") from error
        except UnicodeDecodeError as error:
            raise _unreadable(self.path, error) from error


def find_file(start: Path) -> Path | None:
    """Return the nearest `chordwise.toml` from `start` upward."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def settings_file(config: Path | None) -> SettingsFile | None:
    """Return the settings file that counts, if there is one.

    Raises:
        ConfigurationError: The file that is asked for is missing, cannot be read, or could have
            been written by another user.
    """
    named = config or config_path()
    path = named or find_file(Path.cwd())
    if path is None:
        return None
    if not path.is_file():
        raise ConfigurationError(f"There is no settings file {path}.", "Check --config.")
    try:
        return SettingsFile(path=path, content=_read(path, is_named=named is not None))
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path, *, is_named: bool) -> bytes:
    """Return the content of the very file whose owner and rights are checked."""
    # A pipe in its place would let the opening wait for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"There is no settings file {path}.", "Check --config.")
        require_trusted(path, file.fileno(), is_named=is_named)
        return file.read()


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    what = f"{path} cannot be read as UTF-8 text: {type(error).__name__}."
    return ConfigurationError(what, "Check its permissions and encoding.")


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
        ConfigurationError: The settings file is missing or not trusted.
    """
    known = _Home() if home is None else _Home(home=home)
    if "home" in known.model_fields_set:
        return known.home
    file = settings_file(config)
    return (_home_in(file) if file else None) or known.home


def _home_in(file: SettingsFile) -> Path | None:
    """Return the home that a file names, also where TOML breaks in another line."""
    try:
        content = file.content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    before_tables = takewhile(lambda line: not line.startswith("["), content.splitlines())
    for part in (content, *before_tables):
        with suppress(tomllib.TOMLDecodeError):
            home = tomllib.loads(part).get("home")
            if isinstance(home, str):
                return Path(home)
    return None
