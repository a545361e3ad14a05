"""Reading a body that may be packed, and never holding more of it than is wanted.

httpx unpacks each piece whole, however much it unpacks to, and as often as the header says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

PLAIN = frozenset({"", "identity"})
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""What servers send unasked; both begin with a header that tells which it is."""

_EITHER_HEADER = zlib.MAX_WBITS | 32
# A piece of 64 KiB may unpack to a thousand times as much; so much is held of it at once.
_UNPACKED_BYTES = 1024 * 1024


class TooLargeError(ValueError):
    """There is more than is wanted."""


class UnknownPackingError(ValueError):
    """The body is packed in a way that nobody has asked for, or more than once."""


def unpacked(pieces: Iterable[bytes], encoding: str, most_bytes: int) -> Iterator[bytes]:
    """Yield the body piece by piece, none of them large, until it is more than is wanted.

    `encoding` is the header `content-encoding`, empty where there is none.

    Raises:
        TooLargeError: It is larger than `most_bytes`; so many or fewer were yielded.
        UnknownPackingError: It is not packed once with gzip or deflate.
        zlib.error: What it is packed into is broken, or cut off.
    """
    encoding = encoding.strip().lower()
    if encoding in PLAIN:
        return _bounded(pieces, most_bytes)
    if encoding in PACKED:
        return _bounded(_unpacked(_bounded(pieces, most_bytes)), most_bytes)
    raise UnknownPackingError(encoding)


def _bounded(pieces: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most_bytes:
            raise TooLargeError
        yield piece


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in all members of a body, of which gzip may have several (RFC 1952, 2.2)."""
    unpacker = None
    for piece in pieces:
        packed = piece
        while packed:
            if unpacker is None or unpacker.eof:
                unpacker = zlib.decompressobj(_EITHER_HEADER)
            yield unpacker.decompress(packed, _UNPACKED_BYTES)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if unpacker is not None:
        yield unpacker.flush()
        if not unpacker.eof:
            raise zlib.error("cut off")
