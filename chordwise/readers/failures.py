"""Why a file did not become text, in sentences that lack their subject.

The caller that knows the file's name puts it in front (`named`): “is empty.” → “notes.txt is
empty.”
"""

from __future__ import annotations

from chordwise.domain.states import IntakeOutcome
from chordwise.errors import ChordwiseError, ReadError

NEEDS_OCR = "needs_ocr"
VISION_FAILED = "vision_failed"
INSTALL_OCR = 'pip install "chordwise[ocr]"'
INSTALL_VISION = 'pip install "chordwise[vision]"'
SUPPORTED = (
    "Chordwise reads PDF, DOCX, DOC, PPTX, XLSX, XLS, ODT, ODS, ODP, RTF, EPUB, HTML, "
    "e-mail (EML, MSG, MBOX), ZIP, Markdown and text (TXT, CSV, JSON, XML, …)."
)


def unsupported(kind: str, remedy: str = "Convert the file to one of them first.") -> ReadError:
    """The format is known, or known not to be text, and there is no reader for it."""
    return ReadError(f"is {kind}.", f"{SUPPORTED} {remedy}", IntakeOutcome.UNSUPPORTED)


def convert_to(extension: str) -> str:
    """Return the hint how to make a file of a format that is read."""
    return f"Convert it, for instance: soffice --headless --convert-to {extension} FILE."


def binary() -> ReadError:
    """The content is neither text nor a known format, whatever the name says."""
    return ReadError(
        "has binary content, not text.",
        f"{SUPPORTED} Check that the file's name says what it is.",
        IntakeOutcome.UNSUPPORTED,
        "binary",
    )


def malformed(what: str) -> ReadError:
    """The format is supported, but this file breaks its rules; `what` is a whole predicate."""
    return ReadError(
        what,
        "Open the file in its own program, save it again, and submit the new copy.",
        IntakeOutcome.UNREADABLE,
        "malformed",
    )


def truncated(kind: str) -> ReadError:
    """The end of the file is missing."""
    return unreadable(
        f"is {kind} whose end is missing.",
        "Copy or download it again; it was cut off.",
        "truncated",
    )


def mislabeled(extension: str) -> ReadError:
    """The name promises a format, and the content is neither that nor text."""
    return ReadError(
        f"is named {extension} but has other, unknown content.",
        f"{SUPPORTED} Find out which program wrote it, and give it its right name.",
        IntakeOutcome.UNSUPPORTED,
        "mislabeled",
    )


def unreadable(what: str, hint: str, reason: str) -> ReadError:
    """The file did not become text for the reason given."""
    return ReadError(what, hint, IntakeOutcome.UNREADABLE, reason)


def needs_ocr(what: str = "holds no text, only images: it is a scan.") -> ReadError:
    """It is a picture, or a PDF that shows pictures of pages and holds no text."""
    return unreadable(
        what,
        f"To have it recognized (OCR): {INSTALL_OCR}, and set readers.ocr = true; "
        "or name a model that can be shown pictures in readers.vision (docs/formats.md).",
        NEEDS_OCR,
    )


def ocr_missing() -> ReadError:
    """A scan was to be recognized, and the libraries for it are not there."""
    return unreadable(
        "is a scan, and the OCR that readers.ocr asks for is not installed.",
        f"Install it where files are taken in: {INSTALL_OCR}.",
        NEEDS_OCR,
    )


def ocr_language_missing(languages: str) -> ReadError:
    """A scan was to be recognized in languages that Tesseract has no data for."""
    packages = " ".join(f"tesseract-ocr-{each.replace('_', '-')}" for each in languages.split("+"))
    return unreadable(
        f"is a scan, and no folder has the OCR data of all the languages {languages}.",
        f"On Debian and Ubuntu: apt-get install {packages.lower()}; "
        "else name a folder with LANGUAGE.traineddata files in readers.ocr_data.",
        NEEDS_OCR,
    )


def ocr_failed() -> ReadError:
    """Tesseract could recognize no page."""
    return unreadable(
        "is a scan, no page of which Tesseract could read.",
        "Look at it: its pages or the language data (readers.ocr_data) may be damaged.",
        "ocr_failed",
    )


def vision_missing() -> ReadError:
    """A scan was to be shown to a model, and the library that makes pictures is not there."""
    return unreadable(
        "is a scan, and what readers.vision needs to show it to a model is not installed.",
        f"Install it where files are taken in: {INSTALL_VISION}.",
        NEEDS_OCR,
    )


def vision_failed(number: int, why: ChordwiseError) -> ReadError:
    """The model brought no usable transcription of a page."""
    return unreadable(
        f"is a scan, page {number} of which the model of readers.vision could not read: {why.what}",
        f"{why.hint} Or name another model in readers.vision, or set readers.ocr = true to have "
        "recognized what the model fails at. Then submit it again.".strip(),
        VISION_FAILED,
    )


def too_many_pages(limit: int) -> ReadError:
    """There are more pages to be read by a model than the settings allow."""
    return too_large(
        f"has more than {limit:,} pages for the model of readers.vision to read.",
        "Split it, or raise readers.vision_max_pages.",
        "too_many_pages",
    )


def unshowable() -> ReadError:
    """No page could be made a picture of."""
    return malformed("is a scan, no page of which can be shown.")


def encrypted() -> ReadError:
    """A password or a key is needed to open the file."""
    return ReadError(
        "is encrypted.",
        "Open it with its password or key, save a copy without, and submit that.",
        IntakeOutcome.ENCRYPTED,
    )


def empty() -> ReadError:
    """There is nothing to read."""
    return ReadError("holds no text.", "Leave it out.", IntakeOutcome.EMPTY)


def too_large(what: str, hint: str, reason: str = "") -> ReadError:
    """A limit would be broken by reading on."""
    return ReadError(what, hint, IntakeOutcome.TOO_LARGE, reason)


def larger_than(megabytes: int) -> ReadError:
    """The file is larger than the settings allow, or the memory where they say nothing."""
    return too_large(
        f"is larger than {megabytes} MB.",
        "Split it, give Chordwise more memory, or raise readers.max_file_megabytes.",
    )


def too_many_characters(limit: int) -> ReadError:
    """The text is longer than the settings allow."""
    return too_large(
        f"holds more than {limit:,} characters of text.",
        "Split it, or raise readers.max_characters.",
        "too_many_characters",
    )


def too_much_text(byte_count: int) -> ReadError:
    """The text is longer than the memory allows."""
    return too_large(
        f"holds more than {byte_count >> 20} MB of text.",
        "Split it, or give Chordwise more memory.",
        "too_many_characters",
    )


def out_of_memory() -> ReadError:
    """The system gave no more memory within the limit."""
    return too_large(
        "needs more memory than a file may take.",
        "Split it, give Chordwise more memory, or raise readers.memory_megabytes.",
        "memory",
    )


def changed() -> ReadError:
    """Something wrote to the file while it was read."""
    return unreadable(
        "was changed while it was read.", "Submit it again once it is complete.", "changed"
    )


def refused(what: str, hint: str, reason: str) -> ReadError:
    """Reading it would be unsafe."""
    return ReadError(what, hint, IntakeOutcome.REFUSED, reason)


def named(source: str, error: ReadError) -> ReadError:
    """Return the error as a whole sentence about `source`."""
    return ReadError(f"{source} {error.what}", error.hint, error.outcome, error.reason)
