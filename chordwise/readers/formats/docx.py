"""Reader for Word documents: paragraphs and tables in order, notes, headers and footers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from chordwise.domain import document_flags, places
from chordwise.readers import encodings, failures
from chordwise.readers.format import Format, in_place
from chordwise.readers.formats import html
from chordwise.readers.office_package import (
    OfficePackage,
    PartTarget,
    Relationship,
    TitleTarget,
    local,
    value_of,
)
from chordwise.readers.reader_output import (
    SEPARATOR,
    CharacterAllowance,
    Extracted,
    Source,
    joined,
    leaves_out_unseen,
    nonblank_characters,
)

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_BEFORE = ("header",)
_AFTER = ("footnotes", "endnotes", "footer")
# Deleted and moved text, fallbacks for older programs, and properties that contain tabs.
_SKIPPED = frozenset(
    (
        *("del", "delText", "moveFrom", "instrText", "Fallback"),
        *("pPr", "sectPr", "sdtPr", "sdtEndPr", "tblPr", "trPr", "tcPr"),
    )
)
_SIGNS = {
    "tab": "\t",
    "ptab": "\t",
    "br": "\n",
    "cr": "\n",
    "noBreakHyphen": "\N{NON-BREAKING HYPHEN}",
}
_HEADING_NAME = re.compile(r"heading [1-9]", re.IGNORECASE)
_OUTLINE, _OUTLINE_LEVELS = "outline ", frozenset("012345678")
_EMBEDDED_MARKUP = (".html", ".htm", ".xhtml")
_EMBEDDED_TEXT = (".txt",)


def read(data: Source, max_characters: int) -> Extracted:
    """Return the displayed text: a blank line between paragraphs, a tab between cells.

    Raises:
        ReadError: The file is damaged, encrypted, hostile, or longer than the limit.
    """
    return _Document(OfficePackage(data), max_characters).extracted()


class _Document:
    def __init__(self, package: OfficePackage, max_characters: int) -> None:
        self._package = package
        self._limit = max_characters
        self._spend = CharacterAllowance(max_characters)
        self._unseen: list[str] = []
        self._left_out: list[str] = []

    def extracted(self) -> Extracted:
        main = self._package.main_part()
        if not main:
            raise failures.malformed("is a damaged DOCX file: its main part is missing.")
        related = self._package.relationships(main)
        before = list(self._texts_of(related, _BEFORE))
        story = self._story(main, related)
        texts = [*before, story.text(), *self._texts_of(related, _AFTER)]
        shown = [text for text in dict.fromkeys(texts) if text]
        text, starts = joined(shown)
        start = dict(zip(shown, starts, strict=True)).get(story.text(), 0)
        headings = ((start + place, heading) for place, heading in story.headings())
        return Extracted(
            text=text,
            places=places.sections(headings, len(text)),
            media_type=MEDIA_TYPE,
            title=self._title(),
            invisible_characters=nonblank_characters(self._unseen),
            unseen=tuple(self._unseen),
            left_out=document_flags.lines_addressing_model("\n".join(self._left_out)),
        )

    def _texts_of(
        self, related: Mapping[str, Relationship], kinds: tuple[str, ...]
    ) -> Iterator[str]:
        for kind in kinds:
            for part in sorted(self._package.related(related, kind)):
                yield self._story(part, self._package.relationships(part)).text()

    def _story(self, part: str, related: Mapping[str, Relationship]) -> _Story:
        styles = _Styles()
        for each in self._package.related(related, "styles"):
            self._package.parse(each, styles)
        story = _Story(lambda name: self._embedded(related.get(name)), self._spend, styles)
        self._package.parse(part, story)
        self._unseen += story.unseen
        self._left_out += story.left_out
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

    def _title(self) -> str:
        title = TitleTarget()
        root = self._package.relationships("")
        for part in self._package.related(root, "core-properties"):
            self._package.parse(part, title)
        return title.text


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


class _Story(PartTarget):
    """Collects the displayed text of a part (ECMA-376, part 1, §17); frames are open containers."""

    def __init__(
        self, embedded: Callable[[str], str], spend: Callable[[int], None], styles: _Styles
    ) -> None:
        self._embedded = embedded
        self._spend = spend
        self._styles = styles
        # The blocks of the story that are headings, and the style of the current paragraph.
        self._headings: set[int] = set()
        self._style = ""
        self._frames: list[list[str]] = [[]]
        self._paragraphs: list[list[str]] = [[]]
        self._runs = [_Run()]
        self._is_shaded = False
        self.unseen: list[str] = []
        self.left_out: list[str] = []
        self._skipped = 0
        self._in_text = 0

    def text(self) -> str:
        return SEPARATOR.join(block for block in (*self._frames[0], *self._paragraphs[0]) if block)

    def headings(self) -> Iterator[tuple[int, str]]:
        start = 0
        for number, block in enumerate(self._frames[0]):
            if number in self._headings:
                yield start, block
            start += len(block) + len(SEPARATOR) if block else 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = local(tag)
        if self._skipped or name in _SKIPPED:
            self._skipped += 1
            self._is_shaded |= name == "shd" and _is_colored(attributes)
            if name in ("pStyle", "outlineLvl") and not self._style:
                value = value_of(attributes, "val")
                self._style = value if name == "pStyle" else f"{_OUTLINE}{value}"
            return
        if name in _SIGNS:
            self._append(_SIGNS[name])
        elif name in ("tbl", "tr", "tc"):
            self._frames.append([])
        elif name == "p":
            self._is_shaded = False
            self._paragraphs.append([])
            self._style = ""
        else:
            self._start_in_paragraph(name, attributes)

    def _start_in_paragraph(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "r":
            self._runs.append(replace(self._runs[-1]))
        elif name == "t":
            self._in_text += 1
        elif name in _LOOKS:
            self._runs[-1].set(name, attributes)
        elif name == "altChunk":
            self._frames[-1].append(self._embedded(value_of(attributes, "id")))

    def end(self, tag: str) -> None:
        name = local(tag)
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._in_text -= 1
        elif name == "r":
            self._runs.pop()
        elif name == "p":
            self._end_paragraph()
        elif name in ("tbl", "tr", "tc"):
            self._end_frame(name)

    def data(self, text: str) -> None:
        if self._in_text and not self._skipped:
            self._append(text)

    def _append(self, text: str) -> None:
        run = self._runs[-1]
        if run.is_hidden:
            self.left_out.append(text)
            return
        self._spend(len(text))
        is_unseen = run.is_tiny or (run.is_white and not self._may_have_ground())
        self.unseen += [text] * is_unseen
        if not (is_unseen and leaves_out_unseen.get()):
            self._paragraphs[-1].append(text)

    def _may_have_ground(self) -> bool:
        """Return whether white text may be readable: on color, in a table or in a text box."""
        is_inside = len(self._frames) > 1 or len(self._paragraphs) > _DEPTH_IN_TEXT
        return is_inside or self._is_shaded or self._runs[-1].has_ground

    def _end_paragraph(self) -> None:
        text = "".join(self._paragraphs.pop())
        if text.strip():
            if len(self._frames) == 1 and self._styles.is_heading(self._style):
                self._headings.add(len(self._frames[0]))
            self._frames[-1].append(text)
        self._style = ""

    def _end_frame(self, name: str) -> None:
        parts = self._frames.pop()
        if name == "tr":
            text = "\t".join(parts).rstrip("\t")
        else:
            text = "\n".join(part for part in parts if part.strip())
        if text or name == "tc":
            self._frames[-1].append(text)


class _Styles(PartTarget):
    """Collects the styles of headings (ECMA-376, part 1, §17.7)."""

    def __init__(self) -> None:
        self._headings: set[str] = set()
        self._bases: dict[str, str] = {}
        self._style = ""

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

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name, value = local(tag), value_of(attributes, "val")
        if name == "style":
            self._style = value_of(attributes, "styleId")
        elif name == "basedOn":
            self._bases[self._style] = value
        elif (name == "outlineLvl" and value in _OUTLINE_LEVELS) or (
            name == "name" and _HEADING_NAME.match(value)
        ):
            self._headings.add(self._style)


FORMAT = Format(
    "DOCX", in_place(read), extensions=(".docx", ".docm"), parts=(("[Content_Types].xml",),)
)
