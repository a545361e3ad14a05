"""Reader for ZIP archives: every file in an archive is a separate document."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator

from chordwise.readers import failures
from chordwise.readers.contents import slices
from chordwise.readers.discovery import is_ignored
from chordwise.readers.format import Format
from chordwise.readers.reader_output import (
    ContainedFile,
    Extraction,
    Naming,
    ReadOptions,
    Source,
    Unread,
)

_ENCRYPTED_FLAG = 1
_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def documents(source: Source, options: ReadOptions) -> Iterator[Extraction]:
    """Yield the files, except hidden and temporary ones, in order; nothing is written to disk."""
    naming = Naming()
    with _opened(source) as archive:
        for member in archive.infolist():
            if not member.is_dir() and not _is_ignored(member.filename):
                yield _part(archive, member, naming.place(member.filename), options)


def _opened(source: Source) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (*_DAMAGES, NotImplementedError) as error:
        raise failures.malformed("is a damaged ZIP archive.") from error


def _is_ignored(name: str) -> bool:
    # Two dots are not a hidden folder but a name that tries to leave the archive.
    return any(is_ignored(segment) for segment in name.split("/") if segment not in (".", ".."))


def _part(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, options: ReadOptions
) -> Extraction:
    if member.flag_bits & _ENCRYPTED_FLAG:
        return Unread(place=place, error=failures.encrypted())
    if member.file_size > options.max_part_bytes:
        return Unread(place=place, error=failures.larger_than(options.max_part_bytes >> 20))
    return ContainedFile(place=place, name=member.filename, pieces=_pieces(archive, member))


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Unpack a file in slices; the library never returns more bytes than the member declares."""
    try:
        with archive.open(member) as stream:
            yield from slices(stream)
    except NotImplementedError as error:
        kind = "packed in a way that is not supported"
        raise failures.unsupported(kind, "Pack it again.") from error
    except (*_DAMAGES, RuntimeError) as error:
        raise failures.malformed("is damaged: it cannot be unpacked.") from error


FORMAT = Format("ZIP", documents, extensions=(".zip",), parts=((),))
