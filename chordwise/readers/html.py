"""Reads the text of HTML that a browser would show, without building a tree of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

from chordwise.domain import places
from chordwise.readers import encodings, failures
from chordwise.readers.extracted import Extracted

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
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_HIDDEN_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
# The group is there where the size is nothing.
_FONT_SIZE = re.compile(
    r"font-size\s*:\s*(?:((?:0+(?:\.0*)?|\.0+)(?:[a-z]{2,4}|%)?)\s*(?:[;!]|$)|\S)", re.IGNORECASE
)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*+=\s*+(?:["']\s*+)?([\w.:-]+)""", re.IGNORECASE)
_DECLARATION_BYTES = 2_048
_SLICE = 65_536
_TITLE_CHARACTERS = 1_000


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the visible text: a blank line between paragraphs, a tab between cells.

    Raises:
        ReadError: The bytes are no text, or there is more of it than the limit.
    """
    declared = _DECLARED.search(data[:_DECLARATION_BYTES])
    name = declared.group(1).decode("ascii", "replace") if declared else ""
    decoded = encodings.decode(data, name)
    page = visible_text(decoded.text, max_characters)
    text = page.text.text()
    return Extracted(
        text=text,
        places=places.sections(page.headings, len(text)),
        media_type="text/html",
        title=page.title,
        encoding=decoded.encoding,
    )


class Page:
    """Takes the parser's events and keeps what is shown."""

    def __init__(self, max_characters: int) -> None:
        self.text = FlowingText(max_characters)
        self.title = ""
        self.headings: list[tuple[int, str]] = []
        self._heading: list[str] | None = None
        self._unshown = 0
        self._sizes = [True]
        self._preformatted = 0
        self._in_title = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Open an element."""
        self._in_title = tag == "title" and not self.title
        if self._unshown or tag in _UNSHOWN or _is_hidden(attributes):
            self._unshown += 1
            return
        self._preformatted += tag == "pre"
        self._sizes.append(_has_size(attributes, inherited=self._sizes[-1]))
        if tag in _HEADINGS:
            self._heading = []
            self.headings.append((self.text.length, ""))
        self._separate_before(tag)

    def end(self, tag: str) -> None:
        """Close an element."""
        self._in_title = False
        if self._unshown:
            self._unshown -= 1
            return
        self._preformatted -= tag == "pre"
        if len(self._sizes) > 1:
            self._sizes.pop()
        if tag in _HEADINGS and self._heading is not None:
            self.headings[-1] = self.headings[-1][0], "".join(self._heading)
            self._heading = None
        self._separate_after(tag)

    def data(self, text: str) -> None:
        """Take a piece of text; the parser may cut it anywhere."""
        if self._in_title and len(self.title) < _TITLE_CHARACTERS:
            self.title += text
        if self._unshown or not self._sizes[-1]:
            return
        if self._heading is not None:
            self._heading.append(text)
        if self._preformatted:
            self.text.write_exactly(text)
        else:
            self.text.write(text)

    def comment(self, text: str) -> None:
        """Leave comments out."""

    def close(self) -> Page:
        """Finish."""
        return self

    def _separate_before(self, tag: str) -> None:
        if tag == "br":
            self.text.break_line()
        elif tag == "tr":
            self.text.begin_row()
        else:
            self._separate_block(tag)

    def _separate_after(self, tag: str) -> None:
        if tag == "tr":
            self.text.end_row()
        elif tag in ("td", "th"):
            self.text.end_cell()
        else:
            self._separate_block(tag)

    def _separate_block(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.text.separate(PARAGRAPH)
        elif tag in _LINES:
            self.text.separate(LINE)


def visible_text(markup: str, max_characters: int) -> Page:
    """Return what a browser would show of the markup.

    Raises:
        ReadError: There is more text than the limit.
    """
    page = Page(max_characters)
    # A target instead of a tree: no limit on depth or length that would cut the text off.
    parser = etree.HTMLParser(
        target=page,  # type: ignore[arg-type]  # the stubs expect bytes, too
        encoding="utf-8",
        no_network=True,
        huge_tree=True,
    )
    # HTML has no zero character; the parser would stop there.
    content = markup.replace("\0", "").encode("utf-8", "replace")
    for start in range(0, len(content), _SLICE):
        parser.feed(content[start : start + _SLICE])
    if content:
        parser.close()
    return page


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return "hidden" in attributes or bool(_HIDDEN_STYLE.search(attributes.get("style", "")))


def _has_size(attributes: Mapping[str, str], *, inherited: bool) -> bool:
    """Tell whether the text of an element is larger than nothing."""
    declared = _FONT_SIZE.search(attributes.get("style", ""))
    return declared[1] is None if declared else inherited


SPACE, LINE, PARAGRAPH, CELL = " ", "\n", "\n\n", "\t"
_STRENGTH = {"": 0, SPACE: 1, LINE: 2, PARAGRAPH: 3}
# Everything that HTML calls white space; a no-break space is a character of its own.
_WHITE = re.compile(r"[ \t\n\r\f]+")


class FlowingText:
    """A text under construction: separators wait until something follows them."""

    def __init__(self, max_characters: int) -> None:
        self._pieces: list[str] = []
        self._pending = ""
        self._fixed = False
        self._limit = max_characters
        self._left = max_characters

    @property
    def length(self) -> int:
        """Return how many characters were written."""
        return self._limit - self._left

    def write(self, text: str) -> None:
        """Append text, every run of white space made one space.

        Raises:
            ReadError: The text is longer than the limit.
        """
        words = _WHITE.sub(" ", text)
        if words.startswith(" "):
            self.separate(SPACE)
        if words.strip(" "):
            self.write_exactly(words.strip(" "))
        if words.endswith(" "):
            self.separate(SPACE)

    def write_exactly(self, text: str) -> None:
        """Append text as it is.

        Raises:
            ReadError: The text is longer than the limit.
        """
        pending = self._pending if self._pieces else ""
        self._pieces += pending, text
        self._left -= len(pending) + len(text)
        self._pending, self._fixed = "", False
        if self._left < 0:
            raise failures.too_many_characters(self._limit)

    def separate(self, separator: str) -> None:
        """Ask for a separator before the next text; the strongest one asked for stands."""
        if not self._fixed and _STRENGTH[separator] > _STRENGTH[self._pending]:
            self._pending = separator

    def break_line(self) -> None:
        """End the line; a second break makes an empty line."""
        self.separate(PARAGRAPH if self._pending == LINE else LINE)

    def begin_row(self) -> None:
        """Start a line that no block in its first cell can push further down."""
        self._pending, self._fixed = LINE, True

    def end_cell(self) -> None:
        """Demand a tab before the next cell, whatever blocks close and open until then."""
        row_is_empty = self._fixed and self._pending == LINE
        if not row_is_empty:
            self._pending, self._fixed = CELL, True

    def end_row(self) -> None:
        """Take back the tab after the last cell."""
        self._pending, self._fixed = LINE, False

    def text(self) -> str:
        """Return all that was written."""
        return "".join(self._pieces)
