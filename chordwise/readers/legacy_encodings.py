"""Guesses the encoding of text from before Unicode by its letters and their frequencies."""

from __future__ import annotations

from charset_normalizer import CharsetMatch, from_bytes

_WESTERN = "cp1252"
_CENTRAL = "cp1250"
# What people and programs really wrote; exotic code pages explain short texts too readily.
_CANDIDATES = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("iso8859_2", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "koi8_r", "koi8_u"),
    *("cp437", "cp850", "cp852", "cp866", "cp874", "mac_roman", "mac_cyrillic"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
_WESTERN_LETTERS = frozenset(
    "àâäæçéèêëîïôœùûüÿñáíóúãõöåøßþðìòýšžÀÂÄÆÇÉÈÊËÎÏÔŒÙÛÜŸÑÁÍÓÚÃÕÖÅØÞÐÌÒÝŠŽ"
)
_WESTERN_SIGNS = frozenset("“”‘’„‚–—…•€£¥¢§¶©®™°«»‹›·¿¡ªº×÷±½²µ\u00a0\u00ad")  # noqa: RUF001 - meant as they stand
_WITHOUT_SPACES = ("cp932", "euc_jp", "gb18030", "big5")
_LONGEST_WORD_BYTES = 500
_SHARE_OF_ACCENTS = 1 / 3
_LAST_OF_ASCII = 0x7F
_SAMPLE_BYTES = 65_536
_TIE = 0.01


def guess(data: bytes) -> list[str]:
    """Return Python's names of the encodings that may be meant, the likeliest first."""
    sample = _sample(data)
    matches = list(from_bytes(sample, cp_isolation=_CANDIDATES))
    names = [match.encoding for match in matches if not _is_one_word(sample, match.encoding)]
    if _looks_western(sample) and _statistics_are_silent(matches, sample):
        return [_WESTERN, *names]
    return names


def _sample(data: bytes) -> bytes:
    """Cut out whole lines from the first that is not ASCII: a long English preface says nothing."""
    foreign = next((index for index, byte in enumerate(data) if byte > _LAST_OF_ASCII), 0)
    start = data.rfind(b"\n", 0, foreign) + 1
    start = max(start, foreign - _SAMPLE_BYTES // 2)
    if len(data) - start <= _SAMPLE_BYTES:
        return data[start:]
    end = data.rfind(b"\n", start, start + _SAMPLE_BYTES)
    return data[start : end if end > foreign else start + _SAMPLE_BYTES]


def _is_one_word(sample: bytes, encoding: str) -> bool:
    """Tell whether alphabetic text would go on for ever without a space: it is not that text."""
    return (
        len(sample) > _LONGEST_WORD_BYTES
        and encoding not in _WITHOUT_SPACES
        and not any(blank in sample for blank in (b" ", b"\n", b"\t"))
    )


def _statistics_are_silent(matches: list[CharsetMatch], sample: bytes) -> bool:
    """Tell whether the letters' frequencies do not speak against Western European text.

    charset-normalizer tries cp1250 first and keeps it where cp1252 explains the bytes as well;
    of the two, only Hungarian is written with the letters that they disagree on.
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
