"""Reader for PowerPoint files: the slides in order, with tables, diagrams and speaker notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from chordwise.domain.places import Place, PlaceKind
from chordwise.readers import failures, reader_output
from chordwise.readers.format import Format, in_place
from chordwise.readers.office_package import OfficePackage, PartTarget, local, value_of
from chordwise.readers.reader_output import CharacterAllowance, Extracted, Source

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def read(data: Source, max_characters: int) -> Extracted:
    """Return the text of the slides in order, with a heading for each.

    Raises:
        ReadError: The file is damaged, encrypted, hostile, or longer than the limit.
    """
    package = OfficePackage(data, "PPTX")
    main = package.main_part()
    if not main:
        raise failures.malformed("is a damaged PPTX file: its main part is missing.")
    order = _Order()
    package.parse(main, order)
    related = package.relationships(main)
    slides = [related[each].target for each in order.slides if each in related]
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
    return Extracted(text=text, places=places, media_type=MEDIA_TYPE, pages=len(slides))


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
        for each in package.related(related, kind):
            package.parse(each, target)
    spoken = [f"Notes: {each}" for each in notes.blocks[:1]] + notes.blocks[1:]
    body = "".join(f"\n\n{block}" for block in (*shown.blocks, *spoken))
    title = " ".join(shown.title.split())
    return f"## Slide {number}" + (f": {title}" if title else ""), body


class _Order(PartTarget):
    """Collects the relationships of the slides from the main part, in order."""

    def __init__(self) -> None:
        self.slides: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if local(tag) == "sldId":
            # The element also has an id without a namespace.
            named = {key: value for key, value in attributes.items() if key.startswith("{")}
            self.slides.append(value_of(named, "id"))


class _Shapes(PartTarget):
    """Collects the text of the shapes of a slide (ECMA-376, part 1, §19 and §21)."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.title = ""
        self.blocks: list[str] = []
        self._spend = spend
        self._paragraphs: list[str] = []
        self._words: list[str] = []
        self._rows: list[list[str]] = []
        self._placeholder = ""
        self._skipped = 0
        self._in_text = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = local(tag)
        if self._skipped or name == "Fallback":
            self._skipped += 1
        elif name == "ph":
            self._placeholder = value_of(attributes, "type")
        elif name == "t":
            self._in_text = True
        elif name == "br":
            self._words.append("\n")
        elif name == "tr":
            self._rows.append([])

    def end(self, tag: str) -> None:
        name = local(tag)
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self._end_paragraph()
        elif name == "tc" and self._rows:
            self._rows[-1].append("\n".join(self._paragraphs))
            self._paragraphs = []
        elif name in ("sp", "tbl", "pt", "cxnSp"):
            self._end_shape()

    def data(self, text: str) -> None:
        if self._in_text and not self._skipped:
            self._spend(len(text))
            self._words.append(text)

    def _end_paragraph(self) -> None:
        text = "".join(self._words).strip()
        self._words = []
        if text:
            self._paragraphs.append(text)

    def _end_shape(self) -> None:
        text = "\n".join(self._paragraphs)
        if self._rows:
            text = reader_output.markdown(self._rows, self._spend)
        if self._placeholder in ("title", "ctrTitle") and not self.title:
            self.title = text
        elif text and self._placeholder not in ("sldNum", "dt", "hdr", "ftr", "sldImg"):
            self.blocks.append(text)
        self._paragraphs, self._rows, self._placeholder = [], [], ""


FORMAT = Format(
    "PPTX", in_place(read), extensions=(".pptx", ".pptm"), parts=(("[Content_Types].xml", "ppt/"),)
)
