"""Reads RTF: the visible text, with a vertical bar between the cells of a table."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from striprtf.striprtf import rtf_to_text

from chordwise.domain import document_flags
from chordwise.readers import failures
from chordwise.readers.formats import Format, of_bytes
from chordwise.readers.reader_output import Extracted

MEDIA_TYPE = "application/rtf"


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the visible text; `left_out` gets the lines of hidden text that address a model."""
    shown, hidden = _parted(data.decode("latin-1"))
    text, left_out = _text(shown), _text(f"{{\\rtf1 {hidden}}}") if hidden else ""
    if len(text) > max_characters:
        raise failures.too_many_characters(max_characters)
    return Extracted(
        text=text.strip(),
        media_type=MEDIA_TYPE,
        left_out=document_flags.lines_addressing_model(left_out),
        is_partial=bool(_UNREAD.search(shown)),
    )


# Pictures, shapes, objects, and the fields of a form.
_UNREAD = re.compile(r"\\(?:pict|object|shp|formfield)\b")


def _text(markup: str) -> str:
    try:
        text: str = rtf_to_text(  # type: ignore[no-untyped-call]  # it declares no types
            markup, encoding="cp1252", errors="replace"
        )
    except (ValueError, LookupError, IndexError, UnicodeError) as error:
        raise failures.malformed("is a damaged RTF file.") from error
    return text


# Braces, and the control words that turn hidden text on and off; `\{` and `\}` are characters.
_STEP = re.compile(r"\\[\\{}]|[{}]|\\(?:v(-?\d{1,9})?|plain)(?![A-Za-z0-9-]) ?")


def _parted(markup: str) -> tuple[str, str]:
    shown: list[str] = []
    hidden: list[str] = []
    is_hidden, around, at = False, [False], 0
    for match in _STEP.finditer(markup):
        step = match[0]
        (hidden if is_hidden else shown).append(markup[at : match.start()])
        at = match.end()
        if step.startswith("\\v"):
            is_hidden = match[1] != "0"
            continue
        if step == "{":
            around.append(is_hidden)
        elif step == "}":
            is_hidden = around.pop() if around else False
        elif step.startswith("\\p"):
            is_hidden = False
        (hidden if is_hidden and step[0] == "\\" else shown).append(step)
    (hidden if is_hidden else shown).append(markup[at:])
    return "".join(shown), "".join(hidden)


_HEADER = struct.Struct("<II4sI")
# The size in the header does not include its own four bytes.
_SIZE_BYTES = 4
_COMPRESSED, _RAW = b"LZFu", b"MELA"
_WINDOW_BYTES = 4_096
_INITIAL = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_SHORTEST = 2
_TOKENS_IN_A_RUN = 8


def decompressed(stream: bytes) -> bytes:
    """Return the decompressed RTF of an Outlook stream.

    Raises:
        ReadError: The stream is truncated, damaged, or of an unknown kind.
    """
    if len(stream) < _HEADER.size:
        raise failures.malformed("has a damaged body.")
    size, raw_size, kind, checksum = _HEADER.unpack_from(stream)
    contents = stream[_HEADER.size : size + _SIZE_BYTES]
    if kind == _RAW:
        return contents[:raw_size]
    # The CRC of §2.1.3.2 starts at zero and is not inverted at the end.
    if kind != _COMPRESSED or checksum != zlib.crc32(contents, 0xFFFF_FFFF) ^ 0xFFFF_FFFF:
        raise failures.malformed("has a damaged body.")
    return _expanded(contents)


def _expanded(contents: bytes) -> bytes:
    text = bytearray(_WINDOW_BYTES - len(_INITIAL)) + _INITIAL
    for token in _tokens(contents):
        if len(token) == 1:
            text += token
            continue
        reference = int.from_bytes(token, "big")
        # The position of the next byte in the window, which begins with the initial text.
        position = len(text) + len(_INITIAL)
        distance = (position - (reference >> 4)) % _WINDOW_BYTES
        if not distance:
            break
        for _ in range((reference & 0xF) + _SHORTEST):
            text.append(text[-distance])
    return bytes(text[_WINDOW_BYTES:])


def _tokens(contents: bytes) -> Iterator[bytes]:
    """Yield literal bytes and references of two bytes; a flag byte precedes each eight of them."""
    position = 0
    while position < len(contents):
        kinds = contents[position]
        position += 1
        for index in range(_TOKENS_IN_A_RUN):
            width = 1 + (kinds >> index & 1)
            token = contents[position : position + width]
            if len(token) < width:
                return
            yield token
            position += width


FORMAT = Format("RTF", of_bytes(read), matches=lambda data, _: data.startswith(b"{\\rtf"))
