"""Moves files so that a kill at any moment leaves each of them whole in exactly one place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from chordwise.domain.inbox_names import MARK

Rename: TypeAlias = Callable[[Path, Path], None]

_COPYING = ".copying"
_SLICE = 1024 * 1024
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def mark_beside(path: Path, token: str) -> Path:
    """Return the hidden name under which a file lies while it is copied."""
    return path.with_name(f"{MARK}{token}")


def take(source: Path, target: Path, token: str, rename: Rename = os.rename) -> None:
    """Move a file to a name that nobody else uses, across file systems where it has to be.

    There it first gets a hidden name, so that nobody else takes it meanwhile; `finish_taking` goes
    on after a kill, and whatever raises leaves it under one of the three names.
    """
    try:
        rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = mark_beside(source, token)
        os.rename(source, mark)  # noqa: PTH104 - atomic, within the folder
        finish_taking(mark, target)


def finish_taking(mark: Path, target: Path) -> None:
    """Copy what was marked, and remove it once the copy is whole and on the disk."""
    if not target.exists():
        copying = target.with_name(_COPYING)
        copying.unlink(missing_ok=True)  # of an attempt that was cut off
        try:
            copy(mark, copying)
            os.rename(copying, target)  # noqa: PTH104 - atomic, and nobody else is there
        finally:
            copying.unlink(missing_ok=True)
        _sync_folder(target.parent)
    mark.unlink()


def place(source: Path, target: Path, token: str) -> None:
    """Move a file to a name that must be free; what lies there is never overwritten.

    Raises:
        FileExistsError: The name is taken; the file is where it was.
    """
    try:
        _name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = mark_beside(target, token)
        mark.unlink(missing_ok=True)  # of an attempt that was cut off
        try:
            copy(source, mark)
            _name(mark, target)
        finally:
            mark.unlink(missing_ok=True)
        _sync_folder(target.parent)
        source.unlink()


def is_copy(first: Path, second: Path) -> bool:
    """Tell whether two names lead to one file, or one is the copy that `copy` made of the other."""
    try:
        return first.samefile(second) or (
            first.stat().st_mtime_ns == second.stat().st_mtime_ns
            and sha256_of(first) == sha256_of(second)
        )
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Make a copy that is on the disk, with the times and permissions; links are not followed."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, _SLICE)
        writing.flush()
        os.fsync(writing.fileno())
    shutil.copystat(source, target, follow_symlinks=False)


def _name(source: Path, target: Path) -> None:
    """Rename within a file system, but never onto something."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No links here, or not to a file of somebody else's.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
        os.rename(source, target)  # noqa: PTH104 - fails with EXDEV as the link did
    else:
        source.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
