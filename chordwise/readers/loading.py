"""Opens regular files, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from chordwise.errors import ReadError
from chordwise.readers import failures

_MEGABYTE = 1024 * 1024


def opened(path: Path, max_megabytes: int, *, follow_symlinks: bool) -> BinaryIO:
    """Return a regular file, open for reading.

    Raises:
        ReadError: Not a regular file, not allowed, gone, or larger than the limit.
    """
    _check_kind(path, follow_symlinks=follow_symlinks)
    # The kind may change between the check and the opening, hence no waiting for a pipe's writer
    # and a second look at what was really opened.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        raise explained(error) from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        status = os.fstat(file.fileno())
        _refuse_irregular(status.st_mode)
        if status.st_size > max_megabytes * _MEGABYTE:
            raise failures.larger_than(max_megabytes)
    except ReadError:
        file.close()
        raise
    return file


def _check_kind(path: Path, *, follow_symlinks: bool) -> None:
    try:
        mode = (path.stat() if follow_symlinks else path.lstat()).st_mode
    except (OSError, ValueError) as error:
        raise explained(error) from error
    _refuse_irregular(mode)


def _refuse_irregular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise failures.refused(
            f"is {_kind(mode)}, not a regular file.", "Submit files and folders.", "not_a_file"
        )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def explained(error: OSError | ValueError) -> ReadError:
    """Return what the operating system said, as a sentence with something to do."""
    if not isinstance(error, OSError):
        return failures.refused("has a name that no file can have.", "Check the name.", "name")
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return failures.unreadable("does not exist (any more).", "Check the name.", "not_found")
        case errno.EACCES | errno.EPERM:
            return failures.unreadable(
                "may not be read by this user.", "Change its permissions.", "permission_denied"
            )
        case errno.ELOOP:
            return failures.refused(
                "is a symbolic link that is not followed.", "Name its target instead.", "symlink"
            )
    return failures.unreadable(
        f"cannot be read: {error.strerror}.", "Check the disk and the file.", "input_output"
    )
