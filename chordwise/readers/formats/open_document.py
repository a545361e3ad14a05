"""Reader for OpenDocument texts and presentations (ODT, ODP): paragraphs, lists, tables, notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chordwise.domain import places
from chordwise.readers import failures, reader_output
from chordwise.readers.formats import Format, in_place
from chordwise.readers.formats.presentation import places_of_slides
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.office_xml import Block, OfficePackage, Story, Tags, value_of
from chordwise.readers.reader_output import Extracted, Source

_MANIFEST, _CONTENT, _META = "META-INF/manifest.xml", "content.xml", "meta.xml"
_REPEATED = 100
_DEEPEST_HEADING = 6


def read(data: Source, max_characters: int) -> Extracted:
    """Return the displayed text; footnotes are at the end."""
    package = OfficePackage(data, "OpenDocument", has_document_types=True)
    if _MANIFEST in package and b"encryption-data" in package.content(_MANIFEST):
        raise failures.encrypted()
    story = _Story(CharacterAllowance(max_characters))
    package.parse(_CONTENT, story)
    media_type = "application/vnd.oasis.opendocument.text"
    if "mimetype" in package:
        media_type = package.content("mimetype")[:100].decode("ascii", "replace").strip()
    text, starts = reader_output.joined((*story.texts, *story.notes))
    begins = [(starts[block], heading) for block, heading in story.headings]
    if story.slides:
        text_places = places_of_slides(
            ((start, number) for number, (start, _) in enumerate(begins, start=1)), len(text)
        )
    else:
        text_places = places.sections(begins, len(text))
    return Extracted(
        text=text,
        places=text_places,
        media_type=media_type,
        title=package.title(_META) if _META in package else "",
        pages=story.slides or None,
        is_partial=package.is_partial or story.is_partial,
    )


class _Story(Story):
    """Adds headings, list items, slides and notes (OpenDocument 1.3, part 3)."""

    tags = Tags(
        skipped=frozenset(("tracked-changes", "annotation", "note-citation", "desc", "settings")),
        signs={"tab": "\t", "line-break": "\n"},
        paragraphs=("p", "h"),
        table="table",
        row="table-row",
        cell="table-cell",
        blocks=("note-body", "notes"),
    )

    def __init__(self, spend: Callable[[int], None]) -> None:
        super().__init__(spend)
        self.notes: list[str] = []
        # The slides of a presentation, otherwise headings, by the index of their first text.
        self.headings: list[tuple[int, str]] = []
        self.slides = 0
        self.is_partial = False
        self._marks: list[str] = []
        self._item = ""

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        self.is_partial |= name in ("control", "custom-shape")
        if name in ("p", "h"):
            level = min(_count(attributes, "outline-level"), _DEEPEST_HEADING)
            self._marks.append(f"{'#' * level} " if name == "h" else self._item)
            self._item = ""
        elif name == "list-item":
            self._item = "- "
        elif name == "s":
            self.write(" " * _count(attributes, "c"))
        elif name == "table-row" and self.blocks[-1].rows:
            self.blocks[-1].repeated = _count(attributes, "number-rows-repeated")
        elif name == "table-cell":
            columns = _count(attributes, "number-columns-repeated")
            self.blocks[-1].repeated = min(columns, _REPEATED)
        elif name == "covered-table-cell" and self.blocks[-1].rows:
            columns = _count(attributes, "number-columns-repeated")
            self.blocks[-1].rows[-1] += [""] * min(columns, _REPEATED)
        elif name == "page":
            self.slides += 1
            self.headings.append((len(self.texts), ""))
            self.texts.append(f"## Slide {self.slides}")

    def skip(self, name: str, _attributes: Mapping[str, str]) -> None:
        self.is_partial |= name in ("annotation", "tracked-changes")

    def closed(self, name: str) -> None:
        if name == "list-item":
            self._item = ""
        elif name == "table-row" and self.blocks[-1].rows:
            self._repeat_row(self.blocks[-1])

    def _repeat_row(self, table: Block) -> None:
        row = table.rows[-1]
        for _ in range(table.repeated - 1 if any(row) else 0):
            self.spend(sum(map(len, row)))
            table.rows.append(row)

    def data(self, text: str) -> None:
        """Handle a piece of text; runs of white space become one space."""
        words = " ".join(text.split())
        before = " " if text[:1].isspace() else ""
        after = " " if words and text[-1:].isspace() else ""
        super().data(before + words + after)

    def end_paragraph(self, text: str) -> None:
        text, mark = text.strip(), self._marks.pop()
        if text and mark.startswith("#") and not self.slides and len(self.blocks) == 1:
            self.headings.append((len(self.texts), text))
        super().end_paragraph(mark + text if text else "")

    def end_block(self, block: Block) -> None:
        if block.name == "note-body":
            self.notes += block.texts
            return
        if block.name == "notes" and block.texts:
            block.texts[0] = f"Notes: {block.texts[0]}"
            self.blocks[-1].texts += block.texts
            return
        super().end_block(block)


def _count(attributes: Mapping[str, str], name: str) -> int:
    value = value_of(attributes, name)
    return min(int(value), 10_000) if value.isascii() and value.isdigit() else 1


FORMAT = Format(
    "ODT, ODP",
    in_place(read),
    extensions=(".odt", ".odp"),
    parts=(("content.xml", "META-INF/manifest.xml"),),
)
