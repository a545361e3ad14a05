"""Errors for files without text, as sentences without their subject.

The caller that knows the name of the file prepends it (`named`): “is empty.” → “notes.txt is
empty.”
"""

from __future__ import annotations

from chordwise.domain.states import IntakeOutcome
from chordwise.errors import ChordwiseError, ReadError
from chordwise.readers.formats import FORMATS

NEEDS_OCR = "needs_ocr"
PAGES_UNREAD = "pages_unread"
"""The value of `intakes.reason` for a document that was accepted, but for some of its pages."""
PAGES_HINT = (
    "Read these pages yourself, or see how scans are read (docs/formats.md, Scans and images)."
)
FIELDS_UNREAD = "fields_unread"
"""The value of `intakes.reason` for a document that was accepted, but for the fields of a form."""
FIELDS_HINT = "Read the fields yourself, or print the form to a PDF without fields and add that."
VISION_FAILED = "vision_failed"
INSTALL_OCR = 'pip install "chordwise[ocr]"'
INSTALL_VISION = 'pip install "chordwise[vision]"'


def _supported() -> str:
    labels = ", ".join(format_.labels for format_ in FORMATS.values() if format_.labels)
    return f"Chordwise reads {', '.join(sorted(labels.split(', ')))} and other text."


def unsupported(kind: str, remedy: str) -> ReadError:
    """Return the error for a known format, or known non-text, without a reader."""
    return ReadError(f"is {kind}.", f"{_supported()} {remedy}", IntakeOutcome.UNSUPPORTED)


def convert_to(extension: str) -> str:
    """Return a hint that shows how to convert a file to a supported format."""
    return f"Convert it, for instance: soffice --headless --convert-to {extension} FILE."


def binary() -> ReadError:
    """Return the error for content that is neither text nor a known format."""
    return ReadError(
        "has binary content, not text.",
        f"{_supported()} Check that the file extension matches the content.",
        IntakeOutcome.UNSUPPORTED,
        "binary",
    )


def malformed(what: str) -> ReadError:
    """Return the error for an invalid file of a supported format; `what` is a whole predicate."""
    return unreadable(
        what,
        "Open the file in its own program, save it again, and submit the new copy.",
        "malformed",
    )


def truncated(kind: str) -> ReadError:
    """Return the error for a file whose end is missing."""
    return unreadable(
        f"is {kind} whose end is missing.",
        "Copy or download it again; it was cut off.",
        "truncated",
    )


def mislabeled(extension: str) -> ReadError:
    """Return the error for content that is not of the format of the file name."""
    return unreadable(
        f"is named {extension}, but its content is of another, unknown format.",
        "Get the original again; if this is the original, give it the extension of its content, "
        "such as .txt.",
        "mislabeled",
    )


def unreadable(what: str, hint: str, reason: str) -> ReadError:
    """Return the error for a file that could not be read, with a reason."""
    return ReadError(what, hint, IntakeOutcome.UNREADABLE, reason)


def needs_ocr(what: str = "holds no text, only images: it is a scan.") -> ReadError:
    """Return the error for a picture, or a PDF of pictures of pages without text."""
    return unreadable(
        what,
        f"To recognize its text (OCR): {INSTALL_OCR}, and set readers.ocr = true; "
        "or set readers.vision to a model that accepts images (docs/formats.md).",
        NEEDS_OCR,
    )


def ocr_failed() -> ReadError:
    """Return the error for a scan of which Tesseract recognized no page."""
    return unreadable(
        "is a scan, no page of which Tesseract could read.",
        "Look at it: its pages or the language data (readers.ocr_data) may be damaged.",
        "ocr_failed",
    )


def vision_missing() -> ReadError:
    """Return the error for a scan if the library that renders pictures is not installed."""
    return unreadable(
        "is a scan, and the library that renders its pages for readers.vision is not installed.",
        f"Install it where files are taken in: {INSTALL_VISION}.",
        NEEDS_OCR,
    )


def vision_failed(number: int, why: ChordwiseError) -> ReadError:
    """Return the error for a page that the model did not transcribe."""
    return unreadable(
        f"is a scan, page {number} of which the model of readers.vision could not read: {why.what}",
        f"{why.hint} Or name another model in readers.vision, or set readers.ocr = true, so that "
        "Tesseract recognizes the scan. Then submit it again.".strip(),
        VISION_FAILED,
    )


def too_many_pages(limit: int) -> ReadError:
    """Return the error for more pages to be read by a model than the settings allow."""
    return too_large(
        f"has more than {limit:,} pages for the model of readers.vision to read.",
        "Split it, or raise readers.max_vision_pages.",
        "too_many_pages",
    )


def encrypted() -> ReadError:
    """Return the error for a file that needs a password or a key."""
    return ReadError(
        "is encrypted.",
        "Open it with its password or key, save a copy without, and submit that.",
        IntakeOutcome.ENCRYPTED,
    )


def empty() -> ReadError:
    """Return the error for a file without text."""
    return ReadError("holds no text.", "Leave it out.", IntakeOutcome.EMPTY)


def too_large(what: str, hint: str, reason: str = "") -> ReadError:
    """Return the error for a file that exceeds a limit."""
    return ReadError(what, hint, IntakeOutcome.TOO_LARGE, reason)


def larger_than(megabytes: int) -> ReadError:
    """Return the error for a file larger than the settings, or the available memory, allow."""
    return too_large(
        f"is larger than {megabytes} MB.",
        "Split it, give Chordwise more memory, or raise readers.max_file_megabytes.",
    )


def too_many_characters(limit: int) -> ReadError:
    """Return the error for a text longer than the settings allow."""
    return too_large(
        f"holds more than {limit:,} characters of text.",
        "Split it, or raise readers.max_characters.",
        "too_many_characters",
    )


def out_of_memory() -> ReadError:
    """Return the error for a file that needs more memory than the limit."""
    return too_large(
        "needs more memory than a file may take.",
        "Split it, give Chordwise more memory, or raise readers.memory_megabytes.",
        "memory",
    )


def changed() -> ReadError:
    """Return the error for a file that was written to while it was read."""
    return unreadable(
        "was changed while it was read.", "Submit it again once it is complete.", "changed"
    )


def refused(what: str, hint: str, reason: str) -> ReadError:
    """Return the error for a file that is unsafe to read."""
    return ReadError(what, hint, IntakeOutcome.REFUSED, reason)


def named(source: str, error: ReadError) -> ReadError:
    """Return the error as a complete sentence about `source`."""
    return ReadError(f"{source} {error.what}", error.hint, error.outcome, error.reason)
