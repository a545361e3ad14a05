"""Reader for Word documents: paragraphs and tables in order, notes, headers and footers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from chordwise.domain import document_flags, places
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, html, in_place
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.office_xml import (
    OfficePackage,
    Relationship,
    Story,
    Tags,
    local,
    value_of,
)
from chordwise.readers.reader_output import (
    SEPARATOR,
    Extracted,
    Source,
    joined,
    leaves_out_unseen,
    nonblank_characters,
)

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_BEFORE = ("header",)
_AFTER = ("footnotes", "endnotes", "footer")
# Skipped: deleted and moved text, fallbacks for older programs, and properties that contain tabs.
_TAGS = Tags(
    skipped=frozenset(
        (
            *("del", "delText", "moveFrom", "instrText", "Fallback"),
            *("pPr", "sectPr", "sdtPr", "sdtEndPr", "tblPr", "trPr", "tcPr"),
        )
    ),
    signs={
        "tab": "\t",
        "ptab": "\t",
        "br": "\n",
        "cr": "\n",
        "noBreakHyphen": "\N{NON-BREAKING HYPHEN}",
    },
    texts=("t",),
    table="tbl",
    row="tr",
    cell="tc",
)
_HEADING_NAME = re.compile(r"heading [1-9]", re.IGNORECASE)
_OUTLINE, _OUTLINE_LEVELS = "outline ", frozenset("012345678")
_EMBEDDED_MARKUP = (".html", ".htm", ".xhtml")
_EMBEDDED_TEXT = (".txt",)
# Symbols, fields and objects without text, and what is struck or moved away (§17.3.3 and §17.16).
_UNREAD = frozenset(
    ("sym", "checkBox", "ddList", "drawing", "pict", "object", "control", "del", "moveFrom")
)


def read(data: Source, max_characters: int) -> Extracted:
    """Return the displayed text: a blank line between paragraphs, a tab between cells."""
    return _Document(OfficePackage(data), max_characters).extracted()


class _Document:
    def __init__(self, package: OfficePackage, max_characters: int) -> None:
        self._package = package
        self._limit = max_characters
        self._spend = CharacterAllowance(max_characters)
        self._unseen: list[str] = []
        self._left_out: list[str] = []
        self._is_partial = package.is_partial

    def extracted(self) -> Extracted:
        main = self._package.main_part()
        if not main:
            raise failures.malformed("is a damaged DOCX file: its main part is missing.")
        related = self._package.relationships(main)
        styles = [
            style
            for part in self._package.related(related, "styles")
            for style in self._package.elements(part, "style", "basedOn", "name", "outlineLvl")
        ]
        before = list(self._texts_of(related, _BEFORE))
        story = self._story(main, related, styles)
        texts = [*before, story.text(), *self._texts_of(related, _AFTER)]
        shown = [text for text in dict.fromkeys(texts) if text]
        text, starts = joined(shown)
        start = dict(zip(shown, starts, strict=True)).get(story.text(), 0)
        headings = ((start + place, heading) for place, heading in story.headings())
        properties = self._package.related(self._package.relationships(""), "core-properties")
        return Extracted(
            text=text,
            places=places.sections(headings, len(text)),
            media_type=MEDIA_TYPE,
            title=next(map(self._package.title, properties), ""),
            invisible_characters=nonblank_characters(self._unseen),
            unseen=tuple(self._unseen),
            left_out=document_flags.lines_addressing_model("\n".join(self._left_out)),
            is_partial=self._is_partial,
        )

    def _texts_of(
        self, related: Mapping[str, Relationship], kinds: tuple[str, ...]
    ) -> Iterator[str]:
        for kind in kinds:
            for part in sorted(self._package.related(related, kind)):
                yield self._story(part, self._package.relationships(part)).text()

    def _story(
        self, part: str, related: Mapping[str, Relationship], styles: Iterable[Element] = ()
    ) -> _Story:
        story = _Story(lambda name: self._embedded(related.get(name)), self._spend, _Styles(styles))
        self._package.parse(part, story)
        self._unseen += story.unseen
        self._left_out += story.left_out
        self._is_partial |= story.is_partial
        return story

    def _embedded(self, chunk: Relationship | None) -> str:
        if chunk is None:
            return ""
        if not chunk.target.lower().endswith((*_EMBEDDED_MARKUP, *_EMBEDDED_TEXT)):
            raise failures.unsupported(
                f"contains another file ({chunk.target}), which would be left out",
                "Open it in Word and save it again, which merges the two.",
            )
        content = encodings.decode(self._package.content(chunk.target)).text
        if chunk.target.lower().endswith(_EMBEDDED_TEXT):
            self._spend(len(content))
            return content
        text = html.visible_text(content, self._limit).text.text()
        self._spend(len(text))
        return text


_COLUMNS = frozenset(map(str, range(2, 64)))
"""The numbers of columns that a cell may span; Word has at most 63."""
_LOOKS = ("vanish", "color", "sz", "shd", "highlight")
_WHITE = ("FFFFFF", "ffffff")
_TINY_HALF_POINTS = 2
# The depth of paragraphs in the text of the story, including text outside of paragraphs.
_DEPTH_IN_TEXT = 2


def _is_colored(shading: Mapping[str, str]) -> bool:
    return value_of(shading, "fill") not in (*_WHITE, "auto", "")


@dataclass(slots=True)
class _Run:
    is_hidden: bool = False
    is_white: bool = False
    is_tiny: bool = False
    has_ground: bool = False

    def set(self, name: str, attributes: Mapping[str, str]) -> None:
        value = value_of(attributes, "val")
        if name == "vanish":
            self.is_hidden = value not in ("0", "false", "off")
        elif name == "color":
            self.is_white = value in _WHITE
        elif name == "sz":
            self.is_tiny = value.isdecimal() and int(value) <= _TINY_HALF_POINTS
        else:
            self.has_ground = name == "highlight" or _is_colored(attributes)


class _Story(Story):
    """Adds headings, hidden and invisible text, and embedded files (ECMA-376, part 1, §17)."""

    tags = _TAGS

    def __init__(
        self, embedded: Callable[[str], str], spend: Callable[[int], None], styles: _Styles
    ) -> None:
        super().__init__(spend)
        self._embedded = embedded
        self._styles = styles
        # The paragraphs of the story that are headings, and the style of the current one.
        self._headings: set[int] = set()
        self._style = ""
        self._runs = [_Run()]
        self._is_shaded = False
        self.unseen: list[str] = []
        self.left_out: list[str] = []
        self.is_partial = False

    def text(self) -> str:
        return SEPARATOR.join((*self.texts, *self.paragraphs[0]))

    def headings(self) -> Iterator[tuple[int, str]]:
        start = 0
        for number, text in enumerate(self.texts):
            if number in self._headings:
                yield start, text
            start += len(text) + len(SEPARATOR)

    def skip(self, name: str, attributes: Mapping[str, str]) -> None:
        self.is_partial |= name in _UNREAD
        if name == "gridSpan" and (columns := value_of(attributes, "val")) in _COLUMNS:
            self.blocks[-1].columns = int(columns)
        self._is_shaded |= name == "shd" and _is_colored(attributes)
        if name in ("pStyle", "outlineLvl") and not self._style:
            value = value_of(attributes, "val")
            self._style = value if name == "pStyle" else f"{_OUTLINE}{value}"

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        self.is_partial |= name in _UNREAD
        if name == "p":
            self._is_shaded, self._style = False, ""
        elif name == "r":
            self._runs.append(replace(self._runs[-1]))
        elif name in _LOOKS:
            self._runs[-1].set(name, attributes)
        elif name == "altChunk" and (text := self._embedded(value_of(attributes, "id"))):
            self.blocks[-1].texts.append(text)

    def closed(self, name: str) -> None:
        if name == "r":
            self._runs.pop()

    def write(self, text: str) -> None:
        run = self._runs[-1]
        if run.is_hidden:
            self.left_out.append(text)
            return
        # White text may be readable on color, in a table, or in a text box.
        is_inside = len(self.blocks) > 1 or len(self.paragraphs) > _DEPTH_IN_TEXT
        has_ground = is_inside or self._is_shaded or run.has_ground
        is_unseen = run.is_tiny or (run.is_white and not has_ground)
        self.unseen += [text] * is_unseen
        if is_unseen and leaves_out_unseen.get():
            self.spend(len(text))
        else:
            super().write(text)

    def end_paragraph(self, text: str) -> None:
        if text.strip() and len(self.blocks) == 1 and self._styles.is_heading(self._style):
            self._headings.add(len(self.texts))
        super().end_paragraph(text)
        self._style = ""

    def table(self, rows: Sequence[Sequence[str]]) -> str:
        lines = ("\t".join(cells).rstrip("\t") for cells in rows)
        return "\n".join(line for line in lines if line.strip())


class _Styles:
    """The styles of headings (ECMA-376, part 1, §17.7)."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._headings: set[str] = set()
        self._bases: dict[str, str] = {}
        style = ""
        for element in elements:
            value = value_of(element.attrib, "val")
            if local(element.tag) == "style":
                style = value_of(element.attrib, "styleId")
            elif local(element.tag) == "basedOn":
                self._bases[style] = value
            elif (
                value in _OUTLINE_LEVELS
                if local(element.tag) == "outlineLvl"
                else _HEADING_NAME.match(value)
            ):
                self._headings.add(style)

    def is_heading(self, style: str) -> bool:
        """Return whether a style, or one that it is based on, is that of a heading.

        An outline level counts as a style: 0 to 8 are headings.
        """
        if style.startswith(_OUTLINE):
            return style.removeprefix(_OUTLINE) in _OUTLINE_LEVELS
        seen: set[str] = set()
        while style and style not in seen:
            if style in self._headings:
                return True
            seen.add(style)
            style = self._bases.get(style, "")
        return False


FORMAT = Format(
    "DOCX", in_place(read), extensions=(".docx", ".docm"), parts=(("[Content_Types].xml",),)
)
