"""The content of a file as an open descriptor, its hash and its size: never as bytes in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from chordwise.readers import failures, loading
from chordwise.readers.capacity import MEGABYTE

SLICE_BYTES = MEGABYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An open file and what its bytes were when they were hashed; close it after use.

    `modified_ns` is `None` for a file without a name, which nobody else can change.
    """

    file: BinaryIO
    sha256: str
    byte_count: int
    modified_ns: int | None = None

    def close(self) -> None:
        """Close the file; one without a name is gone then."""
        self.file.close()

    def require_unchanged(self) -> None:
        """Check that the file still is what was hashed.

        Raises:
            ReadError: It was written to meanwhile.
        """
        if self.modified_ns is None:
            return
        status = os.fstat(self.file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.byte_count, self.modified_ns):
            raise failures.changed()


def of_file(file: BinaryIO, max_megabytes: int) -> Content:
    """Return the content of an open regular file, hashed slice by slice.

    Raises:
        ReadError: It cannot be read, or is larger than the limit by now.
    """
    digest, byte_count = hashlib.sha256(), 0
    modified_ns = os.fstat(file.fileno()).st_mtime_ns
    try:
        for piece in slices(file):
            digest.update(piece)
            byte_count += len(piece)
            if byte_count > max_megabytes * MEGABYTE:
                raise failures.larger_than(max_megabytes)
    except OSError as error:
        raise loading.explained(error) from error
    return Content(
        file=file, sha256=digest.hexdigest(), byte_count=byte_count, modified_ns=modified_ns
    )


def spooled(pieces: Iterable[bytes | bytearray]) -> Content:
    """Return what comes in pieces as a file without a name in the folder for temporary files.

    Raises:
        ReadError: There is no room for it.
    """
    digest, byte_count = hashlib.sha256(), 0
    file = _nameless_file()
    try:
        for piece in pieces:
            digest.update(piece)
            byte_count += len(piece)
            _write(file, piece)
    except BaseException:
        file.close()
        raise
    return Content(file=file, sha256=digest.hexdigest(), byte_count=byte_count)


def slices(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file, a slice at a time."""
    while piece := file.read(SLICE_BYTES):
        yield piece


def _nameless_file() -> BinaryIO:
    try:
        # Unbuffered: the child reads the same file by its descriptor.
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise loading.explained(error) from error


def _write(file: BinaryIO, piece: bytes | bytearray) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise loading.explained(error) from error
