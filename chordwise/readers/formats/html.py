"""Reader for HTML: the text that a browser displays, without building a tree."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from chordwise.domain import document_flags, places
from chordwise.readers import encodings
from chordwise.readers.formats import Format, ascii_start, of_bytes
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.reader_output import (
    Extracted,
    leaves_out_unseen,
    nonblank_characters,
)

# fmt: off
_PARAGRAPHS = frozenset((
    "address", "article", "aside", "blockquote", "dl", "fieldset", "figure", "footer", "form", "h1",
    "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section",
    "table", "ul",
))
_LINES = frozenset((
    "caption", "center", "dd", "details", "dialog", "div", "dt", "figcaption", "legend", "li",
    "optgroup", "option", "select", "summary", "tbody", "tfoot", "thead", "title",
))
_UNSHOWN = frozenset((
    "applet", "audio", "canvas", "datalist", "head", "iframe", "math-annotation", "noembed",
    "noframes", "noscript", "object", "script", "style", "template", "video",
))
# fmt: on
_UNREAD = frozenset(
    (
        *("img", "svg", "canvas", "object", "embed", "iframe", "video", "input", "select"),
        *("meter", "progress", "math"),
    )
)
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_HIDDEN_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
# The group matches if the size is zero.
_FONT_SIZE = re.compile(
    r"font-size\s*:\s*(?:((?:0+(?:\.0*)?|\.0+)(?:[a-z]{2,4}|%)?)\s*(?:[;!]|$)|\S)", re.IGNORECASE
)
_TINY = re.compile(
    r"font-size\s*:\s*(?:(?:[01]?\.\d+|[12])px|(?:0?\.\d+|1)pt|0?\.[01]\d*r?em|\d(?:\.\d+)?%)",
    re.IGNORECASE,
)
_COLOR = re.compile(
    r"(?<![\w-])color\s*+:\s*+(?:(#fff(?:fff)?\b|white\b|transparent\b|rgba?\((?:\s*+255\s*+,?+){3})|\S)",
    re.IGNORECASE,
)
_GROUND = re.compile(
    r"background(?:-color)?\s*:\s*(?!#fff(?:fff)?\b|white\b|transparent\b|none\b|inherit\b)\S",
    re.IGNORECASE,
)
_OFF_PAGE = re.compile(
    r"\b(?:left|top|right|text-indent)\s*:\s*-\d{4}|\bopacity\s*:\s*0(?:\.0+)?\s*(?:[;!]|$)",
    re.IGNORECASE,
)
_CELLS = ("td", "th")
_ROW_GROUPS = ("thead", "tbody", "tfoot")
_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
_WIDEST_SPAN = 1_000
_WHITES = ("#fff", "#ffffff", "white")
_UNREAD_ATTRIBUTES = ("alt", "title", "aria-label", "aria-description", "placeholder", "content")
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*+=\s*+(?:["']\s*+)?([\w.:-]+)""", re.IGNORECASE)
_DECLARATION_BYTES = 2_048
_SLICE = 65_536
_TITLE_CHARACTERS = 1_000


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the visible text: a blank line between paragraphs, a tab between columns."""
    declared = _DECLARED.search(data[:_DECLARATION_BYTES])
    name = declared.group(1).decode("ascii", "replace") if declared else ""
    decoded = encodings.decode(data, name)
    return extracted(visible_text(decoded.text, max_characters), decoded.encoding)


def extracted(page: Page, encoding: str | None = None) -> Extracted:
    """Return a page as an extracted text."""
    text = page.text.text()
    return Extracted(
        text=text,
        places=places.sections(page.text.offsets(page.headings), len(text)),
        media_type="text/html",
        title=page.title,
        encoding=encoding,
        invisible_characters=nonblank_characters(page.unseen),
        unseen=tuple(page.unseen),
        left_out=document_flags.lines_addressing_model(
            "\n".join(passage.strip() for passage in page.left_out)
        ),
        is_partial=page.is_partial,
    )


@dataclass(frozen=True, slots=True)
class _Formatting:
    """The formatting of the text of an element, as declared by it and its parents."""

    has_size: bool = True
    is_tiny: bool = False
    is_off_page: bool = False
    is_white: bool = False
    has_ground: bool = False

    @property
    def is_unseen(self) -> bool:
        return self.is_tiny or self.is_off_page or (self.is_white and not self.has_ground)

    def within(self, attributes: Mapping[str, str], *, may_be_styled: bool) -> _Formatting:
        """Return the formatting of a nested element; style sheets may color classes."""
        style = attributes.get("style", "")
        size, color = _FONT_SIZE.search(style), _COLOR.search(style)
        value = attributes.get("color", "").lower()
        has_color = color is not None or bool(value)
        return _Formatting(
            has_size=size[1] is None if size else self.has_size,
            is_tiny=bool(_TINY.search(style)) if size else self.is_tiny,
            is_white=(bool(color and color[1]) or value in _WHITES) if has_color else self.is_white,
            is_off_page=self.is_off_page or bool(_OFF_PAGE.search(style)),
            has_ground=self.has_ground
            or bool(_GROUND.search(style))
            or attributes.get("bgcolor", "").lower() not in ("", *_WHITES)
            or "background" in attributes
            or (may_be_styled and "class" in attributes),
        )


class Page:
    """Collects the displayed text; `unseen` is invisible in it, `left_out` hidden outside of it."""

    def __init__(self, max_characters: int) -> None:
        self.text = _FlowingText(max_characters)
        self.title = ""
        self.headings: list[tuple[int, str]] = []
        self.unseen: list[str] = []
        self.left_out: list[str] = []
        self.is_partial = False
        self._heading: list[str] | None = None
        self._unshown = 0
        self._is_hidden = False
        self._has_sheet = False
        self._formats = [_Formatting()]
        self._preformatted = 0
        self._in_title = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        self._in_title = tag == "title" and not self.title
        self._has_sheet |= tag in ("style", "link")
        self.left_out += (attributes[name] for name in _UNREAD_ATTRIBUTES if name in attributes)
        self.is_partial |= tag in _UNREAD and not self._unshown
        if self._unshown or tag in _UNSHOWN or _is_hidden(attributes):
            self._is_hidden = tag not in _UNSHOWN and (self._is_hidden or not self._unshown)
            self._unshown += 1
            return
        self._preformatted += tag == "pre"
        self._formats.append(self._formats[-1].within(attributes, may_be_styled=self._has_sheet))
        if tag in _HEADINGS:
            self._heading = []
            self.headings.append((self.text.pieces, ""))
        if tag == "br":
            self.text.break_line()
        elif tag == "tr":
            self.text.begin_row()
        elif tag in _CELLS:
            self.text.begin_cell(_span(attributes, "colspan"), _span(attributes, "rowspan"))
        else:
            self._separate_block(tag)
        if tag == "table":
            self.text.begin_table()
        elif tag in _ROW_GROUPS:
            self.text.begin_row_group()

    def end(self, tag: str) -> None:
        """Handle the end of an element."""
        self._in_title = False
        if self._unshown:
            self._unshown -= 1
            return
        self._preformatted -= tag == "pre"
        if len(self._formats) > 1:
            self._formats.pop()
        if tag in _HEADINGS and self._heading is not None:
            self.headings[-1] = self.headings[-1][0], "".join(self._heading)
            self._heading = None
        if tag == "tr":
            self.text.end_row()
        elif tag not in _CELLS:
            self._separate_block(tag)
        if tag == "table":
            self.text.end_table()

    def data(self, text: str) -> None:
        """Handle a piece of text; the parser may split text anywhere."""
        if self._in_title and len(self.title) < _TITLE_CHARACTERS:
            self.title += text
        if self._unshown or not self._formats[-1].has_size:
            if self._is_hidden or not self._unshown:
                self.left_out.append(text)
            return
        if self._formats[-1].is_unseen and text.strip():
            self.unseen.append(" ".join(text.split()))
            if leaves_out_unseen.get():
                return
        if self._heading is not None:
            self._heading.append(text)
        if self._preformatted:
            self.text.write_exactly(text)
        else:
            self.text.write(text)

    def comment(self, text: str) -> None:
        """Add a comment to the hidden passages."""
        self.left_out.append(text)

    def close(self) -> Page:
        """Return the page."""
        return self

    def _separate_block(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.text.separate(PARAGRAPH)
        elif tag in _LINES:
            self.text.separate(LINE)


def visible_text(markup: str, max_characters: int) -> Page:
    """Return the content that a browser displays for the markup.

    Raises:
        ReadError: The text is longer than the limit.
    """
    page = Page(max_characters)
    # A target instead of a tree, which would truncate the text at a limit on depth or length.
    parser = etree.HTMLParser(
        target=page,  # type: ignore[arg-type]  # the stubs expect bytes, too
        encoding="utf-8",
        no_network=True,
        huge_tree=True,
    )
    # HTML has no NUL character; the parser would stop at one.
    content = markup.replace("\0", "").encode("utf-8", "replace")
    for start in range(0, len(content), _SLICE):
        parser.feed(content[start : start + _SLICE])
    if content:
        parser.close()
    return page


def _span(attributes: Mapping[str, str], name: str) -> int:
    value = attributes.get(name, "").strip()
    number = int(value) if _NUMBER.fullmatch(value) else 1
    # A rowspan of 0 extends to the end of the row group, and a colspan of 0 is invalid.
    return min(number, _WIDEST_SPAN) or (_WIDEST_SPAN if name == "rowspan" else 1)


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return "hidden" in attributes or bool(_HIDDEN_STYLE.search(attributes.get("style", "")))


SPACE, LINE, PARAGRAPH, CELL = " ", "\n", "\n\n", "\t"
_BREAKS = (LINE, PARAGRAPH)
_LONGEST_CELL = 300
_STRENGTH = {"": 0, SPACE: 1, LINE: 2, PARAGRAPH: 3}
# White space as defined by HTML; a no-break space is not white space.
_WHITE = re.compile(r"[ \t\n\r\f]+")


class _Table:
    """The columns of the cells with text of an open table (HTML, "Forming a table")."""

    def __init__(self) -> None:
        self._row = 0
        self._column = 0
        self._end = 0
        # The first row in which a column is free again, where a cell above spans rows.
        self._free_at: dict[int, int] = {}
        self._placed: list[tuple[int, int, int]] = []
        self.has_table = False

    def begin_row_group(self) -> None:
        self._free_at.clear()

    def begin_row(self) -> None:
        self._row += 1
        self._column = self._end = 0

    def begin_cell(self, columns: int, rows: int) -> None:
        self._column = self._end
        while self._free_at.get(self._column, 0) > self._row:
            self._column += 1
        self._end = self._column + columns
        if rows > 1:
            spanned = range(self._column, min(self._end, _WIDEST_SPAN))
            self._free_at |= dict.fromkeys(spanned, self._row + rows)

    def place(self, index: int) -> None:
        """Note the index of the separator before the text of the current cell."""
        self._placed.append((self._row, self._column, index))

    def cells(self, end: int) -> list[range]:
        """Return the pieces of each cell, without the separator before it, in rows of several."""
        sizes = Counter(row for row, _, _ in self._placed)
        ends = [*(index for _, _, index in self._placed[1:]), end]
        return [
            range(index + 1, stop)
            for (row, _, index), stop in zip(self._placed, ends, strict=False)
            if sizes[row] > 1
        ]

    def tabs(self) -> Iterator[tuple[int, int]]:
        """Yield the index of each separator and its number of tabs."""
        used = sorted({column for _, column, _ in self._placed})
        rank = {column: number for number, column in enumerate(used)}
        last_row, last = 0, 0
        for row, column, index in self._placed:
            yield index, rank[column] - (last if row == last_row else 0)
            last_row, last = row, rank[column]


class _FlowingText:
    """A text under construction; separators are written only if text follows them."""

    def __init__(self, max_characters: int) -> None:
        self._pieces: list[str] = []
        self._pending = ""
        self._fixed = False
        self._tables = [_Table()]
        self._spend = CharacterAllowance(max_characters)

    @property
    def pieces(self) -> int:
        return len(self._pieces)

    def offsets(self, headings: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
        """Return headings, which are at an index of `pieces`, with their offsets in the text."""
        ends = [0, *itertools.accumulate(map(len, self._pieces))]
        return [(ends[index], heading) for index, heading in headings]

    def write(self, text: str) -> None:
        """Append text with each run of white space replaced by one space."""
        words = _WHITE.sub(" ", text)
        if self._fixed and not words.strip():  # no-break spaces in an empty cell
            return
        if words.startswith(" "):
            self.separate(SPACE)
        if words.strip(" "):
            self.write_exactly(words.strip(" "))
        if words.endswith(" "):
            self.separate(SPACE)

    def write_exactly(self, text: str) -> None:
        pending = self._pending if self._pieces else ""
        if self._fixed:
            self._tables[-1].place(len(self._pieces))
        self._pieces += pending, text
        self._pending, self._fixed = "", False
        self._spend(len(pending) + len(text))

    def separate(self, separator: str) -> None:
        """Request a separator before the next text; the strongest request is used."""
        if not self._fixed and _STRENGTH[separator] > _STRENGTH[self._pending]:
            self._pending = separator

    def break_line(self) -> None:
        """End the line; a second break results in an empty line."""
        self.separate(PARAGRAPH if self._pending == LINE else LINE)

    def begin_table(self) -> None:
        self._tables[-1].has_table = True
        self._tables.append(_Table())

    def begin_row_group(self) -> None:
        self._tables[-1].begin_row_group()

    def end_table(self) -> None:
        """Separate the cells of the table by a tab for each column that has text in any row.

        Each row is a line, unless the table has long cells or others within them, for its layout.
        """
        if len(self._tables) > 1:
            table = self._tables.pop()
            cells = [] if table.has_table else table.cells(len(self._pieces))
            lengths = (sum(len(self._pieces[piece]) for piece in cell) for cell in cells)
            if max(lengths, default=0) <= _LONGEST_CELL:
                for piece in itertools.chain.from_iterable(cells):
                    if self._pieces[piece] in _BREAKS:
                        self._pieces[piece] = SPACE
            for index, tabs in table.tabs():
                missing = max(0, tabs - self._pieces[index].count(CELL))
                self._spend(missing)
                self._pieces[index] += CELL * missing

    def begin_row(self) -> None:
        """Start a line; blocks in the first cell do not add further separators."""
        self._tables[-1].begin_row()
        self._pending, self._fixed = LINE, True

    def begin_cell(self, columns: int, rows: int) -> None:
        """Request a tab before the text of the cell, regardless of blocks in between."""
        self._tables[-1].begin_cell(columns, rows)
        row_is_empty = self._fixed and self._pending == LINE
        if not row_is_empty:
            self._pending, self._fixed = CELL, True

    def end_row(self) -> None:
        self._pending, self._fixed = LINE, False

    def text(self) -> str:
        return "".join(self._pieces)


_NAMES = (".html", ".htm", ".xhtml", ".xht")
# Atomic groups, since a page of comments would otherwise take exponential time.
_START = re.compile(
    rb"(?>\s+|<\?xml[^>]*>|<!--(?:(?!-->).)*-->)*+<(?:!doctype\s+html|html)\b", re.DOTALL
)
FORMAT = Format(
    "HTML",
    of_bytes(read),
    matches=lambda data, name: name in _NAMES or bool(_START.match(ascii_start(data)[:2048])),
    rank=1,
)
