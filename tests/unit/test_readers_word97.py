"""Tests of reading Word 97 documents."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest

from chordwise.errors import ReadError
from chordwise.readers.formats import word97
from tests.fakes.compound_files import compound_file

LIMIT = 10_000
NARROW = 0x4000_0000
ENCRYPTED, SECOND_TABLE = 0x0100, 0x0200
TEXT_AT = 2_048
PROPERTIES = b"\x01\x03\x00abc"


def doc(
    *stories: str, pieces: Sequence[str] = (), flags: int = SECOND_TABLE, version: int = 0xC1
) -> bytes:
    """Return a document with this main text, footnotes, headers …, in one or more pieces."""
    written, places, encoded = b"", [0], []
    for piece in pieces or ("".join(stories),):
        wide = any(ord(character) > 255 for character in piece)
        data = piece.encode("utf-16-le" if wide else "cp1252")
        start = TEXT_AT + len(written)
        encoded.append(struct.pack("<HIH", 0, start if wide else start * 2 | NARROW, 0))
        written += data + bytes(len(data) % 2)
        places.append(places[-1] + len(data) // (2 if wide else 1))
    plc = struct.pack(f"<{len(places)}I", *places) + b"".join(encoded)
    table = PROPERTIES + b"\x02" + struct.pack("<I", len(plc)) + plc
    lengths = [len(story) for story in stories] + [0] * (8 - len(stories))
    main = bytearray(TEXT_AT)
    struct.pack_into("<HH", main, 0, 0xA5EC, version)
    struct.pack_into("<H", main, 0x0A, flags)
    struct.pack_into("<8I", main, 0x4C, *lengths)
    struct.pack_into("<II", main, 0x01A2, 0, len(table))
    name = "1Table" if flags & SECOND_TABLE else "0Table"
    main += written
    return compound_file({"WordDocument": bytes(main.ljust(4_096)), name: table.ljust(4_096)})


def text(data: bytes) -> str:
    return word97.read(data, LIMIT).text


def failure(data: bytes, limit: int = LIMIT) -> ReadError:
    with pytest.raises(ReadError) as caught:
        word97.read(data, limit)
    return caught.value


CONTENTS = '\x13 TOC \\o \x14\x13 HYPERLINK "#x" \x14Tides\t\x13 PAGEREF x \x142\x15\x15\x15'
HEADER = "Top\rBottom\rTop\rBottom\r"


@pytest.mark.parametrize(
    ("stories", "expected"),
    [
        (["One\rTwo\x0band a half\r"], "One\n\nTwo\nand a half"),
        (  # Comments are dropped, and the header of each section is included once.
            ["Body\x02\r", "\x02 Note\r", HEADER, "", "\x05Comment\r", "End\r", "Box\r"],
            "Body\n\nNote\n\nTop\n\nBottom\n\nEnd\n\nBox",
        ),
        (["a\x07b\x07\x07c\x07d\x07\x07Then\r"], "a | b\nc | d\nThen"),
        (  # Fields are replaced by their results; their instructions are dropped.
            [f"{CONTENTS}\r\x13 XE index \x15Non\x1ebreaking, soft\x1fly\r"],
            "Tides\t2\n\nNon-breaking, softly",
        ),
    ],
    ids=["paragraphs", "notes and boxes", "tables", "fields"],
)
def test_the_text_is_the_visible_text(stories: list[str], expected: str) -> None:
    assert text(doc(*stories)) == text(doc(*stories, flags=0)) == expected


def test_pieces_of_both_widths_are_joined() -> None:
    pieces = ("“Tides” – ", "высоко 🌊 ", "und Ebbe\r")
    joined = "“Tides” – высоко 🌊 und Ebbe\r"
    units = len(joined.encode("utf-16-le")) // 2

    assert text(doc(joined + "x" * (units - len(joined)), pieces=pieces)) == joined.strip()


def test_unreadable_documents_report_the_reason() -> None:
    assert failure(doc("x\r", flags=SECOND_TABLE | ENCRYPTED)).outcome == "encrypted"
    assert "--convert-to docx" in failure(doc("x\r", version=0x65)).hint
    assert failure(doc("x" * 20), limit=10).reason == "too_many_characters"
    assert failure(doc("x\r", pieces=["x\r"])[:3_000]).reason == "malformed"
    assert failure(compound_file({"WordDocument": bytes(4_096)})).outcome == "unsupported"


def test_a_piece_outside_the_file_is_an_error() -> None:
    whole = doc("Tides\r")
    place = struct.pack("<I", TEXT_AT * 2 | NARROW)

    assert (
        failure(whole.replace(place, struct.pack("<I", NARROW | 0x10_0000))).reason == "malformed"
    )


def test_damaged_documents_give_text_or_an_error() -> None:
    whole, dice = doc("One\rTwo\r", "Note\r"), random.Random(7)  # noqa: S311 - reproducible
    outcomes = set()

    for _ in range(300):
        hostile = bytearray(whole)
        for _ in range(dice.randint(1, 30)):
            hostile[dice.randrange(512, len(hostile))] = dice.randrange(256)
        try:
            outcomes.add("text" if text(bytes(hostile)) else "empty")
        except ReadError as error:
            outcomes.add(error.reason)

    assert {"text", "malformed"} <= outcomes
