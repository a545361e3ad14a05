"""Compressed RTF is unpacked as [MS-OXRTFCP] says."""

from __future__ import annotations

import struct

import pytest

from chordwise.readers.rich_text import decompressed

# The examples of the specification, §3.2.2 and §3.2.3.
SIMPLE = (
    "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232"
    "0af32068656c090020627705b06c647d0a800fa0"
)
CROSSING = "1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0"


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (SIMPLE, b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"),
        (CROSSING, b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"),
    ],
)
def test_the_examples_of_the_specification(stream: str, text: bytes) -> None:
    """References into the dictionary, and one into what is just being written."""
    assert decompressed(bytes.fromhex(stream)) == text


def test_the_window_moves_on() -> None:
    """References count from where the window stands after any number of literals."""
    literals = bytes(range(256)) * 40
    runs = b"".join(b"\0" + literals[at : at + 8] for at in range(0, len(literals), 8))
    start, end = (207 + len(literals) - 4) % 4096, (207 + len(literals) + 4) % 4096
    contents = runs + b"\x03" + struct.pack(">HH", start << 4 | 2, end << 4)

    assert decompressed(packed(contents)) == literals + literals[-4:]


def test_what_is_stored_as_it_is() -> None:
    """Without a compression, the header's size counts."""
    assert decompressed(struct.pack("<II4sI", 17, 5, b"MELA", 0) + b"{\\rtf junk") == b"{\\rtf"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"LZFu",
        bytes.fromhex(SIMPLE)[:-1],
        bytes.fromhex(SIMPLE)[:20] + b"x" + bytes.fromhex(SIMPLE)[21:],
        bytes.fromhex(SIMPLE).replace(b"LZFu", b"LZFv"),
    ],
    ids=["empty", "short", "cut off", "changed", "unknown"],
)
def test_damage_is_noticed(stream: bytes) -> None:
    """Nothing is read out of a stream that is not what its header says."""
    with pytest.raises(ValueError, match=r"no header|unknown kind"):
        decompressed(stream)


def packed(contents: bytes) -> bytes:
    """Return a stream with these contents and the checksum of the specification, bit by bit."""
    checksum = 0
    for byte in contents:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0xEDB88320 if checksum & 1 else 0)
    return struct.pack("<II4sI", len(contents) + 12, 0, b"LZFu", checksum) + contents
