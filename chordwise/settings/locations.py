"""The locations of the settings file and of the home."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from chordwise.errors import ConfigurationError
from chordwise.settings.environment import config_path

FILE_NAME = "chordwise.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """A trusted settings file and its content; `is_named` is false if it was found in a folder."""

    path: Path
    content: bytes
    is_named: bool

    def values(self) -> dict[str, object]:
        """Return the settings in the file.

        Raises:
            ConfigurationError: It is not valid TOML in UTF-8, or has a setting for which the user
                must have named it.
        """
        try:
            values = tomllib.loads(self.content.decode("utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{self.path} is not valid TOML: {error}.") from error
        except UnicodeDecodeError as error:
            raise _unreadable(self.path, error) from error
        readers = values.get("readers")
        for name in (*values, *(readers if isinstance(readers, dict) else ())):
            self.require_named_for(name)
        return values

    def require_named_for(self, setting: str) -> None:
        """Refuse a setting that names files on which programs run, if the file was found.

        Raises:
            ConfigurationError: The user has not named the file.
        """
        if setting in ("home", "ocr_data") and not self.is_named:
            raise ConfigurationError(
                f"The settings file {self.path} sets {setting}, and you have not named this file.",
                f"Programs run on the files of that folder. If you trust them, name the file with "
                f"--config {self.path} or CHORDWISE_CONFIG. Otherwise, remove the line; your own "
                "value belongs in the environment, such as CHORDWISE_HOME.",
            )


def settings_file(config: Path | None) -> SettingsFile | None:
    """Return the settings file that applies, if any.

    Raises:
        ConfigurationError: The file is missing, unreadable, or writable by other users.
    """
    path = config or config_path()
    is_named = path is not None
    if path is None:
        here = Path.cwd()
        candidates = (folder / FILE_NAME for folder in (here, *here.parents))
        path = next(filter(Path.is_file, candidates), None)
    if path is None:
        return None
    what = f"The settings file {path} does not exist."
    missing = ConfigurationError(what, "Check --config and CHORDWISE_CONFIG.")
    if not path.is_file():
        raise missing
    try:
        # Opening a pipe would block until a writer opens it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise missing
            require_trusted(path, file.fileno(), is_named=is_named)
            return SettingsFile(path=path, content=file.read(), is_named=is_named)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    what = f"{path} cannot be read as UTF-8 text: {type(error).__name__}."
    return ConfigurationError(what, "Check its permissions and encoding.")


def default_home() -> Path:
    """Return the default home."""
    return Path(platformdirs.user_data_dir("chordwise"))


class _Home(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CHORDWISE_", extra="ignore")

    home: Path = Field(default_factory=default_home)


def find_home(config: Path | None = None, home: Path | None = None) -> Path:
    """Return the home, even if other settings are invalid, with the usual precedence.

    Raises:
        ConfigurationError: The settings file is missing or not trusted, or not named and has it.
    """
    defaults = _Home() if home is None else _Home(home=home)
    if "home" in defaults.model_fields_set:
        return defaults.home
    file = settings_file(config)
    return (_home_in(file) if file else None) or defaults.home


def _home_in(file: SettingsFile) -> Path | None:
    try:
        content = file.content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    before_tables = takewhile(lambda line: not line.startswith("["), content.splitlines())
    for part in (content, *before_tables):
        with suppress(tomllib.TOMLDecodeError):
            home = tomllib.loads(part).get("home")
            if isinstance(home, str):
                file.require_named_for("home")
                return Path(home)
    return None


_ROOT = 0
_MAX_LINKS = 40


def require_trusted(file: Path, descriptor: int, *, is_named: bool) -> None:
    """Refuse an open settings file, folder or link on its path that other users own or may write.

    A file that the user named (`is_named`) may have any owner, and on a read-only mount others
    may be allowed to write it.

    Raises:
        ConfigurationError: The file is not trusted.
        OSError: A folder on the path cannot be read.
    """
    steps = [*_folders_and_links(file), _Step(file, descriptor, os.fstat(descriptor))]
    for step in steps:
        if not is_named and step.state.st_uid not in {_ROOT, os.geteuid()}:
            raise _owned_by_another(file, step)
        if step.is_writable_by_others() and not (is_named and step.is_on_read_only_mount()):
            raise _writable_by_others(file, step)


@dataclass(frozen=True, slots=True)
class _Step:
    """A folder or link on the path of a file, or the open file itself."""

    path: Path
    target: Path | int
    state: os.stat_result

    def is_writable_by_others(self) -> bool:
        mode = self.state.st_mode
        if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            return False  # links have no content; sticky folders protect their entries
        if mode & stat.S_IWOTH:
            return True
        return bool(mode & stat.S_IWGRP) and not self._is_group_private()

    def is_on_read_only_mount(self) -> bool:
        return bool(os.statvfs(self.target).f_flag & os.ST_RDONLY)

    def _is_group_private(self) -> bool:
        """Return whether the group is the private group of the owner or of this user."""
        if _has_access_list(self.target):
            return False  # the group bits are the mask of the list
        users = {self.state.st_uid, os.geteuid()}
        return any(_has_only(self.state.st_gid, user) for user in users)


def _has_access_list(target: Path | int) -> bool:
    if sys.platform == "linux":
        with suppress(OSError):  # the file system does not support it
            return "system.posix_acl_access" in os.listxattr(target)
    return False


def _has_only(group_id: int, user_id: int) -> bool:
    """Without names, as in many containers, the numeric ids must be equal."""
    try:
        user = pwd.getpwuid(user_id).pw_name
        group = grp.getgrgid(group_id)
    except KeyError:
        return group_id == user_id and not _with_primary(group_id)
    return group.gr_name == user and {*group.gr_mem, *_with_primary(group_id)} <= {user, "root"}


def _with_primary(group_id: int) -> set[str]:
    return {user.pw_name for user in pwd.getpwall() if user.pw_gid == group_id}


def _folders_and_links(file: Path) -> Iterator[_Step]:
    """Yield every folder and symbolic link on the path of a file, as the kernel follows them."""
    folder, links = Path("/"), 0
    pending = list(reversed(file.absolute().parts[1:]))
    yield _Step(folder, folder, folder.lstat())
    while pending:
        name = pending.pop()
        place = folder.parent if name == ".." else folder / name
        state = place.lstat()
        if stat.S_ISREG(state.st_mode):
            return
        yield _Step(place, place, state)
        if not stat.S_ISLNK(state.st_mode):
            folder = place
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = place.readlink()
        folder = Path("/") if target.is_absolute() else folder
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _owned_by_another(file: Path, step: _Step) -> ConfigurationError:
    owner, own_id = _user(step.state.st_uid), os.geteuid()
    expected = f"neither to {_user(own_id)} nor to root" if own_id != _ROOT else "not to root"
    through = "" if step.path == file else f" is reached through {step.path}, which"
    return ConfigurationError(
        f"The settings file {file}{through} belongs to {owner}, {expected}.",
        f"It controls where documents and keys are sent. If you trust its owner, name it with "
        f"--config {file} or CHORDWISE_CONFIG. If it is yours, run `chown {own_id} {step.path}`. "
        "Otherwise, create your own chordwise.toml in the working folder.",
    )


def _writable_by_others(file: Path, step: _Step) -> ConfigurationError:
    mode = stat.S_IMODE(step.state.st_mode)
    group = f"Members of the group {_group(step.state.st_gid)}"
    who = "All users of this machine" if mode & stat.S_IWOTH else group
    may = "write" if step.path == file else f"write to {step.path} and so replace"
    fix = f"chmod go-w {step.path}"
    if _has_access_list(step.target):
        fix = f"setfacl -b {step.path} && {fix}"
    return ConfigurationError(
        f"{who} may {may} the settings file {file} (mode {mode:04o}).",
        f"It controls where documents and keys are sent. Run `{fix}`, or copy the file to a "
        "folder of your own and name it with --config.",
    )


def _user(user_id: int) -> str:
    try:
        return f"{pwd.getpwuid(user_id).pw_name} (uid {user_id})"
    except KeyError:
        return f"uid {user_id}"


def _group(group_id: int) -> str:
    try:
        return f"{grp.getgrgid(group_id).gr_name} (gid {group_id})"
    except KeyError:
        return f"gid {group_id}"


def require_writable(folder: Path, setting: str) -> None:
    """Check that this process can create files in a folder.

    Raises:
        ConfigurationError: It cannot.
    """
    if not folder.is_dir():
        what = f"{setting}: the folder {folder} does not exist."
        raise ConfigurationError(what, "Create or mount it on the machine of the scheduler.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"{setting}: {folder} cannot be written to by user {os.geteuid()}.",
            f"Make it writable for the scheduler's user, such as: chown {os.geteuid()} {folder}",
        )
