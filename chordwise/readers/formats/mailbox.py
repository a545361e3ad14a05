"""Mailboxes (MBOX): every message is a separate document."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator

from chordwise.domain.places import MESSAGE
from chordwise.readers.formats import Format
from chordwise.readers.formats.mail import MESSAGE_NAME
from chordwise.readers.reader_output import ContainedFile, Extraction

# A line that opens a message (RFC 4155): an address, a date with the time, and the year.
SEPARATOR = re.compile(
    rb"^From [^\r\n]{1,200}\d\d:\d\d[^\r\n]{0,40}\d{4}[^\r\n]{0,20}\r?$", re.MULTILINE
)
# The variant mboxrd quotes lines that look like a separator with “>”.
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_NAMES = (".mbox", ".mbx")
_HEAD_BYTES = 4_096
_HEADER_START = re.compile(rb">?[A-Za-z][\w-]{1,60}:[ \t]")


def documents(data: bytes | mmap.mmap) -> Iterator[Extraction]:
    """Yield the messages of a mailbox, named by their number from 1."""
    openings = SEPARATOR.finditer(data)
    opening = next(openings, None)
    number = 0
    while opening is not None:
        following = next(openings, None)
        end = len(data) if following is None else following.start()
        number += 1
        message = data[opening.end() : end].lstrip(b"\r\n")
        yield ContainedFile(
            place=str(number),
            name=f"{number}.eml",
            pieces=(_QUOTED.sub(rb"\1", message),),
            label=f"{MESSAGE} {number}",
        )
        opening = following


def matches(head: bytes, extension: str) -> bool:
    """Return whether a file is a mailbox, by its beginning, as it may be too large for memory."""
    opening = SEPARATOR.match(head[:_HEAD_BYTES])
    if opening is None or extension == MESSAGE_NAME:
        return False
    following = head[opening.end() : opening.end() + 300].lstrip(b"\r\n")
    return extension in _NAMES or bool(_HEADER_START.match(following))


FORMAT = Format(
    "MBOX",
    lambda file, _: documents(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)),
    matches=matches,
    rank=3,
)
