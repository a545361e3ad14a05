"""Reader for EPUB books: the chapters in reading order."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from urllib.parse import unquote

from chordwise.domain import places
from chordwise.readers import encodings, failures
from chordwise.readers.format import Format, in_place
from chordwise.readers.formats import html
from chordwise.readers.office_package import OfficePackage, PartTarget, local
from chordwise.readers.reader_output import CharacterAllowance, Extracted, Source, joined

MEDIA_TYPE = "application/epub+zip"
CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PARSED = (".xml", ".opf", ".xhtml", ".html", ".htm")


def read(data: Source, max_characters: int) -> Extracted:
    """Return the visible text of all chapters.

    Raises:
        ReadError: The book is damaged, copy-protected, hostile, or longer than the limit.
    """
    package = OfficePackage(data, "EPUB", parsed=_PARSED, has_document_types=True)
    container = _Container()
    package.parse(CONTAINER, container)
    if container.book not in package:
        raise failures.malformed("is a damaged EPUB file: its table of parts is missing.")
    book = _Book(posixpath.dirname(container.book))
    package.parse(container.book, book)
    chapters = book.chapters()
    _require_legible(package, chapters)
    spend = CharacterAllowance(max_characters)
    pages = [_chapter(package, part, spend, max_characters) for part in chapters if part in package]
    pages = [page for page in pages if page.text.text().strip()]
    text, starts = joined(page.text.text() for page in pages)
    headings = (
        (start + place, heading)
        for page, start in zip(pages, starts, strict=True)
        for place, heading in page.headings
    )
    return Extracted(
        text=text,
        places=places.sections(headings, len(text)),
        media_type=MEDIA_TYPE,
        title=book.title,
    )


def _chapter(
    package: OfficePackage, part: str, spend: CharacterAllowance, max_characters: int
) -> html.Page:
    markup = encodings.decode(package.content(part)).text
    page = html.visible_text(markup, max_characters)
    spend(page.text.length)
    return page


def _require_legible(package: OfficePackage, chapters: list[str]) -> None:
    """Reject copy protection, but not merely obfuscated fonts (EPUB Open Container 3.3)."""
    if _ENCRYPTION not in package:
        return
    listed = unquote(package.content(_ENCRYPTION).decode("utf-8", "replace"))
    if any(chapter in listed for chapter in chapters):
        raise failures.encrypted()


class _Container(PartTarget):
    """Collects the path of the package document from the container."""

    def __init__(self) -> None:
        self.book = ""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if local(tag) == "rootfile" and not self.book:
            self.book = attributes.get("full-path", "")


class _Book(PartTarget):
    """Collects the title of a book and the order of its chapters from the package document."""

    def __init__(self, folder: str) -> None:
        self.title = ""
        self._folder = folder
        self._parts: dict[str, str] = {}
        self._order: list[str] = []
        self._in_title = False

    def chapters(self) -> list[str]:
        return [self._parts[each] for each in dict.fromkeys(self._order) if each in self._parts]

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = local(tag)
        self._in_title = name == "title" and not self.title
        if name == "item":
            target = posixpath.join(self._folder, unquote(attributes.get("href", "")))
            self._parts[attributes.get("id", "")] = posixpath.normpath(target)
        elif name == "itemref":
            self._order.append(attributes.get("idref", ""))

    def end(self, _tag: str) -> None:
        self._in_title = False

    def data(self, text: str) -> None:
        if self._in_title:
            self.title += text


FORMAT = Format("EPUB", in_place(read), extensions=(".epub",), parts=((CONTAINER,),))
