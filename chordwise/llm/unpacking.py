"""Reading a body that may be packed, and never holding more of it than is wanted.

httpx unpacks each piece whole, however much it unpacks to, and as often as the header says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

PLAIN = frozenset({"", "identity"})
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""What servers send unasked; both begin with a header that tells which it is."""

_EITHER_HEADER = zlib.MAX_WBITS | 32


class TooLargeError(ValueError):
    """There is more than is wanted."""


class UnknownPackingError(ValueError):
    """The body is packed in a way that nobody has asked for, or more than once."""


def read(pieces: Iterable[bytes], encoding: str, most_bytes: int) -> bytes:
    """Return the body; `encoding` is the header `content-encoding`, empty where there is none.

    Raises:
        TooLargeError: It is larger than `most_bytes`.
        UnknownPackingError: It is not packed once with gzip or deflate.
        zlib.error: What it is packed into is broken.
    """
    encoding = encoding.strip().lower()
    if encoding in PLAIN:
        return _bounded(pieces, most_bytes)
    if encoding in PACKED:
        return _bounded(_unpacked(pieces, most_bytes), most_bytes)
    raise UnknownPackingError(encoding)


def _bounded(pieces: Iterable[bytes], most_bytes: int) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > most_bytes:
            raise TooLargeError
    return bytes(content)


def _unpacked(pieces: Iterable[bytes], most_bytes: int) -> Iterable[bytes]:
    unpacker = zlib.decompressobj(_EITHER_HEADER)
    for piece in pieces:
        yield unpacker.decompress(piece, most_bytes + 1)
    yield unpacker.flush()
