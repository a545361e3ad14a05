"""Reader for OpenDocument texts and presentations (ODT, ODP): paragraphs, lists, tables, notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chordwise.domain import places
from chordwise.readers import failures, reader_output
from chordwise.readers.format import Format, in_place
from chordwise.readers.formats.presentation import places_of_slides
from chordwise.readers.office_package import OfficePackage, PartTarget, TitleTarget, local, value_of
from chordwise.readers.reader_output import CharacterAllowance, Extracted, Source

_MANIFEST, _CONTENT, _META = "META-INF/manifest.xml", "content.xml", "meta.xml"
_SKIPPED = frozenset(("tracked-changes", "annotation", "note-citation", "desc", "settings"))
_REPEATED = 100
_DEEPEST_HEADING = 6


def read(data: Source, max_characters: int) -> Extracted:
    """Return the displayed text; footnotes are at the end.

    Raises:
        ReadError: The file is damaged, encrypted, hostile, or longer than the limit.
    """
    package = OfficePackage(data, "OpenDocument", has_document_types=True)
    if _MANIFEST in package and b"encryption-data" in package.content(_MANIFEST):
        raise failures.encrypted()
    story, title = _Story(CharacterAllowance(max_characters)), TitleTarget()
    package.parse(_CONTENT, story)
    if _META in package:
        package.parse(_META, title)
    media_type = "application/vnd.oasis.opendocument.text"
    if "mimetype" in package:
        media_type = package.content("mimetype")[:100].decode("ascii", "replace").strip()
    text, starts = reader_output.joined((*story.blocks, *story.notes))
    begins = [(starts[block], heading) for block, heading in story.headings]
    if story.slides:
        found = places_of_slides(
            ((start, number) for number, (start, _) in enumerate(begins, start=1)), len(text)
        )
    else:
        found = places.sections(begins, len(text))
    return Extracted(
        text=text, places=found, media_type=media_type, title=title.text, pages=story.slides or None
    )


class _Story(PartTarget):
    """Collects the displayed text of the content (OpenDocument 1.3, part 3)."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.blocks: list[str] = []
        self.notes: list[str] = []
        # The slides of a presentation, otherwise headings, by the index of their first block.
        self.headings: list[tuple[int, str]] = []
        self.slides = 0
        self._spend = spend
        # The containers of finished paragraphs: the document, then open notes and cells.
        self._frames: list[list[str]] = [self.blocks]
        self._paragraphs: list[list[str]] = []
        self._marks: list[str] = []
        self._rows: list[list[list[str]]] = []
        self._repeated: list[int] = []
        self._item = ""
        self._skipped = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = local(tag)
        if self._skipped or name in _SKIPPED:
            self._skipped += 1
        elif name in ("p", "h"):
            self._start_paragraph(name, attributes)
        elif name == "list-item":
            self._item = "- "
        elif name == "page":
            self.slides += 1
            self.headings.append((len(self.blocks), ""))
            self.blocks.append(f"## Slide {self.slides}")
        elif name in ("s", "tab", "line-break"):
            self._write({"tab": "\t", "line-break": "\n"}.get(name, " " * _count(attributes, "c")))
        else:
            self._start_frame(name, attributes)

    def end(self, tag: str) -> None:
        name = local(tag)
        if self._skipped:
            self._skipped -= 1
        elif name in ("p", "h"):
            self._end_paragraph()
        elif name == "list-item":
            self._item = ""
        else:
            self._end_frame(name)

    def data(self, text: str) -> None:
        """Append a piece of text; runs of white space become one space."""
        if self._paragraphs and not self._skipped:
            words = " ".join(text.split())
            before = " " if text[:1].isspace() else ""
            after = " " if words and text[-1:].isspace() else ""
            self._write(before + words + after)

    def _start_paragraph(self, name: str, attributes: Mapping[str, str]) -> None:
        level = min(_count(attributes, "outline-level"), _DEEPEST_HEADING)
        self._marks.append(f"{'#' * level} " if name == "h" else self._item)
        self._item = ""
        self._paragraphs.append([])

    def _start_frame(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "table":
            self._rows.append([])
        elif name == "table-row" and self._rows:
            self._rows[-1].append([])
        elif name in ("table-cell", "note-body", "notes"):
            self._frames.append([])
        if name == "table-cell":
            self._repeated.append(min(_count(attributes, "number-columns-repeated"), _REPEATED))

    def _end_paragraph(self) -> None:
        text, mark = "".join(self._paragraphs.pop()).strip(), self._marks.pop()
        if text:
            if mark.startswith("#") and not self.slides and self._frames[-1] is self.blocks:
                self.headings.append((len(self.blocks), text))
            self._frames[-1].append(mark + text)

    def _end_frame(self, name: str) -> None:
        if name == "table":
            written = reader_output.markdown(self._rows.pop(), self._spend)
            self._frames[-1].extend([written] if written else [])
        elif name == "table-cell":
            text = "\n".join(self._frames.pop())
            if self._rows and self._rows[-1]:
                self._rows[-1][-1].extend([text] * self._repeated.pop())
        elif name == "note-body":
            self.notes.extend(self._frames.pop())
        elif name == "notes":
            notes = self._frames.pop()
            self._frames[-1].extend([f"Notes: {notes[0]}", *notes[1:]] if notes else [])

    def _write(self, text: str) -> None:
        if self._paragraphs:
            self._spend(len(text))
            self._paragraphs[-1].append(text)


def _count(attributes: Mapping[str, str], name: str) -> int:
    value = value_of(attributes, name)
    return min(int(value), 10_000) if value.isascii() and value.isdigit() else 1


FORMAT = Format(
    "ODT, ODP",
    in_place(read),
    extensions=(".odt", ".odp"),
    parts=(("content.xml", "META-INF/manifest.xml"),),
)
