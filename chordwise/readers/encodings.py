"""Detection of text encodings: by mark, as UTF-8, by zero bytes, declaration, statistics."""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

from charset_normalizer import CharsetMatch, from_bytes

from chordwise.readers import failures

# The longer mark first: UTF-32 little-endian begins like UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that represent other scripts in ASCII bytes, by their escape sequences.
_SHIFTED = (
    (re.compile(rb"\x1b\$[@AB]"), "iso2022_jp_2"),
    (re.compile(rb"\x1b\$\)C"), "iso2022_kr"),
    (re.compile(rb"~\{"), "hz"),
)
# Without backspace and escape, which occur in old manuals and terminal logs.
_CONTROLS = bytes({*range(8), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F})
_ALLOWED_CONTROLS = "\t\n\v\f\r\b\x1b\ufeff"
_MUCH_NUL = 0.1
_CONTROLS_IN_UTF8 = 0.3
_CONTROLS_IN_LEGACY = 0.05
_STRANGE_CHARACTERS = 0.02
_SAMPLE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A text and the name of its encoding in Python."""

    text: str
    encoding: str


def decode(data: bytes, declared: str = "") -> Decoded:
    """Decode a text; `declared` is the encoding that the document names, and may be wrong.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = _marked(data)
    if decoded is None and data.count(0) > len(data) * _MUCH_NUL:
        decoded = _wide(data)
    decoded = decoded or _utf8(data) or _wide(data)
    if decoded is not None:
        return decoded
    if _share_of_controls(data) > _CONTROLS_IN_LEGACY:
        raise failures.binary()
    return _declared(data, declared) or _guessed(data)


def _marked(data: bytes) -> Decoded | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
            return Decoded(text=text, encoding=encoding) if _plausible(text) else None
    return None


def _utf8(data: bytes) -> Decoded | None:
    if data.isascii() and (shifted := _shifted(data)) is not None:
        return shifted
    if _share_of_controls(data) > _CONTROLS_IN_UTF8:
        return None
    return _strict(data, "utf-8") or _halves(data)


def _halves(data: bytes) -> Decoded | None:
    """Decode UTF-8 written by programs that use UTF-16 internally: join surrogate pairs."""
    try:
        text = str(data, "utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeError:
        return None
    return Decoded(text=text.decode("utf-16-le", "surrogatepass"), encoding="utf-8")


def _shifted(data: bytes) -> Decoded | None:
    for pattern, encoding in _SHIFTED:
        if pattern.search(data) is None:
            continue
        # A file that is truncated within a character is still in the encoding of its escapes.
        text = data.decode(encoding, "replace")
        if text.count("\ufffd") <= len(text) * _STRANGE_CHARACTERS and not text.isascii():
            return Decoded(text=text, encoding=encoding)
    return None


def _wide(data: bytes) -> Decoded | None:
    """Detect UTF-16 and UTF-32 without a mark by the positions of the zero bytes of ASCII."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if not even + odd:
        return None
    order = "le" if odd > even else "be"
    for encoding in (f"utf-32-{order}", f"utf-16-{order}"):
        decoded = _strict(data, encoding)
        if decoded is not None and _plausible(decoded.text):
            return decoded
    return None


def _declared(data: bytes, declared: str) -> Decoded | None:
    if not declared:
        return None
    # Browsers read Latin-1 as its superset cp1252 (https://encoding.spec.whatwg.org/#names).
    latin = declared.lower() in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii")
    return _strict(data, "cp1252" if latin else declared)


def _guessed(data: bytes) -> Decoded:
    encodings = guess(data)
    if not encodings:
        raise failures.binary()
    for encoding in encodings:
        if (decoded := _strict(data, encoding)) is not None:
            return decoded
    return Decoded(text=data.decode(encodings[0], "replace"), encoding=encodings[0])


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(text=str(data, encoding), encoding=codecs.lookup(encoding).name)
    except (UnicodeError, LookupError, ValueError):
        # Another encoding, or an invalid declaration (a codec of bytes, a zero in the name).
        return None


def _share_of_controls(data: bytes) -> float:
    controls = len(data) - len(data.translate(None, _CONTROLS))
    # One or two stray control characters do not make a text binary, however short it is.
    return max(0, controls - 2) / max(1, len(data))


def _plausible(text: str) -> bool:
    sample = text[:_SAMPLE_CHARACTERS]
    strange = sum(
        1
        for character in sample
        if unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")
        and character not in _ALLOWED_CONTROLS
    )
    return strange <= len(sample) * _STRANGE_CHARACTERS


_WESTERN = "cp1252"
_CENTRAL = "cp1250"
# Encodings in common use; exotic code pages match short texts too easily.
_CANDIDATES = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("iso8859_2", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "koi8_r", "koi8_u"),
    *("cp437", "cp850", "cp852", "cp866", "cp874", "mac_roman", "mac_cyrillic"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
_WESTERN_LETTERS = frozenset(
    "àâäæçéèêëîïôœùûüÿñáíóúãõöåøßþðìòýšžÀÂÄÆÇÉÈÊËÎÏÔŒÙÛÜŸÑÁÍÓÚÃÕÖÅØÞÐÌÒÝŠŽ"
)
_WESTERN_SIGNS = frozenset("“”‘’„‚–—…•€£¥¢§¶©®™°«»‹›·¿¡ªº×÷±½²µ\u00a0\u00ad")  # noqa: RUF001 - intended characters
_WITHOUT_SPACES = ("cp932", "euc_jp", "gb18030", "big5")
_MAX_WORD_BYTES = 500
_SHARE_OF_ACCENTS = 1 / 3
_LAST_OF_ASCII = 0x7F
_SAMPLE_BYTES = 65_536
_TIE = 0.01


def guess(data: bytes) -> list[str]:
    """Return the names of the possible encodings in Python, the most likely first."""
    sample = _sample(data)
    matches = list(from_bytes(sample, cp_isolation=_CANDIDATES))
    names = [match.encoding for match in matches if not _is_one_word(sample, match.encoding)]
    if _looks_western(sample) and _statistics_are_silent(matches, sample):
        return [_WESTERN, *names]
    return names


def _sample(data: bytes) -> bytes:
    """Return whole lines from the first non-ASCII byte on; an ASCII preface says nothing."""
    foreign = next((index for index, byte in enumerate(data) if byte > _LAST_OF_ASCII), 0)
    start = data.rfind(b"\n", 0, foreign) + 1
    start = max(start, foreign - _SAMPLE_BYTES // 2)
    if len(data) - start <= _SAMPLE_BYTES:
        return data[start:]
    end = data.rfind(b"\n", start, start + _SAMPLE_BYTES)
    return data[start : end if end > foreign else start + _SAMPLE_BYTES]


def _is_one_word(sample: bytes, encoding: str) -> bool:
    """Return whether alphabetic text would have no spaces at all, which excludes the encoding."""
    return (
        len(sample) > _MAX_WORD_BYTES
        and encoding not in _WITHOUT_SPACES
        and not any(blank in sample for blank in (b" ", b"\n", b"\t"))
    )


def _statistics_are_silent(matches: list[CharsetMatch], sample: bytes) -> bool:
    """Return whether letter frequencies are compatible with Western European text.

    charset-normalizer tries cp1250 first and keeps it if cp1252 explains the bytes as well. Only
    Hungarian is written with the letters on which the two differ.
    """
    if not matches or not matches[0].coherence:
        return True
    best = matches[0]
    if str(best) == sample.decode(_WESTERN, "replace"):
        return True
    western = next((match for match in matches if match.encoding == _WESTERN), None)
    if western is None or best.language == "Hungarian":
        return False
    return (
        western.coherence >= best.coherence - _TIE
        and western.chaos <= best.chaos + _TIE
        and best.encoding in (_CENTRAL, _WESTERN)
    )


def _looks_western(sample: bytes) -> bool:
    text = sample.decode(_WESTERN, "replace")
    foreign = [character for character in text if character > "\x7f"]
    if not all(char in _WESTERN_LETTERS or char in _WESTERN_SIGNS for char in foreign):
        return False
    accented = sum(1 for character in foreign if character in _WESTERN_LETTERS)
    letters = sum(1 for character in text if character.isalpha())
    return accented <= letters * _SHARE_OF_ACCENTS
