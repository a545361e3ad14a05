"""Files and folders that belong to one user and nobody else may read."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from pathlib import Path

from chordwise.errors import ConfigurationError

_PASSWORD_BYTES = 24


def make_folder(folder: Path) -> Path:
    """Create a folder with mode 0700; one that exists already stays as it is.

    Raises:
        ConfigurationError: The folder cannot be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be created: {error.strerror}.",
            "Set CHORDWISE_HOME to a folder that you may write to.",
        ) from error
    return folder


def check_ownership(folder: Path) -> None:
    """Refuse a folder that somebody else owns or may look into.

    Raises:
        ConfigurationError: The folder is not ours alone.
    """
    state = folder.lstat()
    is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(state.st_mode) & 0o077:
        raise ConfigurationError(
            f"The folder {folder} belongs to somebody else or is open to others.",
            "Remove it, or set TMPDIR to a folder of your own.",
        )


def check_writers(folder: Path) -> None:
    """Refuse a folder that other users can write to: they could replace what lies in it.

    Raises:
        ConfigurationError: Its group or everyone can write to it.
    """
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise ConfigurationError(
            f"Other users can write to the folder {folder}.",
            f"Run `chmod go-w {shlex.quote(str(folder))}`, or set CHORDWISE_HOME elsewhere.",
        )


def write(path: Path, text: str) -> None:
    """Replace a file of mode 0600 in one step: readers see the old or the new one, whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def password(path: Path) -> str:
    """Return the password in a file; the first call makes one up."""
    if not path.exists():
        write(path, secrets.token_urlsafe(_PASSWORD_BYTES))
    return path.read_text(encoding="utf-8").strip()
