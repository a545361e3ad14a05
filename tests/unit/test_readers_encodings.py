"""Tests of decoding bytes to text and of rejecting bytes that are not text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.errors import ReadError
from chordwise.readers.encodings import decode

TEXTS = [
    ("café", "cp1252"),
    ("señor", "latin-1"),
    ("Müller wohnt in der Straße", "cp1252"),
    ("“Quoted”—it’s 5 €", "cp1252"),
    ("Il a été élu président; ça a coûté très cher.", "cp1252"),
    ("Zażółć gęślą jaźń", "cp1250"),
    ("Привет, как дела? Всё хорошо, спасибо.", "cp1251"),
    ("Привет, как дела? Всё хорошо, спасибо.", "koi8-r"),
    ("日本語の文章です。", "cp932"),
    ("日本語です", "iso2022_jp"),
    ("中文文本测试。", "gb18030"),
    ("中文", "hz"),
    ("한국어 텍스트입니다.", "euc-kr"),
    ("abc", "utf-16-le"),
    ("abc", "utf-16-be"),
    ("abc", "utf-32-le"),
    ("Привет мир", "utf-16-be"),
    ("日本語の文章です。\n改行", "utf-16-le"),
    ("with a mark", "utf-16"),
    ("with a mark", "utf-8-sig"),
    ("one NUL \0 in it", "utf-8"),
    ("a\0b", "utf-8"),
    ("~{ is no HZ", "ascii"),
    ("", "ascii"),
]


@pytest.mark.parametrize(("text", "encoding"), TEXTS)
def test_the_encoding_is_detected(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"])))
def test_utf8_is_never_mistaken_for_another_encoding(text: str) -> None:
    assert decode(text.encode()).text == text.removeprefix("\ufeff")


NONSENSE = ("no-such-encoding", "base64", "rot13", "\0", "undefined")


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        ("šéf", "iso8859-2", "ISO-8859-2"),
        ("naïve", "utf-8", "iso-8859-1"),
        *(("café", "cp1252", declared) for declared in NONSENSE),
    ],
)
def test_a_declaration_decides_ambiguous_bytes(text: str, encoding: str, declared: str) -> None:
    """It is ignored if it names no text encoding or contradicts valid UTF-8."""
    assert decode(text.encode(encoding), declared).text == text


@pytest.mark.parametrize(
    "data",
    [
        *(random.Random(size).randbytes(size) for size in (64, 1_000, 100_000)),  # noqa: S311 - reproducible, not secret
        bytes(10_000),
        ("THE QUICK BROWN FOX 0123456789 " * 40).encode("cp037"),
    ],
    ids=["64", "1000", "100000", "zeros", "EBCDIC"],
)
def test_binary_content_is_rejected(data: bytes) -> None:
    with pytest.raises(ReadError) as refusal:
        decode(data)

    assert (refusal.value.outcome, refusal.value.reason) == ("unsupported", "binary")


def test_a_late_accent_in_a_long_text_counts() -> None:
    text = "Only ASCII here.\n" * 20_000 + "À la fin, un élève préfère l’été.\n"

    assert decode(text.encode("cp1252")).text == text


def test_half_characters_do_not_hide_the_encoding() -> None:
    """Encoded surrogates are still UTF-8: pairs are joined, and lone ones are kept."""
    text = "Müller öffnet das Café."
    data = f"{text} \ud83d\ude00 \ud800".encode("utf-8", "surrogatepass")

    decoded = decode(data)

    assert decoded.text == f"{text} \U0001f600 \ud800"
    assert decoded.encoding == "utf-8"
