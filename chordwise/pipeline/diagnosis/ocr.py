"""Looking at whether scans can be recognized: by letting one be recognized."""

from __future__ import annotations

from chordwise.errors import ExitCode
from chordwise.pipeline.diagnosis.checks import Check, Verdict
from chordwise.readers.reading import Reader, UnreadDocument
from chordwise.settings import ReaderSettings

# A PDF without text, whose lines draw the word FILE.
_LINES = b"""6 w 2 J
20 40 m 20 80 l 45 80 l S 20 61 m 40 61 l S
65 40 m 65 80 l S
110 40 m 85 40 l 85 80 l S
155 40 m 130 40 l 130 80 l 155 80 l S 130 61 m 150 61 l S
"""
_SCAN = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 180 120]/Resources<<>>/Contents 4 0 R>> endobj
4 0 obj <</Length %d>> stream
%sendstream endobj
trailer <</Root 1 0 R>>
%%%%EOF
""" % (len(_LINES), _LINES)


def look_at_ocr(settings: ReaderSettings) -> Check:
    """Recognize a scan of one word where the settings ask for OCR."""
    if not settings.ocr:
        return Check(name="ocr", finding="off (readers.ocr): scans and images are not read")
    with Reader(settings) as reader:
        read = reader.read_bytes(_SCAN, "A scan of one word")
    if isinstance(read, UnreadDocument):
        return Check(
            name="ocr",
            verdict=Verdict.FAIL,
            finding=read.error.what,
            hint=read.error.hint,
            exit_code=ExitCode.CONFIGURATION,
        )
    word = read.content.text.strip()
    return Check(name="ocr", finding=f"a scan was recognized ({settings.ocr_languages}): {word}")
