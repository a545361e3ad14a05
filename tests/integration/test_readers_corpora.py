"""Tests that real files from other sources are read correctly."""

from __future__ import annotations

import json

import pytest

from chordwise.domain.json_values import JsonObject, as_object, text
from chordwise.domain.text_normalization import normalize
from chordwise.readers.reader import ReadDocument, Reader, UnreadDocument
from tests.fakes.corpora import CORPORA

UNSUPPORTED = ("wpd", "hwp", "bin", "p7s")
PICTURES = ("png", "jpg")
KINDS = {
    "text": ("text",),
    "empty": ("empty", "unreadable"),
    "error": ("unreadable", "encrypted", "unsupported"),
    "text-or-error": ("text", "empty", "unreadable", "encrypted", "unsupported"),
}
# Corrections of the list: the picture has a caption in text; the “ODT” is plain text, which
# contradicts its name; only one of the two files in the archive is encrypted.
EXCEPTIONS = {
    "tika/testOCR.docx": ("text",),
    "tika/testODTnotaZipFile.odt": ("unreadable",),
    "tika/testZipEncrypted.zip": ("text",),
}
# Encodings of Vietnamese from before Unicode, for which Python has no codec.
FOREIGN_TO_PYTHON = ("TCVN", "VPS", "VIQR")
LANGUAGE_PROBES = {
    "Bulgarian_Balgarski-Cyrillic": "декларация",
    "Chinese_Mandarin-GB2312": "世界人权宣言",
    "Chinese_Mandarin-HZ": "世界人权宣言",
    "Czech-Latin2": "VŠEOBECNÁ DEKLARACE",
    "French_Francais-Latin1": "Déclaration universelle",
    "German_Deutsch-Latin1": "Erklärung",
    "Greek_Ellinika-Greek": "ΔΙΑΚΗΡΥΞΗ",
    "Hebrew_Ivrit-Hebrew": "ההכרזה",
    "Hungarian_Magyar-Unicode": "Bevezető",
    "Icelandic_Yslenska-Latin1": "Það ber að viðurkenna",
    "Japanese_Nihongo-EUC": "世界人権宣言",
    "Japanese_Nihongo-JIS": "世界人権宣言",
    "Japanese_Nihongo-SJIS": "世界人権宣言",
    "Lithuanian_Lietuviskai-Baltic": "ŽMOGAUS TEISIŲ",
    "Polish-Latin2": "POWSZECHNA DEKLARACJA PRAW CZŁOWIEKA",
    "Portuguese_Portugues-Latin1": "Declaração",
    "Russian_Russky-Cyrillic": "Всеобщая декларация",
    "Spanish-Latin1": "Declaración",
    "Turkish_Turkce-Turkish": "İnsan hakları",
    "Ukrainian-Cyrillic": "ДЕКЛАРАЦІЯ",
}

pytestmark = [
    pytest.mark.xdist_group("readers_corpora"),
    pytest.mark.corpus,
    pytest.mark.usefixtures("corpora"),
]


def lines(path: str) -> list[JsonObject]:
    content = (CORPORA / path).read_text(encoding="utf-8")
    return [as_object(json.loads(line)) for line in content.splitlines()]


def kind(outcome: ReadDocument | UnreadDocument) -> str:
    return "text" if isinstance(outcome, ReadDocument) else outcome.error.outcome


def expected_kinds(entry: JsonObject) -> tuple[str, ...]:
    path, form = text(entry["path"]), text(entry["format"])
    if path in EXCEPTIONS:
        return EXCEPTIONS[path]
    if form in UNSUPPORTED and entry["expect"] != "error":
        return ("unsupported",)
    if form in PICTURES:
        return ("unreadable",)
    return KINDS[text(entry["expect"])]


@pytest.mark.nightly
def test_real_files_have_the_outcome_that_their_curator_expects(reader: Reader) -> None:
    surprises = {}

    for entry in lines("real_files/manifest.jsonl"):
        outcome = reader.read(CORPORA / "real_files" / text(entry["path"]))
        if kind(outcome) not in expected_kinds(entry):
            surprises[text(entry["path"])] = (text(entry["condition"]), kind(outcome))

    assert surprises == {}


def test_encrypted_files_are_distinguished_from_damaged_ones(reader: Reader) -> None:
    """A password in the remarks of the list means that the outcome is `encrypted`."""
    locked = [
        text(entry["path"])
        for entry in lines("real_files/manifest.jsonl")
        if "encrypted; password" in text(entry["condition"])
        or "encrypted OOXML" in text(entry["condition"])
    ]

    outcomes = {path: kind(reader.read(CORPORA / "real_files" / path)) for path in locked}

    assert outcomes == dict.fromkeys(locked, "encrypted")
    assert len(locked) >= 5


def test_scans_need_ocr(reader: Reader) -> None:
    """A PDF of pictures is not reported as empty."""
    scans = [
        text(entry["path"])
        for entry in lines("real_files/manifest.jsonl")
        if entry["format"] == "pdf"
        and ("image only" in text(entry["condition"]) or "scanned" in text(entry["condition"]))
    ]

    for path in scans:
        outcome = reader.read(CORPORA / "real_files" / path)
        assert isinstance(outcome, UnreadDocument)
        assert outcome.error.reason == "needs_ocr"
    assert scans


@pytest.mark.nightly
def test_hidden_text_is_found_only_where_it_exists(reader: Reader) -> None:
    """Words are below boxes or a table, clipped, or outside the page, as on parts of spreads."""
    files = sorted(CORPORA.glob("**/*.pdf"))
    read = {file.name: reader.read(file) for file in files}

    hiding = {
        name: outcome.content.invisible_characters
        for name, outcome in read.items()
        if isinstance(outcome, ReadDocument) and outcome.content.invisible_characters
    }

    assert hiding == {
        "invisible_text_layer.pdf": 21,
        "complex_ttf_font.pdf": 149,
        "failure-after-repair.pdf": 1652,
        "invalid-pdf-structure-pdfminer-one-page.pdf": 68,
        "korean-text-with-tables.pdf": 10,
        "negative-coords.pdf": 62,
        "odf_presentation_01.odp.pdf": 12,
        "rectangles_yes.pdf": 56,
        "rectangles_yes_2.pdf": 3,
    }
    assert len(files) > 50


def test_court_documents_are_read(reader: Reader) -> None:
    """All filings have text, except a file of zero bytes, which is empty."""
    outcomes = {
        text(entry["id"]): kind(reader.read(CORPORA / "court_docs" / text(entry["path"])))
        for entry in lines("court_docs/labels.jsonl")
    }

    expected = dict.fromkeys(outcomes, "text") | {"empty.pdf": "empty"}
    assert outcomes == expected


def test_old_encodings_are_recognised(reader: Reader) -> None:
    for name, probe in LANGUAGE_PROBES.items():
        outcome = reader.read(CORPORA / "udhr" / "docs" / name)
        assert isinstance(outcome, ReadDocument), name
        assert probe.lower() in outcome.content.text.lower(), name


@pytest.mark.nightly
def test_every_translation_is_text_or_rejected(reader: Reader) -> None:
    failed = [
        text(entry["encoding"])
        for entry in lines("udhr/labels.jsonl")
        if kind(reader.read(CORPORA / "udhr" / text(entry["path"]))) != "text"
    ]

    assert set(failed) <= set(FOREIGN_TO_PYTHON)


def test_naughty_strings_are_unchanged(reader: Reader) -> None:
    strings = json.loads((CORPORA / "naughty_strings" / "blns.json").read_text(encoding="utf-8"))
    refused = []

    for string in strings:
        outcome = reader.read_bytes(string.encode("utf-8", "surrogatepass"), "naughty.txt")
        if isinstance(outcome, UnreadDocument):
            refused.append(string)
        else:
            assert outcome.content.text == normalize(string).text
            assert "\0" not in outcome.content.text
            outcome.content.text.encode()

    # These are empty, consist of blanks of all kinds, or have only control characters.
    assert not any(character.isprintable() and character != " " for character in "".join(refused))
    assert len(refused) <= 5


@pytest.mark.nightly
def test_real_texts_of_many_scripts_keep_their_spelling(reader: Reader) -> None:
    folders = ("udhr", "xquad", "prompt_injection_bipia", "cuad_contracts", "speeches")
    files = [file for folder in folders for file in sorted((CORPORA / folder / "docs").iterdir())]
    outcomes = [reader.read(file) for file in files]
    contents = [outcome.content for outcome in outcomes if isinstance(outcome, ReadDocument)]

    assert len(contents) > 100
    assert [content.review_reason for content in contents if content.review_reason] == []
    assert sum(content.invisible_removed for content in contents) < 20
    nasty = normalize((CORPORA / "naughty_strings" / "blns.txt").read_text("utf-8"))
    assert nasty.hiding_removed > 90
