"""Reader for PowerPoint files: the slides in order, with tables, diagrams and speaker notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from chordwise.domain.places import Place, PlaceKind
from chordwise.readers import failures, reader_output
from chordwise.readers.formats import Format, in_place
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.office_xml import Block, OfficePackage, Story, Tags, value_of
from chordwise.readers.reader_output import Extracted, Source

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def read(data: Source, max_characters: int) -> Extracted:
    """Return the text of the slides in order, with a heading for each."""
    package = OfficePackage(data, "PPTX")
    main = package.main_part()
    if not main:
        raise failures.malformed("is a damaged PPTX file: its main part is missing.")
    related = package.relationships(main)
    ids = [
        value
        for slide in package.elements(main, "sldId")
        for name, value in slide.items()
        if name.endswith("}id")  # it also has an id without a namespace
    ]
    if missing_ids := [slide_id for slide_id in ids if slide_id not in related]:
        raise failures.malformed(f"is a damaged PPTX file: {len(missing_ids)} slides are missing.")
    slides = [related[slide_id].target for slide_id in ids]
    spend = CharacterAllowance(max_characters)
    texts = [_slide(package, part, number, spend) for number, part in enumerate(slides, start=1)]
    # Slides with only a number are left out.
    shown = {
        number: heading + body
        for number, (heading, body) in enumerate(texts, start=1)
        if body or ": " in heading
    }
    text, starts = reader_output.joined(shown.values())
    places = places_of_slides(zip(starts, shown, strict=True), len(text))
    return Extracted(
        text=text,
        places=places,
        media_type=MEDIA_TYPE,
        pages=len(slides),
        is_partial=package.is_partial,
    )


def places_of_slides(slides: Iterable[tuple[int, int]], length: int) -> list[Place]:
    """Return slides as places in a text of this length; a slide is its position and its number."""
    listed = list(slides)
    ends = [*(start for start, _ in listed[1:]), length]
    return [
        Place(
            kind=PlaceKind.SLIDE,
            label=f"slide {number}",
            start_char=start,
            end_char=end,
            number=number,
        )
        for (start, number), end in zip(listed, ends, strict=False)
    ]


def _slide(
    package: OfficePackage, part: str, number: int, spend: Callable[[int], None]
) -> tuple[str, str]:
    shown, notes = _Shapes(spend), _Shapes(spend)
    package.parse(part, shown)
    related = package.relationships(part)
    for kind, target in (("diagramData", shown), ("notesSlide", notes)):
        for part_name in package.related(related, kind):
            package.parse(part_name, target)
    spoken = [f"Notes: {note}" for note in notes.texts[:1]] + notes.texts[1:]
    body = "".join(f"\n\n{text}" for text in (*shown.texts, *spoken))
    title = " ".join(shown.title.split())
    return f"## Slide {number}" + (f": {title}" if title else ""), body


class _Shapes(Story):
    """Adds the roles of the shapes of a slide (ECMA-376, part 1, §19 and §21)."""

    tags = Tags(
        skipped=frozenset(("Fallback",)),
        signs={"br": "\n"},
        texts=("t",),
        table="tbl",
        row="tr",
        cell="tc",
        blocks=("sp", "graphicFrame", "pt", "cxnSp"),
    )

    def __init__(self, spend: Callable[[int], None]) -> None:
        super().__init__(spend)
        self.title = ""

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "ph" and len(self.blocks) > 1:
            self.blocks[-1].name = value_of(attributes, "type")

    def end_paragraph(self, text: str) -> None:
        super().end_paragraph(text.strip())

    def end_block(self, block: Block) -> None:
        if block.name in ("title", "ctrTitle") and not self.title:
            self.title = "\n".join(block.texts)
        elif block.name not in ("sldNum", "dt", "hdr", "ftr", "sldImg"):
            super().end_block(block)


FORMAT = Format(
    "PPTX", in_place(read), extensions=(".pptx", ".pptm"), parts=(("[Content_Types].xml", "ppt/"),)
)
