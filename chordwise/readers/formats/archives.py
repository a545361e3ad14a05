"""Reader for ZIP archives: every file in an archive is a separate document."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from chordwise.readers import failures
from chordwise.readers.contents import slices
from chordwise.readers.discovery import is_ignored
from chordwise.readers.formats import Format
from chordwise.readers.office_xml import DAMAGES, ENCRYPTED_FLAG, opened_zip
from chordwise.readers.reader_output import (
    ContainedFile,
    Extraction,
    Naming,
    ReadOptions,
    Source,
    Unread,
)


def documents(source: Source, options: ReadOptions) -> Iterator[Extraction]:
    """Yield the files, except hidden and temporary ones, in order; nothing is written to disk."""
    naming = Naming()
    with opened_zip(source, "ZIP archive") as archive:
        for member in archive.infolist():
            # Two dots are not a hidden folder but a name that tries to leave the archive.
            names = (name for name in member.filename.split("/") if name not in (".", ".."))
            if not member.is_dir() and not any(map(is_ignored, names)):
                yield _part(archive, member, naming.place(member.filename), options)


def _part(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, options: ReadOptions
) -> Extraction:
    if member.flag_bits & ENCRYPTED_FLAG:
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
    except (*DAMAGES, RuntimeError) as error:
        raise failures.malformed("is damaged: it cannot be unpacked.") from error


FORMAT = Format("ZIP", documents, extensions=(".zip",), parts=((),))
