"""Layout in a text that does not belong to its wording, and the text without it.

Layout means Markdown markup, the `>` of quoted mail, hyphens at line ends, footnote marks, link
targets, and the headers, footers and numbers of pages.
"""

from __future__ import annotations

import html
import itertools
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from chordwise.domain.words import denies

Place = tuple[int, int]
"""Start and end in a text, the end exclusive."""


@dataclass(frozen=True)
class Plain:
    """A text without layout, and the origins of its characters.

    `parted` holds the letters before and after each removed hyphen at a line end, in lower case.
    `compound` holds those around hyphens that are kept, since the text also has them within lines.
    A quote may have either with or without the hyphen.
    """

    text: str
    parted: frozenset[tuple[str, str]] = frozenset()
    compound: frozenset[tuple[str, str]] = frozenset()
    before: Plain | None = None
    starts: array[int] = field(default_factory=lambda: array("q", [0]))
    origins: array[int] = field(default_factory=lambda: array("q", [0]))

    def origin(self, start: int, end: int) -> Place:
        """Return the span in the original text of a non-empty span of this text."""
        place = self._origin(start), self._origin(end - 1) + 1
        return self.before.origin(*place) if self.before else place

    def _origin(self, place: int) -> int:
        piece = bisect_right(self.starts, place) - 1
        return self.origins[piece] + place - self.starts[piece]

    def without(self, cuts: Iterable[Place], signs: Mapping[Place, str] | None = None) -> Plain:
        """Return the text without the given spans, which may overlap; `signs` replaces some."""
        pieces: list[str] = []
        starts, origins = array("q"), array("q")
        length = place = 0
        signs = signs or {}
        for start, end in [*sorted([*cuts, *signs]), (len(self.text), len(self.text))]:
            parts = [(place, self.text[place:start])]
            if start >= place and (start, end) in signs:
                parts.append((end - 1, signs[start, end]))
            for origin, piece in parts:
                if piece:
                    pieces.append(piece)
                    starts.append(length)
                    origins.append(origin)
                    length += len(piece)
            place = max(place, end)
        if length == len(self.text) and not signs:
            return self
        return Plain("".join(pieces), before=self, starts=starts, origins=origins)


def without_markup(text: str) -> Plain:
    """Return a text without markup, the marks of quoted mail, and hyphens at line ends.

    No letter or digit is removed; HTML entities are replaced by their characters.
    """
    plain = Plain(text)
    return _without_marks(plain.without(_mail_prefixes(text), _signs(text)))


def without_insertions(text: str) -> Plain:
    """Return a text without markup, footnote marks, link targets, and page furniture."""
    plain = Plain(text)
    insertions = (match.span() for match in _beginning_with(_SIGN_OF_INSERTION, _INSERTION, text))
    cuts = [*_mail_prefixes(text), *insertions, *_Pages(text).furniture()]
    return _without_marks(plain.without(cuts, _signs(text)))


# Mark-up

_CASED = "0-9A-Za-z\u00c0-\u024f\u0370-\u052f"
_HYPHENS = "-\u2010\u2011\u00ad"
_LINE_MARK = re.compile(
    r"[ \t]*+([-=_*])(?:[ \t]*+\1){2,}+[ \t]*+$"  # a rule
    r"|[ \t]*+\#{1,6}[ \t]++"  # a heading
    r"|[ \t]*+[-*+\u2022][ \t]++(?=[*_`\"'\u201c\[(]{0,4}[^\W\d_])",  # an item; - 5 is a number
    re.MULTILINE,
)
_MARK = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])"
    # Marks of emphasis and code are at the edge of a word; 5*3 and snake_case have none.
    rf"|(?<![*_`{_CASED}])[*_`]{{1,3}}+(?![*_`\s])|(?<![*_`\s])[*_`]{{1,3}}+(?![*_`{_CASED}])"
    rf"|(?P<hyphen>(?<=[^\W\d_])[{_HYPHENS}][ \t]*+\n\s*+(?=[^\W\d_]))"
    rf"|(?<=\w[{_HYPHENS}])\n\s*+(?=\w)"
)
_LINE_END = re.compile(r"\n")
_SIGN_OF_MARK = re.compile(rf"[{_HYPHENS}\\*_`\n]")
_DELIMITERS = re.compile(r"\|?[ \t]*+:?-[ \t|:-]*+")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_LETTERS = re.compile(r"[^\W\d_]+")
_LONGEST_PART = 40
_HYPHEN = re.compile(rf"(?<=[^\W\d_])[{_HYPHENS}](?=[^\W\d_])")
_MAIL_PREFIX = re.compile(r"^[ \t]*+(?:>[ \t]*+)++", re.MULTILINE)


def _not_after(words: Iterable[str]) -> str:
    return "".join(f"(?<!{re.escape(word)})" for word in words)


_OF_NUMBERS = re.compile(r"[\d$€£¥₹.,=+(\u2212-]")
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_AFTER = r".,;:!?\"'\u201d\u2019)"
_ADDRESS = r"[^()\s]*+(?:\([^()\s]*+\)[^()\s]*+)?(?:[ \t]++\"[^\"\n]{0,200}\")?\)"
_LENGTHS = "metres meters metre meter feet foot inches inch yards miles Meter Metern"
_NO_POWER = rf"(?:(?![\u00b2\u00b3](?![{_SUPERSCRIPTS}]))|{_not_after(_LENGTHS.split())})"
_NUMBERED = "no nr art sec fig abs para vol tab cl ch ziff rev ver app bd lit rn pp ex cf pt st"
_NO_NUMBER = _not_after(f"{form}." for word in _NUMBERED.split() for form in (word, word.title()))
_SIGN_OF_INSERTION = re.compile(rf"[\[\]!\d\u2020\u2021{_SUPERSCRIPTS}]")
_INSERTION = re.compile(
    rf"(?<=[\w{_AFTER}\]%])\[(?:\d{{1,3}}|\^\w{{1,20}})\](?![\w(])"
    # 5 metres² and 10² are quantities, and so may be anything that follows a digit.
    rf"|(?:(?<=[^\W\d_]{{3}}[{_AFTER}])|(?<=[^\W\d_][.,;:!?)][\"'\u201d\u2019]))[{_SUPERSCRIPTS}]{{1,3}}+(?!\w)"
    rf"|(?=[{_SUPERSCRIPTS}])(?<=[^\W\d_]{{3}}){_NO_POWER}[{_SUPERSCRIPTS}]{{1,3}}+(?!\w)"
    # Plain digits, such as superscripts in a PDF.
    rf"|(?=\d)(?:(?<=[a-z]{{4}})\d{{1,2}}(?=[.,;:!?)]++(?:\s|$)|\s++[\"'\u201c(]?[^\W\d_]|$)"
    rf"|(?<=[^\W\d_]{{2}}[.!?]){_NO_NUMBER}\d{{1,2}}(?=\s++(?:[\"'\u201c(]?[A-Z]|$)|$)"
    r"|(?<=[a-z]{4},)\d{1,2}(?= [a-z]))"
    r"|(?<=[^\W_])[\u2020\u2021]++"
    r"|!?+\[(?=[^\[\]]{1,500}\]\([^()\s]*[/#:@])"
    rf"|\]\((?=[^()\s]*[/#:@]){_ADDRESS}"
)


def _signs(text: str) -> dict[Place, str]:
    signs = {}
    for row in _LINE.finditer(text) if "|" in text else ():
        start, line = row.start(), row[0].rstrip()
        is_row = line.startswith("|") and line.endswith("|")
        if is_row and _DELIMITERS.fullmatch(line):
            signs[row.span()] = " "
        elif is_row or line.count(" | ") > 1:
            places = (start + place for place, char in enumerate(line) if char == "|")
            signs |= {(place, place + 1): " " for place in places}
    for entity in _ENTITY.finditer(text) if "&" in text else ():
        sign = html.unescape(entity[0])
        if len(sign) == 1:
            signs[entity.span()] = sign
    return signs


def _without_marks(plain: Plain) -> Plain:
    """Remove markup; keep a hyphen at a line end if the word also has it within a line."""
    text = plain.text
    marks = list(_beginning_with(_SIGN_OF_MARK, _MARK, text))
    parted = {_around(text, *match.span()) for match in marks if match["hyphen"]}
    within = (match.span() for match in (_HYPHEN.finditer(text) if parted else ()))
    compound = parted & {_around(text, *place) for place in within}
    parted -= compound
    line_starts = (0, *(end.end() for end in _LINE_END.finditer(text)))
    of_lines = (_LINE_MARK.match(text, start) for start in line_starts)
    cuts = [match.span() for match in of_lines if match]
    for match in marks:
        start, end = match.span()
        stays = match["hyphen"] and _around(text, start, end) not in parted
        cuts.append((start + 1 if stays else start, end))
    bare = plain.without(cuts)
    return replace(bare, parted=frozenset(parted), compound=frozenset(compound))


def _beginning_with(
    sign: re.Pattern[str], pattern: re.Pattern[str], text: str
) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern that begins with a sign; rare signs make this fast."""
    end = 0
    for place in sign.finditer(text):
        if place.start() >= end and (match := pattern.match(text, place.start())):
            end = match.end()
            yield match


def respelled(quote: str, plain: Plain) -> str:
    """Return a quote with the hyphenation that the text has in words split at a line end."""
    joined = {before + after: len(before) for before, after in plain.compound}

    def hyphenated(match: re.Match[str]) -> str:
        cut = joined.get(match[0].lower(), 0)
        return f"{match[0][:cut]}-{match[0][cut:]}" if cut else match[0]

    whole = _LETTERS.sub(hyphenated, quote) if joined else quote
    hyphens = (match.span() for match in (_HYPHEN.finditer(whole) if plain.parted else ()))
    cuts = (place for place in hyphens if _around(whole, *place) in plain.parted)
    return Plain(whole).without(cuts).text


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    before = _LETTERS.match(text[max(0, start - _LONGEST_PART) : start][::-1])
    after = _LETTERS.match(text[end : end + _LONGEST_PART])
    return (before[0][::-1] if before else "").lower(), (after[0] if after else "").lower()


def _mail_prefixes(text: str) -> Iterator[Place]:
    """Yield the marks of quoted mail; a single “> 5 %” is a comparison."""
    prefixes = [match.span() for match in _MAIL_PREFIX.finditer(text)]
    follows = False
    for (start, end), (following, _) in itertools.pairwise([*prefixes, (-1, -1)]):
        is_followed = text.find("\n", end) + 1 == following
        if follows or is_followed or not _OF_NUMBERS.match(text, end):
            yield start, end
        follows = is_followed


# Pages

_LINE = re.compile(r"\S[^\n\f]*+")
_PAGE_NUMBER = re.compile(
    r"(?:page[ \t]++\d{1,4}(?:[ \t]++of[ \t]++\d{1,4})?|-[ \t]*+\d{1,4}[ \t]*+-"
    r"|\d{1,4}(?:[ \t]++of[ \t]++\d{1,4})?|[a-z]{1,2}-\d{1,3})\s*+",
    re.IGNORECASE,
)
_NUMBER_AT_END = re.compile(r"(?<=[ \t]{2})(?:-[ \t]?)?(\d{1,4})(?:[ \t]?-)?(?=[ \t]*+$)")
_NUMBER = re.compile(r"\d++")
_PARTED = re.compile(rf"[^\W\d_]{{2}}[{_HYPHENS}][ \t]*+$")
_LINES_OF_A_BREAK = 4
_LINES_BESIDE_IT = 3
_PAGE_LINE_CHARACTERS = range(6, 151)
_PAGE_CHARACTERS = range(500, 20_001)


class _Pages:
    """The page breaks of a text, and the lines beside them that do not belong to its sentences.

    A break is a form feed, several blank lines, or a page number. A line beside a break is
    furniture if it is a page number, or if it is repeated beside another break, ignoring numbers.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [match.span() for match in _LINE.finditer(text)]

    def furniture(self) -> Iterator[Place]:
        for above, below in self._breaks:
            gone = list(itertools.takewhile(self._is_furniture, above))
            gone_below = itertools.takewhile(self._is_furniture, below)
            yield from (self._lines[number] for number in (*gone, *gone_below))
            if len(gone) < len(above) and (page_number := self._number_at_end(above[len(gone)])):
                place, page = page_number
                if self._is_in_series(page, place[0]):
                    yield place

    @cached_property
    def _breaks(self) -> list[tuple[range, range]]:
        """The lines above each break, the nearest first, and those below."""
        numbered = [
            number
            for number, page in self._page_numbers.items()
            if not self._line(number)[0].isdigit()
            or self._parts_word(number)
            or self._is_in_series(page, self._lines[number][0])
        ]
        return [*map(self._around, self._gaps), *(self._around(number) for number in numbered)]

    def _around(self, above: int) -> tuple[range, range]:
        last = min(len(self._lines), above + 1 + _LINES_BESIDE_IT)
        return range(above, max(-1, above - _LINES_BESIDE_IT), -1), range(above + 1, last)

    @cached_property
    def _gaps(self) -> list[int]:
        return [
            number
            for number, ((_, end), (start, _)) in enumerate(itertools.pairwise(self._lines))
            if self._text.count("\n", end, start) >= _LINES_OF_A_BREAK
            or self._text.find("\f", end, start) >= 0
        ]

    @cached_property
    def _page_numbers(self) -> dict[int, int]:
        pages = {}
        for number in range(len(self._lines)):
            line = self._line(number)
            if _PAGE_NUMBER.fullmatch(line) and (page := _NUMBER.search(line)):
                pages[number] = int(page[0])
        return pages

    def _line(self, number: int) -> str:
        return self._text[slice(*self._lines[number])]

    def _parts_word(self, number: int) -> bool:
        if not 0 < number < len(self._lines) - 1:
            return False
        before, after = self._line(number - 1), self._line(number + 1)
        return after[0].islower() and _PARTED.search(before) is not None

    def _is_furniture(self, number: int) -> bool:
        return number in self._page_numbers or self._repeated[self._masked(number)] > 1

    @cached_property
    def _repeated(self) -> Counter[str]:
        last = len(self._lines)
        sides = {number for pair in self._breaks for lines in pair for number in lines}
        sides |= {*range(_LINES_BESIDE_IT), *range(last - _LINES_BESIDE_IT, last)} & {*range(last)}
        counts = Counter(self._masked(number) for number in sides)
        counts[""] = 0
        return counts

    def _masked(self, number: int) -> str:
        """Return a line with its numbers masked; empty if it cannot be a header or footer."""
        start, end = self._lines[number]
        line = self._text[start:end].strip() if end - start in _PAGE_LINE_CHARACTERS else ""
        return "" if denies(line) else _NUMBER.sub("0", line)

    def _number_at_end(self, number: int) -> tuple[Place, int] | None:
        start, end = self._lines[number]
        match = _NUMBER_AT_END.search(self._text, max(start, end - 40), end)
        return (match.span(), int(match[1])) if match else None

    def _is_in_series(self, page: int, place: int) -> bool:
        """Return whether two other numbers, one or two pages away, continue this one."""
        before, after, second_before, second_after = (
            self._has(page + step, place, step) for step in (-1, 1, -2, 2)
        )
        return (before and (after or second_before)) or (after and second_after)

    def _has(self, page: int, place: int, steps: int) -> bool:
        places = self._places.get(page, [])
        near = sorted(place + steps * size for size in (_PAGE_CHARACTERS[0], _PAGE_CHARACTERS[-1]))
        return bisect_left(places, near[0]) < bisect_right(places, near[1])

    @cached_property
    def _places(self) -> dict[int, list[int]]:
        above = {number for gap in self._gaps for number in self._around(gap)[0]}
        ends = map(self._number_at_end, above)
        pairs = [(place[0], page) for place, page in filter(None, ends)]
        pairs += [(self._lines[number][0], page) for number, page in self._page_numbers.items()]
        places = defaultdict(list)
        for place, page in sorted(pairs):
            places[page].append(place)
        return places
