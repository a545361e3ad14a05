"""Unread records: records of a text for which an answer has no row.

Records are lines of a similar shape, such as the rows of a table, or parts of any shape if each of
the other parts has a row.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from chordwise.domain import records
from chordwise.domain.grounding import Source
from chordwise.domain.records import LINE, Span

DENSE = 5
"""The number of rows from which on a part of a text is assumed to lie within a list."""
_FEWEST_ROWS, _FEWEST_ROWS_OF_LINES = 2, 3
"""The number of rows in lines of one shape from which on the other lines count as records.

In a table it is one.
"""
_LEAST_SHARE, _LEAST_CLEAR_SHARE = 0.5, 0.75
_LEAST_LINES_BY_ROW = 0.8
_LEAST_SHARE_OF_PARTS = 0.9
_LONGEST_MARK = 5
_LINES_BETWEEN = 4
_LONGEST_ITEM = 200
_LONGEST_LINE = 300
_ITEM = re.compile(r"(?:([-*•–+])|\(?\w{1,3}([.)]))\s")
_KEY = re.compile(r"<[\w:.-]++|[^:\n]{1,40}+:(?=\s)")
_DELIMITER = re.compile(r"[,;](?!\d{3}(?!\d))")
_QUOTED = re.compile(r'"[^"\n]*+"')
_STOP = re.compile(r"[.!?] +|(?<=[]}>\[]),? *+(?=[{<])")
"""The ends of sentences, and of elements or objects on a common line."""
_CELL = re.compile(r"[|\t,;]")
_GAP = re.compile(r"(?<=[^\s.?!:]) {2,}+(?=\S)")
_NUMBER = re.compile(r"\d[\d.,]*+")
_AMOUNT = re.compile(r"[-+($€£¥−]{0,3}+\d[\d.,]*+[)%€£¥]{0,3}+")
_YEARS = re.compile(r"(?:(?:19|20)\d\d[.,]?)++")
_WORDS_OF_LABEL = re.compile(r"[^\W\d_]++")
_MAX_WORDS_OF_SUM = 3
_SUM = re.compile(
    r"(?<![^\W\d_])(?:(?:sub|grand)?-?(?:total[es]?|totaux|totaal|totalt)|sum(?:me|a|ma)?|som"
    r"|(?:end|gesamt|zwischen|brutto|netto)?(?:summe|betrag)|gesamt|montant|importe|importo"
    r"|carried|brought|(?:ü|ue)bertrag|discount|rabatt|remise|rounding"
    r"|итого|всего|разом|suma|razem|celkem|toplam)(?![^\W\d_])"
    r"|合计|合計|总计|總計|小计|小計|합계|총계|소계|المجموع|الإجمالي",
    re.IGNORECASE,
)
"""The words that name the totals of a list, at any position."""
_ADDED = re.compile(
    r"(?<![^\W\d_])(?:tax(?:es)?|vat|gst|mwst|ust|tva|iva|btw|moms|taxe|steuer"
    r"|shipping|postage|versand(?:kosten)?|porto|frais|tip"
    r"|balance|cash|change|due|paid)(?![^\W\d_])|税",
    re.IGNORECASE,
)
"""The words that name amounts added at the end of a list."""
_WORDS = re.compile(r"[^\W\d_][\w'’-]*+(?: ++[^\W\d_][\w'’-]*+)*+")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadRecords:
    """Records without a row: runs of their lines; each record has `lines_each` lines on average.

    `is_clear` is set if there are many rows, and if they are most of the records of the list.
    """

    runs: Sequence[Sequence[Span]] = ()
    lines_each: float = 1.0
    is_clear: bool = False

    @property
    def number(self) -> int:
        """The number of records."""
        return round(sum(map(len, self.runs)) / self.lines_each)

    @property
    def longest(self) -> int:
        """The number of records in the longest run."""
        return round(max(map(len, self.runs), default=0) / self.lines_each)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The lines of a text with letters or digits, and the shapes of those in answered spans."""

    source: Source
    answered: Sequence[Span] | None

    @cached_property
    def _spans(self) -> list[Span]:
        return self._moved(_lines(self.source.text))

    def _moved(self, spans: Iterable[Span]) -> list[Span]:
        """Return spans of the text as spans of its document."""
        offset = self.source.offset
        return [(start + offset, end + offset) for start, end in spans]

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """The numbers of the lines of each shape."""
        numbers: dict[str, list[int]] = {}
        for number, (start, _) in enumerate(self._spans):
            if self._is_answered(start) and (shape := _shape(self._line(number))):
                numbers.setdefault(shape, []).append(number)
        return numbers

    @cached_property
    def _borders(self) -> list[int]:
        return [border for span in self.answered or () for border in span]

    def _is_answered(self, place: int) -> bool:
        return self.answered is None or bisect_right(self._borders, place) % 2 == 1

    @cached_property
    def _shapes(self) -> dict[int, str]:
        return {number: shape for shape, own in self._numbers.items() for number in own}

    def without_row(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]] = ()
    ) -> list[UnreadRecords]:
        """Return the lines without a row that have the same shape as the lines with rows.

        Lines with rows of other lists count as lines with a row. Most rows have to be in lines of
        one shape; further shapes are used only if they are clear.
        """
        left = [own for spans in rows if (own := self._touched(spans))]
        elsewhere = {each for spans in others for each in self._touched(spans)}
        found: list[UnreadRecords] = []
        while left:
            shapes = Counter(
                shape for own in left for shape in {self._shapes[each] for each in own}
            )
            shape, count = shapes.most_common(1)[0]
            taken = {each for own in left for each in own if self._shapes[each] == shape}
            is_enough = count >= max(_fewest_rows(shape), _LEAST_SHARE * len(rows) * (not found))
            if not is_enough or len(taken) < _LEAST_LINES_BY_ROW * count:
                break
            records = self._of_shape(shape, taken, count, elsewhere - taken)
            if not found or records.is_clear:
                found.append(records)
            left = [own for own in left if taken.isdisjoint(own)]
        return found or self._of_parts(rows, others)

    @cached_property
    def _divisions(self) -> tuple[list[Span], list[Span]]:
        """The parts into which the text is divided at records, and its lines."""
        text = self.source.text
        cut = itertools.pairwise([0, *records.divide(text).ends])
        lines = (line.span() for line in LINE.finditer(text))
        full = ([(start, text[start:end].rstrip()) for start, end in each] for each in (cut, lines))
        cuts, whole_lines = (
            self._moved((start, start + len(own) + 1) for start, own in each if own)
            for each in full
        )
        return cuts, whole_lines

    def _of_parts(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Return the parts of a text without a row between parts of any shape that have one each.

        Half of the parts need a row if many consecutive parts have none, or if most rows begin
        their parts and are distinct (names of speakers are not); otherwise nearly all need one,
        because in prose values are scattered.
        """
        for division in self._divisions:
            parts = [each for each in division if self._is_answered(each[0])]
            alone = [own for spans in rows if len(own := _touched(parts, spans)) == 1]
            taken, elsewhere = (
                {each for own in several for each in own}
                for several in (alone, [_touched(parts, spans) for spans in others])
            )
            if len(taken) < max(DENSE, _LEAST_CLEAR_SHARE * len(rows)):
                continue
            left = _left(parts, taken, elsewhere)
            number = sum(map(len, left))
            share = len(taken) / (len(taken) + number)
            are_long = min(number, len(taken)) >= DENSE * len(left)
            is_beside = number == 1 and left[0][0][0] in {end for _, end in parts}
            first = self._first_in(parts, taken, rows)
            is_each = len(first) >= _LEAST_SHARE_OF_PARTS * len(taken)
            are_distinct = len({*first}) >= _LEAST_SHARE * len(taken)
            are_listed = are_long or (is_each and are_distinct)
            of_others = _LEAST_CLEAR_SHARE if is_beside else _LEAST_SHARE_OF_PARTS
            if share >= (_LEAST_SHARE if are_listed else of_others):
                return [UnreadRecords(runs=left, is_clear=True)]
        return []

    def _first_in(
        self, parts: Sequence[Span], taken: Collection[int], rows: Sequence[Sequence[Span]]
    ) -> list[str]:
        """Return the values of rows that begin a taken part, after a mark such as a bullet."""
        ends = {start: end for spans in rows for start, end in spans}
        places = (
            (start, ends[start])
            for each in taken
            for start in range(parts[each][0], parts[each][0] + _LONGEST_MARK)
            if start in ends
        )
        offset = self.source.offset
        return [self.source.text[start - offset : end - offset] for start, end in places]

    def _of_shape(
        self, shape: str, taken: set[int], count: int, elsewhere: set[int]
    ) -> UnreadRecords:
        """Return the records of a shape; the lines `taken` belong to `count` rows."""
        cells = min(_filled_cells(self._line(each)) for each in taken)
        lines = [
            each
            for each in self._numbers[shape]
            if each not in elsewhere
            if each in taken or _filled_cells(self._line(each)) >= cells
        ]
        blocks = list(_blocks(lines, sorted(taken)))
        headers = {self._line(block[0]).strip() for block in blocks if _is_table(shape)}
        runs = [
            left
            for block in blocks
            for last in [max(taken.intersection(block))]
            for is_taken, run in itertools.groupby(block, taken.__contains__)
            if not is_taken
            and (left := [each for each in run if self._is_record(each, headers, last)])
        ]
        is_named = _is_table(shape) or shape.startswith(_NAMED)
        share = len(taken) / (len(taken) + sum(map(len, runs)))
        return UnreadRecords(
            runs=[[self._spans[each] for each in run] for run in runs],
            lines_each=max(1.0, len(taken) / count),
            is_clear=count >= _FEWEST_ROWS_OF_LINES
            and share >= (_LEAST_SHARE if is_named else _LEAST_CLEAR_SHARE),
        )

    def _is_amid(self, number: int) -> bool:
        """Return whether the lines directly above and below a line have the same shape."""
        around = self._spans[max(0, number - 1) : number + 2]
        shapes = {self._shapes.get(each) for each in range(number - 1, number + 2)}
        return len(shapes) == 1 and all(
            one[1] == other[0] for one, other in itertools.pairwise(around)
        )

    def _is_record(self, number: int, headers: Collection[str], last: int) -> bool:
        """Return whether a line is a record and not a table header, a total or an added amount.

        Up to the `last` line with a row, no line is an added amount. A name on a separate line is a
        record only between other names; otherwise it is a title or a signature.
        """
        if self._shapes[number] == _LINE_OF_NAMES and not self._is_amid(number):
            return False
        line = self._line(number).strip()
        is_header = line in headers and all(map(_YEARS.fullmatch, _NUMBER.findall(line)))
        label = _NUMBER.split(line, maxsplit=1)[0]
        is_sum = _SUM.search(label) or (number > last and _ADDED.search(label))
        is_short = len(_WORDS_OF_LABEL.findall(label)) <= _MAX_WORDS_OF_SUM
        return not (is_header or (is_sum and is_short))

    def _touched(self, spans: Sequence[Span]) -> set[int]:
        """Return the numbers of the lines with a shape that overlap spans."""
        return _touched(self._spans, spans) & self._shapes.keys()

    def _line(self, number: int) -> str:
        start, end = (place - self.source.offset for place in self._spans[number])
        return self.source.text[start:end]


def _touched(parts: Sequence[Span], spans: Sequence[Span]) -> set[int]:
    """Return the numbers of the parts, in ascending order, that overlap spans."""
    found: set[int] = set()
    for start, end in spans:
        number = bisect_right(parts, start, key=itemgetter(1))
        while number < len(parts) and parts[number][0] < end:
            found.add(number)
            number += 1
    return found


def _left(
    parts: Sequence[Span], taken: Collection[int], elsewhere: Collection[int]
) -> list[list[Span]]:
    """Return the runs of parts that are not taken, between the first and the last taken part.

    Parts that follow the last one without a blank line are included. Parts that are much larger or
    smaller than the taken ones, and those of rows elsewhere, are excluded.
    """
    sizes = [end - start for start, end in parts]
    min_size, max_size = min(sizes[each] for each in taken), max(sizes[each] for each in taken)
    end = max(taken) + 1
    while end < len(parts) and parts[end][0] == parts[end - 1][1]:
        end += 1
    own = [
        each
        for each in range(min(taken), end)
        if each in taken or (each not in elsewhere and min_size <= 2 * sizes[each] <= 4 * max_size)
    ]
    grouped = itertools.groupby(own, taken.__contains__)
    return [[parts[each] for each in run] for is_taken, run in grouped if not is_taken]


def _lines(text: str) -> Iterator[Span]:
    """Yield the lines with letters or digits; long ones are split at sentences or objects."""
    for line in LINE.finditer(text):
        start, end = line.span()
        is_whole = end - start <= _LONGEST_LINE or _is_row(line[0])
        stops = () if is_whole else _STOP.finditer(text, start, end)
        for own_start, own_end in itertools.pairwise([start, *(stop.end() for stop in stops), end]):
            if any(map(str.isalnum, text[own_start:own_end])):
                yield own_start, own_end


def _filled_cells(line: str) -> int:
    """Return the number of non-empty cells of a row; a row with a total has fewer than others."""
    return sum(1 for cell in _CELL.split(line) if cell.strip())


def _is_row(line: str) -> bool:
    """Return whether a long line is a table row and not elements or objects on one line."""
    return _is_table(_shape(line)) and not line.lstrip().startswith(("{", "[", "<"))


def _is_table(shape: str) -> bool:
    return shape.startswith(("|", "\t", ",", "columns"))


def _fewest_rows(shape: str) -> int:
    if _is_table(shape):
        return 1
    is_line = shape.startswith((_LINE_OF_NAMES, _NAMED))
    return _FEWEST_ROWS_OF_LINES if is_line else _FEWEST_ROWS


def _blocks(numbers: Sequence[int], taken: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield groups of nearby lines of one shape that contain taken lines.

    A record may have several lines. Within a group, lines are at most as far apart as taken lines
    plus a few lines for a heading; next to a single taken line they have to be adjacent.
    """
    distances = [after - before for before, after in itertools.pairwise(taken)]
    most = min(distances) + _LINES_BETWEEN if distances else 1
    borders = [
        place
        for place, (before, after) in enumerate(itertools.pairwise(numbers), start=1)
        if after - before > most
    ]
    for start, end in itertools.pairwise([0, *borders, len(numbers)]):
        first = bisect_left(taken, numbers[start])
        if first < len(taken) and taken[first] <= numbers[end - 1]:
            yield numbers[start:end]


_LINE_OF_WORDS, _LINE_OF_NAMES, _NAMED = "words ", "words", "name "
_MAX_WORDS_OF_NAME, _LONGEST_NAME = 5, 50


def _shape(line: str) -> str:
    """Return the shape that lines of the same list share; empty if a line has none.

    The shape is the number of cells in a table row, the mark of a list item, the name before a
    value, the number of amounts at the end of a line, or the sequence of words and numbers.
    """
    own = line.rstrip("\r\n")
    has_number = _NUMBER.search(own) is not None
    for mark, least in (("|", 2), ("\t", 1)):
        if (count := own.count(mark)) >= least:
            return f"{mark} {count} {has_number}"
    own = own.strip()
    if (item := _ITEM.match(own)) and len(own) <= _LONGEST_ITEM:
        return f"{_LINE_OF_WORDS}{item[1] or item[2]} {len(line) - len(line.lstrip())} {has_number}"
    if key := _KEY.match(own):
        return f"{_NAMED}{_NUMBER.sub('0', key[0]).casefold()}"
    bare = _QUOTED.sub("", own)
    if _DELIMITER.search(bare) and not any(f"{mark} " in bare for mark in ",;"):
        return f", {bare.count(',')} {bare.count(';')} {has_number}"
    if gaps := len(_GAP.findall(own)):
        return f"columns {gaps} {has_number}"
    words = reversed(own.split())
    amounts = sum(1 for _ in itertools.takewhile(_AMOUNT.fullmatch, words))
    if amounts >= _FEWEST_ROWS:
        return f"amounts {amounts}"
    return _shape_of_words(own, has_number=has_number)


def _shape_of_words(line: str, *, has_number: bool) -> str:
    """Return the sequence of words and numbers; without numbers, whether the line is a name."""
    if has_number:
        return _LINE_OF_WORDS + _NUMBER.sub("0", _WORDS.sub("a", line))
    is_short = len(line.split()) <= _MAX_WORDS_OF_NAME and len(line) <= _LONGEST_NAME
    is_name = is_short and not line[:1].islower() and line[-1:].isalnum()
    return _LINE_OF_NAMES if is_name else ""
