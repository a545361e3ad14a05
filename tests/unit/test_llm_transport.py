"""Tests of decoding response bodies within a limit, and of quoting them in errors."""

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
def test_response_bodies_are_read(encoding: str, body: bytes) -> None:
    assert read(pieces(body), encoding, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("", CONTENT, transport.TooLargeError),
        ("gzip", gzip.compress(CONTENT), transport.TooLargeError),
        # A body that is compressed twice may have any size.
        *(
            (encoding, CONTENT, transport.UnknownPackingError)
            for encoding in ("gzip, gzip", "br", "zstd")
        ),
    ],
)
def test_too_long_bodies_and_other_encodings_are_rejected(
    encoding: str, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read(pieces(body), encoding, len(CONTENT) - 1)
    assert read([], "gzip", 10) == b""


@pytest.mark.parametrize("left", [1, 8, 30])
def test_a_truncated_body_is_detected(left: int) -> None:
    """Only its last bytes show that it is incomplete."""
    packed = gzip.compress(CONTENT)

    with pytest.raises(zlib.error):
        read(pieces(packed[:-left]), "gzip", len(CONTENT))


@pytest.mark.parametrize("more", [b"x" * 100, gzip.compress(b"")])
def test_data_after_the_end_of_a_body_is_limited(more: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield gzip.compress(CONTENT)
        yield from itertools.repeat(more)

    with pytest.raises((transport.TooLargeError, zlib.error)):
        read(endless(), "gzip", 1_000_000)


def test_a_decompression_bomb_is_not_read_completely() -> None:
    rest = iter(pieces(gzip.compress(b" " * 50_000_000)))

    with pytest.raises(transport.TooLargeError):
        read(rest, "gzip", 1_000_000)

    assert len(list(rest)) > 400


def test_pieces_are_small_however_much_they_decompress_to() -> None:
    """A file is written piece by piece; a bomb must not be in memory as a whole."""
    bomb = gzip.compress(b" " * 50_000_000)

    sizes = [len(piece) for piece in transport.unpacked([bomb], "gzip", 50_000_000)]

    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 1024 * 1024


@given(st.text(max_size=3_000))
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    shown = excerpt(text)

    assert len(shown) <= MAX_CHARACTERS
    assert shown.isprintable()


def test_an_echo_of_the_prompt_or_the_key_is_hidden() -> None:
    """Many servers repeat rejected input; a key is hidden as a whole.

    Other text is quoted, also with an empty key and a prompt that shares some words.
    """
    document = "Patient Erika Mustermann was admitted\non Tuesday with a broken arm."
    echo = "Invalid input: 'Mustermann was admitted on Tuesday with'"
    message = "Rate limit reached for gpt-6 on tokens per minute."

    assert "Mustermann" not in excerpt(echo, [document])
    assert "sk-1234" not in excerpt("Incorrect API key provided: sk-1234.", ["sk-1234"])
    assert excerpt(message, ["", "Which rate limit was reached?"]) == message


def test_an_html_page_without_a_title_has_none() -> None:
    assert page_title(b"<html><body>hello</body></html>") == ""
    assert page_title(b"<TITLE lang=en> Log in </TITLE>") == "Log in"
