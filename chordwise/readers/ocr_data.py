"""Finds out whether scans can be recognized here, and where Tesseract's languages are.

It only looks; the library itself is loaded by the parser process alone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from chordwise.readers import failures
from chordwise.settings import ReaderSettings

_LIBRARIES = ("tesserocr", "PIL")
# Where the packages of Debian, of Fedora and Arch, and of Homebrew put them.
_OF_THE_SYSTEM = (
    *sorted(Path("/usr/share/tesseract-ocr").glob("*/tessdata"), reverse=True),
    Path("/usr/share/tesseract/tessdata"),
    Path("/usr/share/tessdata"),
    Path("/opt/homebrew/share/tessdata"),
)


def folder(settings: ReaderSettings) -> Path:
    """Return the first folder that has the data of all languages that the settings name.

    Raises:
        ReadError: The extra is not installed, or a language has no data.
    """
    if any(importlib.util.find_spec(library) is None for library in _LIBRARIES):
        raise failures.ocr_missing()
    languages = settings.ocr_languages.split("+")
    for each in _folders(settings):
        if all((each / f"{language}.traineddata").is_file() for language in languages):
            return each
    raise failures.ocr_language_missing(settings.ocr_languages)


def _folders(settings: ReaderSettings) -> Iterator[Path]:
    if settings.ocr_data is not None:
        yield settings.ocr_data
        return
    yield Path(sys.prefix) / "share" / "tessdata"
    yield from _OF_THE_SYSTEM
