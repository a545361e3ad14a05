"""Packed bodies: unpacked where servers send them unasked, and never into more than is wanted."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator

import pytest

from chordwise.llm import transport

CONTENT = b'{"fine": true}' * 1_000


def read(body: Iterable[bytes], encoding: str, max_bytes: int) -> bytes:
    """Return what is in a packed body."""
    return b"".join(transport.unpacked(body, encoding, max_bytes))


def pieces(body: bytes) -> list[bytes]:
    """Return a body as it comes from the network."""
    return [body[start : start + 100] for start in range(0, len(body), 100)]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", CONTENT),
        ("identity", CONTENT),
        ("gzip", gzip.compress(CONTENT)),
        ("X-GZIP ", gzip.compress(CONTENT)),
        ("gzip", gzip.compress(CONTENT[:5_000]) + gzip.compress(CONTENT[5_000:])),
        ("deflate", zlib.compress(CONTENT)),
    ],
)
def test_what_servers_send_is_read(encoding: str, body: bytes) -> None:
    """However a body comes, it is whole, up to the last byte that is wanted."""
    assert read(pieces(body), encoding, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(("encoding", "body"), [("", CONTENT), ("gzip", gzip.compress(CONTENT))])
def test_more_than_is_wanted_is_refused(encoding: str, body: bytes) -> None:
    """One byte more is too many."""
    with pytest.raises(transport.TooLargeError):
        read(pieces(body), encoding, len(CONTENT) - 1)


@pytest.mark.parametrize("left", [1, 8, 30])
def test_what_was_cut_off_is_not_taken_for_whole(left: int) -> None:
    """Its last bytes say that it is, and nothing before them."""
    packed = gzip.compress(CONTENT)

    with pytest.raises(zlib.error):
        read(pieces(packed[:-left]), "gzip", len(CONTENT))


def test_nothing_is_nothing_however_it_is_packed() -> None:
    """An answer without a body may say how that is packed."""
    assert read([], "gzip", 10) == b""


@pytest.mark.parametrize("more", [b"x" * 100, gzip.compress(b"")])
def test_what_follows_the_end_is_not_read_for_ever(more: bytes) -> None:
    """Neither what is no packed body, nor packed bodies without end in which there is nothing."""

    def endless() -> Iterator[bytes]:
        yield gzip.compress(CONTENT)
        yield from itertools.repeat(more)

    with pytest.raises((transport.TooLargeError, zlib.error)):
        read(endless(), "gzip", 1_000_000)


def test_a_bomb_is_not_read_to_its_end() -> None:
    """Nothing is taken from the network once there is more than is wanted."""
    rest = iter(pieces(gzip.compress(b" " * 50_000_000)))

    with pytest.raises(transport.TooLargeError):
        read(rest, "gzip", 1_000_000)

    assert len(list(rest)) > 400


def test_pieces_stay_small_however_much_they_unpack_to() -> None:
    """A file goes to the disk piece by piece; a bomb of one piece must not be held at once."""
    bomb = gzip.compress(b" " * 50_000_000)

    sizes = [len(piece) for piece in transport.unpacked([bomb], "gzip", 50_000_000)]

    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 1024 * 1024


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "nonsense"])
def test_other_packings_are_refused(encoding: str) -> None:
    """What is packed twice may unpack to anything."""
    with pytest.raises(transport.UnknownPackingError):
        read([CONTENT], encoding, len(CONTENT))
