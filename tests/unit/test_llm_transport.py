"""Bodies of responses: unpacked within a bound, and quoted in errors in part."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.llm import transport
from chordwise.llm.transport import MAX_CHARACTERS, excerpt, page_title

CONTENT = b'{"fine": true}' * 1_000


def read(body: Iterable[bytes], encoding: str, max_bytes: int) -> bytes:
    return b"".join(transport.unpacked(body, encoding, max_bytes))


def pieces(body: bytes) -> list[bytes]:
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


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("", CONTENT, transport.TooLargeError),
        ("gzip", gzip.compress(CONTENT), transport.TooLargeError),
        # What is packed twice may unpack to anything.
        *((each, CONTENT, transport.UnknownPackingError) for each in ("gzip, gzip", "br", "zstd")),
    ],
)
def test_more_than_is_wanted_and_other_packings_are_refused(
    encoding: str, body: bytes, error: type[Exception]
) -> None:
    """An answer without a body may say how that is packed."""
    with pytest.raises(error):
        read(pieces(body), encoding, len(CONTENT) - 1)
    assert read([], "gzip", 10) == b""


@pytest.mark.parametrize("left", [1, 8, 30])
def test_what_was_cut_off_is_not_taken_for_whole(left: int) -> None:
    """Its last bytes say that it is, and nothing before them."""
    packed = gzip.compress(CONTENT)

    with pytest.raises(zlib.error):
        read(pieces(packed[:-left]), "gzip", len(CONTENT))


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


@given(st.text(max_size=3_000))
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    """Neither escape sequences nor line breaks reach a terminal or a log."""
    shown = excerpt(text)

    assert len(shown) <= MAX_CHARACTERS
    assert shown.isprintable()


def test_an_echo_of_the_prompt_or_of_the_key_is_not_shown() -> None:
    """Servers like to repeat the input that they reject; a key is hidden as a whole.

    What repeats nothing is quoted, with an empty key and a prompt that has some words of it.
    """
    document = "Patient Erika Mustermann was admitted\non Tuesday with a broken arm."
    echo = "Invalid input: 'Mustermann was admitted on Tuesday with'"
    message = "Rate limit reached for gpt-6 on tokens per minute."

    assert "Mustermann" not in excerpt(echo, [document])
    assert "sk-1234" not in excerpt("Incorrect API key provided: sk-1234.", ["sk-1234"])
    assert excerpt(message, ["", "Which rate limit was reached?"]) == message


def test_a_page_without_a_title_has_none() -> None:
    assert page_title(b"<html><body>hello</body></html>") == ""
    assert page_title(b"<TITLE lang=en> Log in </TITLE>") == "Log in"
