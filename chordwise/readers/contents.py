"""The content of a file as an open descriptor, with its hash and size: never loaded into memory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from chordwise.errors import ReadError
from chordwise.machine import MEGABYTE
from chordwise.readers import failures
from chordwise.remote import RemoteError, RemotePath

SLICE_BYTES = MEGABYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An open file with the hash and size of its bytes; without a name it has no `modified_ns`."""

    file: BinaryIO
    sha256: str
    byte_count: int
    modified_ns: int | None = None

    def close(self) -> None:
        """Close the file; a file without a name is deleted by this."""
        self.file.close()

    def require_unchanged(self) -> None:
        """Check that the file has not changed since it was hashed.

        Raises:
            ReadError: The file has changed since.
        """
        if self.modified_ns is None:
            return
        status = os.fstat(self.file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.byte_count, self.modified_ns):
            raise failures.changed()


def content_of_file(file: BinaryIO, max_megabytes: int) -> Content:
    """Return the content of an open regular file, hashed in slices.

    Raises:
        ReadError: It cannot be read, or has grown larger than the limit.
    """
    digest, byte_count = hashlib.sha256(), 0
    modified_ns = os.fstat(file.fileno()).st_mtime_ns
    with _explained():
        for piece in slices(file):
            digest.update(piece)
            byte_count += len(piece)
            if byte_count > max_megabytes * MEGABYTE:
                raise failures.larger_than(max_megabytes)
    return Content(
        file=file, sha256=digest.hexdigest(), byte_count=byte_count, modified_ns=modified_ns
    )


def spooled(pieces: Iterable[bytes | bytearray]) -> Content:
    """Write pieces to an unnamed file in the temporary folder, and return it as content.

    Raises:
        ReadError: There is no space for it.
    """
    digest, byte_count = hashlib.sha256(), 0
    with _explained():
        # Unbuffered: the child reads the same file by its descriptor.
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the content
    try:
        for piece in pieces:
            digest.update(piece)
            byte_count += len(piece)
            view = memoryview(piece)
            with _explained():
                while view:
                    view = view[file.write(view) :]
    except BaseException:
        file.close()
        raise
    return Content(file=file, sha256=digest.hexdigest(), byte_count=byte_count)


def slices(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file in slices."""
    while piece := file.read(SLICE_BYTES):
        yield piece


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise read_error_for(error) from error


def opened(path: Path, max_megabytes: int, *, follow_symlinks: bool) -> BinaryIO:
    """Open a regular file for reading; a remote one is copied to an unnamed temporary file.

    Raises:
        ReadError: It is not a regular file, may not be read, does not exist, or is larger than the
            limit.
    """
    # The kind of the file may change between the check and the opening. Opening therefore does not
    # wait for the writer of a pipe, and the kind of the opened file is checked again.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    with _explained():
        if isinstance(path, RemotePath):
            return _fetched(path, max_megabytes)
        _refuse_irregular((path.stat() if follow_symlinks else path.lstat()).st_mode)
        descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        _require_readable(os.fstat(file.fileno()), max_megabytes)
    except ReadError:
        file.close()
        raise
    return file


def _fetched(path: RemotePath, max_megabytes: int) -> BinaryIO:
    status = path.stat()
    _require_readable(status, max_megabytes)
    file = spooled(path.pieces()).file
    now = path.stat()
    if (now, now.st_mtime_ns, file.tell()) != (status, status.st_mtime_ns, status.st_size):
        file.close()
        raise failures.changed()
    file.seek(0)
    return file


def _require_readable(status: os.stat_result, max_megabytes: int) -> None:
    _refuse_irregular(status.st_mode)
    if status.st_size > max_megabytes * MEGABYTE:
        raise failures.larger_than(max_megabytes)


def _refuse_irregular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    what = f"is {kind}, not a regular file."
    raise failures.refused(what, "Submit files and folders.", "not_a_file")


def read_error_for(error: OSError | ValueError) -> ReadError:
    """Return an error of the operating system as a sentence with a hint."""
    if not isinstance(error, OSError):
        return failures.refused("has a name that no file can have.", "Check the name.", "name")
    if isinstance(error, RemoteError):
        reason = "permission_denied" if error.errno == errno.EACCES else "input_output"
        return failures.unreadable(f"{error.strerror}.", error.hint, reason)
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
