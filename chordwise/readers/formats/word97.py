"""Reader for Word 97 to 2003 (DOC): the displayed text, by its piece table ([MS-DOC] §2.4.1)."""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Iterator

import olefile

from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, of_bytes
from chordwise.readers.reader_output import Extracted

MEDIA_TYPE = "application/msword"
STREAM = "WordDocument"
# Offsets and values in the file information block (§2.5).
_VERSION_AT, _FLAGS_AT, _PIECES_AT = 0x02, 0x0A, 0x01A2
_WORD_97, _ENCRYPTED, _SECOND_TABLE = 0x00C1, 0x0100, 0x0200
# The lengths of main text, footnotes, headers, (unused), comments, endnotes and two of text boxes.
_LENGTHS = struct.Struct("<8I")
_LENGTHS_AT, _HEADERS, _COMMENTS = 0x4C, 2, 4
_PROPERTIES, _PIECE_TABLE = 1, 2
_PIECE = struct.Struct("<HIH")
_NARROW = 0x4000_0000
# A field (§2.8.25) without nested fields: an instruction, and its result.
_FIELD = re.compile("\x13[^\x13\x14\x15]*(?:\x14([^\x13\x15]*))?\x15")
_NESTED_FIELDS = 20
_ROW_ENDS, _CELL_END = re.compile("\x07{2,}"), "\x07"
_PARAGRAPH_END, _BREAKS = "\r", re.compile("[\x0b\x0c\x0e]")
_SIGNS = {0x1E: "-", 0x1F: None, **dict.fromkeys((*range(9), *range(0x10, 0x1E)))}
# A picture, a drawing or a comment, and a field of a form (§2.3.6 and §2.8.25).
_UNREAD = re.compile("[\x01\x05\x08]|FORM(?:TEXT|CHECKBOX|DROPDOWN)")
_BLANK_LINES = re.compile(r"\n\s*\n")
_DAMAGES = (OSError, ValueError, IndexError, struct.error, KeyError, AttributeError, TypeError)


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the main text, notes, headers and text boxes; comments are left out, as in DOCX."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            main = bytes(container.openstream(STREAM).read())
            flags = _require_legible(main)
            table = container.openstream("1Table" if flags & _SECOND_TABLE else "0Table").read()
            title = container.get_metadata().title
        text = _text(main, bytes(table), max_characters)
        stories = [_printed_text(story) for story in _stories(main, text)]
    except _DAMAGES as error:
        raise failures.malformed("is a damaged Word document.") from error
    return Extracted(
        text="\n\n".join(story for story in stories if story),
        media_type=MEDIA_TYPE,
        title=encodings.decode(title).text if title and isinstance(title, bytes) else "",
        is_partial=bool(_UNREAD.search(text)),
    )


def _require_legible(main: bytes) -> int:
    (version,) = struct.unpack_from("<H", main, _VERSION_AT)
    (flags,) = struct.unpack_from("<H", main, _FLAGS_AT)
    if flags & _ENCRYPTED:
        raise failures.encrypted()
    if version < _WORD_97:
        raise failures.unsupported("a Word document from before 1997", failures.convert_to("docx"))
    return int(flags)


def _text(main: bytes, table: bytes, max_characters: int) -> str:
    places, pieces = _piece_table(table, *struct.unpack_from("<II", main, _PIECES_AT))
    if places[-1] > max_characters:
        raise failures.too_many_characters(max_characters)
    texts = []
    for (start, end), (_, place, _) in zip(itertools.pairwise(places), pieces, strict=True):
        text = _piece(main, place, end - start)
        if len(text) != end - start:
            raise ValueError("a piece outside of the stream")
        texts.append(text)
    return "".join(texts)


def _piece(main: bytes, place: int, length: int) -> str:
    if place & _NARROW:
        start = (place & ~_NARROW) // 2
        return main[start : start + length].decode("cp1252", "replace")
    # Not as UTF-16, where a pair would count as one character.
    units = struct.unpack_from(f"<{length}H", main, place)
    return "".join(map(chr, units))


def _piece_table(
    table: bytes, place: int, size: int
) -> tuple[tuple[int, ...], list[tuple[int, int, int]]]:
    while table[place] == _PROPERTIES:
        (length,) = struct.unpack_from("<H", table, place + 1)
        place, size = place + 3 + length, size - 3 - length
    if table[place] != _PIECE_TABLE:
        raise ValueError("no table of pieces")
    (length,) = struct.unpack_from("<I", table, place + 1)
    count = (min(length, size) - 4) // (4 + _PIECE.size)
    places = struct.unpack_from(f"<{count + 1}I", table, place + 5)
    start = place + 5 + 4 * (count + 1)
    return places, list(_PIECE.iter_unpack(table[start : start + count * _PIECE.size]))


def _stories(main: bytes, text: str) -> Iterator[str]:
    position = 0
    for number, length in enumerate(_LENGTHS.unpack_from(main, _LENGTHS_AT)):
        story = text[position : position + length]
        if number == _HEADERS:
            # Each section has headers for first, even and odd pages, which are mostly equal.
            story = _PARAGRAPH_END.join(dict.fromkeys(story.split(_PARAGRAPH_END)))
        if number != _COMMENTS:
            yield story
        position += length


def _printed_text(story: str) -> str:
    """Return the printed text: without marks and field instructions, with a bar between cells."""
    text = story
    for _ in range(_NESTED_FIELDS):
        text = _FIELD.sub(lambda field: field[1] or "", text)
    rows = _ROW_ENDS.sub("\n", text).replace(_CELL_END, " | ")
    lines = _BREAKS.sub("\n", rows).replace(_PARAGRAPH_END, "\n\n").translate(_SIGNS)
    whole = lines.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _BLANK_LINES.sub("\n\n", whole).strip()


FORMAT = Format("DOC", of_bytes(read), streams=(STREAM,))
