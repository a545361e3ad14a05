"""The result of reading a file or a part of it: a text, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chordwise.domain import document_flags, places, text_normalization
from chordwise.domain.document_flags import Flag
from chordwise.domain.json_values import JsonObject, JsonValue, integer, text
from chordwise.domain.places import MAX_LABEL, Place
from chordwise.domain.states import FAILED_INTAKES, IntakeOutcome
from chordwise.domain.text_normalization import normalize
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.readers import failures


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """A normalized text and its metadata; the counts say how often normalization changed something.

    `pages_unread` counts damaged pages, `pages_scanned` pictures of pages that were not
    recognized, and `pages_transcribed` those read by `transcribed_by`, a model or Tesseract.
    `invisible_characters` are those that a PDF or a Word document does not show; `hiding_removed`
    is a part of `invisible_removed`. `places` include the place in a mail.
    """

    text: str
    media_type: str
    title: str = ""
    encoding: str | None = None
    pages: int | None = None
    pages_unread: int = 0
    pages_scanned: int = 0
    pages_transcribed: int = 0
    transcribed_by: str = ""
    invisible_characters: int = 0
    nul_removed: int = 0
    surrogates_replaced: int = 0
    line_ends_changed: int = 0
    invisible_removed: int = 0
    hiding_removed: int = 0
    flags: tuple[Flag, ...] = ()
    places: Sequence[Place] = ()

    @property
    def unseen_reason(self) -> str:
        """Why the invisible text needs review; empty if it does not."""
        return text_normalization.review_reason(
            unseen=self.invisible_characters,
            removed=self.invisible_removed,
            hiding=self.hiding_removed,
        )

    @property
    def review_reason(self) -> str:
        """Why the document needs review; empty if it does not."""
        return document_flags.review_reason(self.flags, self.unseen_reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDocument:
    """A text of a file (`a.zip#b/c.txt` inside another), with the hash and size of its bytes."""

    source: str
    sha256: str
    byte_count: int
    content: ReadText


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadDocument:
    """A file or part without text, and why; hash and size are `None` if it was not opened."""

    source: str
    error: ReadError
    sha256: str | None = None
    byte_count: int | None = None


def failure(header: JsonObject) -> ReadError:
    """Return the failure that a parser process reports."""
    outcome = text(header.get("outcome"))
    known = outcome in FAILED_INTAKES
    return ReadError(
        printable(text(header.get("what"))),
        printable(text(header.get("hint"))),
        IntakeOutcome(outcome) if known else IntakeOutcome.UNREADABLE,
        printable(text(header.get("reason"))),
    )


def checked(header: JsonObject, body: bytes | bytearray, max_characters: int) -> ReadText:
    """Validate an answer of a parser process, which a hostile file may control; return its text.

    Raises:
        ReadError: There is no text, or it is longer than the limit, or its flags are invalid.
    """
    content = body.decode("utf-8", "replace").replace("\0", "")
    if len(content) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not content or content.isspace():
        raise failures.empty()
    try:
        flags = document_flags.from_json(header.get("flags"))
    except (ValueError, KeyError) as error:
        raise failures.malformed("cannot be read: its parser sent invalid flags.") from error
    return ReadText(
        text=content,
        media_type=line(header.get("media_type")),
        title=line(header.get("title")),
        encoding=line(header.get("encoding")) or None,
        pages=_count(header.get("pages")),
        transcribed_by=line(header.get("transcribed_by")),
        flags=tuple(replace(each, excerpt=line(each.excerpt)) for each in flags),
        pages_unread=_count(header.get("pages_unread")) or 0,
        pages_scanned=_count(header.get("pages_scanned")) or 0,
        pages_transcribed=_count(header.get("pages_transcribed")) or 0,
        invisible_characters=_count(header.get("invisible_characters")) or 0,
        nul_removed=_count(header.get("nul_removed")) or 0,
        surrogates_replaced=_count(header.get("surrogates_replaced")) or 0,
        line_ends_changed=_count(header.get("line_ends_changed")) or 0,
        invisible_removed=_count(header.get("invisible_removed")) or 0,
        hiding_removed=_count(header.get("hiding_removed")) or 0,
    )


def with_places(content: ReadText, encoded: bytes, within: str) -> ReadText:
    """Return a text with the untrusted places of a parser; `within` is the label of a mail."""
    if not encoded and not within:
        return content
    length = len(content.text)
    found = [
        replace(each, label=line(each.label)[:MAX_LABEL]) for each in places.decode(encoded, length)
    ]
    found = places.nest_in_message(within, found, length) if within else found
    return replace(content, places=found)


def line(value: JsonValue) -> str:
    """Return a name or a title on one line, in characters that a database accepts."""
    found = text(value)
    is_plain = found.isascii() and found.isprintable()
    return " ".join((found if is_plain else normalize(found).text).split())


def decoded(body: bytes | bytearray) -> str:
    """Decode the text from a parser process, keeping lone surrogates, which are counted later."""
    try:
        return body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace")


def _count(value: JsonValue) -> int | None:
    count = integer(value)
    return count if count is not None and count >= 0 else None
