"""Pictures, whose text only OCR or a vision model can read."""

from __future__ import annotations

from chordwise.readers import failures, scans
from chordwise.readers.format import Format, of_bytes
from chordwise.readers.reader_output import Extracted


def read(data: bytes, _max_characters: int) -> Extracted:
    """Reject a picture with a hint on OCR.

    Raises:
        ReadError: Always.
    """
    raise failures.needs_ocr(f"is an image ({scans.picture_kind(data)}).")


FORMAT = Format(
    "",
    of_bytes(read),
    extensions=(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    matches=lambda data, _: bool(scans.picture_kind(data)),
    scan=scans.of_picture,
)
