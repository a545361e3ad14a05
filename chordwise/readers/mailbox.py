"""Takes a mailbox (mbox) apart into its messages, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import mmap

from chordwise.readers import failures
from chordwise.readers.extracted import Extraction, Part, Unread, Wanted

# A line that opens a message (RFC 4155): an address, a date with the time, and the year.
SEPARATOR = re.compile(
    rb"^From [^\r\n]{1,200}\d\d:\d\d[^\r\n]{0,40}\d{4}[^\r\n]{0,20}\r?$", re.MULTILINE
)
# The writer put a sign before lines that look like a separator (in the variant mboxrd).
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


def documents(data: bytes | mmap, wanted: Wanted) -> Iterator[Extraction]:
    """Yield the messages, named by their number from 1."""
    openings = SEPARATOR.finditer(data)
    opening = next(openings, None)
    number = 0
    while opening is not None:
        following = next(openings, None)
        end = len(data) if following is None else following.start()
        number += 1
        yield _message(data[opening.end() : end].lstrip(b"\r\n"), str(number), wanted)
        opening = following


def _message(data: bytes, place: str, wanted: Wanted) -> Extraction:
    if len(data) > wanted.max_part_bytes:
        return Unread(place=place, error=failures.larger_than(wanted.max_part_bytes >> 20))
    return Part(place=place, name=f"{place}.eml", pieces=(_QUOTED.sub(rb"\1", data),))
