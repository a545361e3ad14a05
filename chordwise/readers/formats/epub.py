"""Reader for EPUB books: the chapters in reading order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from chordwise.domain import places
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, html, in_place
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.office_xml import OfficePackage, local
from chordwise.readers.reader_output import Extracted, Source, joined

MEDIA_TYPE = "application/epub+zip"
CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PARSED = (".xml", ".opf", ".xhtml", ".html", ".htm")


def read(data: Source, max_characters: int) -> Extracted:
    """Return the visible text of all chapters."""
    package = OfficePackage(data, "EPUB", parsed=_PARSED, has_document_types=True)
    roots = package.elements(CONTAINER, "rootfile")
    main = next(filter(None, (root.get("full-path", "") for root in roots)), "")
    if main not in package:
        raise failures.malformed("is a damaged EPUB file: its table of parts is missing.")
    listed = package.elements(main, "item", "itemref")
    chapters = list(_chapters(listed, posixpath.dirname(main)))
    _require_legible(package, chapters)
    spend = CharacterAllowance(max_characters)
    pages = []
    for part in chapters:
        markup = encodings.decode(package.content(part)).text
        pages.append(html.visible_text(markup, max_characters))
        spend(len(pages[-1].text.text()))
    pages = [page for page in pages if page.text.text().strip()]
    text, starts = joined(page.text.text() for page in pages)
    headings = (
        (start + place, heading)
        for page, start in zip(pages, starts, strict=True)
        for place, heading in page.text.offsets(page.headings)
    )
    return Extracted(
        text=text,
        places=places.sections(headings, len(text)),
        media_type=MEDIA_TYPE,
        title=package.title(main),
        is_partial=package.is_partial or any(page.is_partial for page in pages),
    )


def _require_legible(package: OfficePackage, chapters: list[str]) -> None:
    """Reject copy protection, but not merely obfuscated fonts (EPUB Open Container 3.3)."""
    if _ENCRYPTION not in package:
        return
    listed = unquote(package.content(_ENCRYPTION).decode("utf-8", "replace"))
    if any(chapter in listed for chapter in chapters):
        raise failures.encrypted()


def _chapters(elements: Iterable[Element], folder: str) -> Iterator[str]:
    """Yield the parts in reading order, each once."""
    parts: dict[str, str] = {}
    order: dict[str, None] = {}
    for element in elements:
        if local(element.tag) == "item":
            target = posixpath.join(folder, unquote(element.get("href", "")))
            parts[element.get("id", "")] = posixpath.normpath(target)
        else:
            order[element.get("idref", "")] = None
    return (parts[chapter] for chapter in order if chapter in parts)


FORMAT = Format("EPUB", in_place(read), extensions=(".epub",), parts=((CONTAINER,),))
