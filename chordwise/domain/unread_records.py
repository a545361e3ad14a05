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
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from operator import itemgetter

from chordwise.domain import quantities, records
from chordwise.domain.grounding import Source
from chordwise.domain.records import LINE, Span

DENSE = 5
"""The number of rows from which on a part of a text is assumed to lie within a list."""
_FEWEST_ROWS, _FEWEST_ROWS_OF_LINES = 2, 3
"""The number of rows in lines of one shape from which on the other lines count as records.

In a table it is one; lines of words and names before values need three unless they are clear.
"""
_LEAST_SHARE, _LEAST_CLEAR_SHARE = 0.5, 0.75
_LEAST_LINES_BY_ROW = 0.8
_LEAST_SHARE_OF_PARTS = 0.9
_LONGEST_MARK = 5
_LINES_BETWEEN = 4
_LONGEST_ITEM = 200
_LONGEST_LINE = 300
_ITEM = re.compile(r"(?:([-*•–+]|#{1,6}+)|\(?\w{1,3}([.)]))\s|\"[^\"\n]*+\",?$")
_KEY = re.compile(r"<[\w:.-]++|[^:\uff1a\n]{1,40}+(?:\uff1a|:(?=[*_]{0,3}+\s))")
_REPEATED = re.compile(r"([^\w\s])\1++")
_DELIMITER = re.compile(r"[,;](?!\d{3}(?!\d))")
_QUOTED = re.compile(r'"[^"]*+"')
_STOP = re.compile(r"[.!?] +|(?<=[]}>\[]),? *+(?=[{<])")
"""The ends of sentences, and of elements or objects on a common line."""
_CELL = re.compile(r"[|\t,;]")
_GAP = re.compile(r"(?<=[^\s.?!:]) {2,}+(?=\S)|(?<![. ]) ?(?:\. ?){4,}+(?=\S)")
_NUMBER = re.compile(r"\d[\d.,]*+")
_AMOUNT = re.compile(r"[-+($€£¥−]{0,3}+\d[\d.,]*+[)%€£¥]{0,3}+")
_YEARS = re.compile(r"(?:(?:19|20)\d\d[.,]?)++")
_WORDS_OF_LABEL = re.compile(r"[^\W\d_]++")
_MAX_WORDS_OF_SUM = 3
_SUM = re.compile(
    r"(?<![^\W\d_])(?:(?:sub|grand)?-?(?:total[es]?|totaux|totaal|totalt)|sum(?:me|a|ma)?|som"
    r"|(?:end|gesamt|zwischen|brutto|netto)?(?:summe|betrag)|gesamt|montant|importe|importo"
    r"|итого|всего|разом|suma|razem|celkem|toplam)(?![^\W\d_])"
    r"|合计|合計|总计|總計|小计|小計|합계|총계|소계|المجموع|الإجمالي",
    re.IGNORECASE,
)
"""The words that name the totals of a list, at any position."""
_REDUCED = re.compile(
    r"(?<![^\W\d_])(?:carried|brought|(?:ü|ue)bertrag|discount|rabatt|remise|rounding)(?![^\W\d_])",
    re.IGNORECASE,
)
"""The words that name sums of other pages and reductions, at any position."""
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
    """The lines of a text with letters or digits, and the shapes of those in answered spans.

    With `is_coarse`, the name before a value is not part of the shape if the value has a number.
    """

    source: Source
    answered: Sequence[Span] | None
    is_coarse: bool = False

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
            line = self._line(number)
            shape = _shape(line) if self._is_answered(start) else ""
            if shape := _coarse(shape, line) if self.is_coarse else shape:
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
        """Return the lines without a row that look like the lines with rows, or equal one.

        Lines with rows of other lists count as lines with a row.
        """
        equal = [] if self.is_coarse else self._equal_lines(rows, others)
        found = self._of_forms(rows, [*others, *equal])
        return [*found, UnreadRecords(runs=equal, is_clear=True)] if equal else found

    def _equal_lines(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[list[Span]]:
        """Return the runs of lines that equal the only line of a row, next to a line with a row."""
        touched = [self._touched(spans) for spans in rows]
        taken, elsewhere = {*itertools.chain(*touched)}, self._touched([*itertools.chain(*others)])
        known = {self._stripped(each) for own in touched if len(own) == 1 for each in own}
        left = self._shapes.keys() - elsewhere - taken
        equal = {each for each in left if self._stripped(each) in known}
        runs = itertools.groupby(sorted(self._shapes), equal.__contains__)
        found = (list(run) for is_equal, run in runs if is_equal)
        beside = (run for run in found if not taken.isdisjoint((run[0] - 1, run[-1] + 1)))
        return [[self._spans[each] for each in run] for run in beside]

    def _of_forms(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Return the lines without a row that have the same shape as the lines with rows.

        Most rows have to be in lines of one shape; further shapes are used only if they are clear.
        Without such a shape, names before values of one shape are used if they are clear, and
        otherwise parts of any shape.
        """
        found = self._of_shapes(rows, others)
        if found or self.is_coarse:
            return found
        if any(map(_is_named, self._numbers)):
            coarse = replace(self, is_coarse=True).without_row(rows, others)
            if found := [each for each in coarse if each.is_clear]:
                return found
        return self._of_parts(rows, others)

    def _of_shapes(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        left = [own for spans in rows if (own := self._touched(spans))]
        elsewhere = {each for spans in others for each in self._touched(spans)}
        found: list[UnreadRecords] = []
        while left:
            shapes = Counter(
                shape for own in left for shape in {self._shapes[each] for each in own}
            )
            shape, count = shapes.most_common(1)[0]
            taken = {each for own in left for each in own if self._shapes[each] == shape}
            fewest = 1 if _is_table(shape) else _FEWEST_ROWS
            is_enough = count >= max(fewest, _LEAST_SHARE * len(rows) * (not found))
            if not is_enough or len(taken) < _LEAST_LINES_BY_ROW * count:
                break
            records = self._of_shape(shape, taken, count, elsewhere - taken)
            if _is_line(shape) and count < _FEWEST_ROWS_OF_LINES and not records.is_clear:
                break
            if records.runs or not (found or _may_be_outside_list(shape)):
                found += [records] if not found or records.is_clear else []
            left = [own for own in left if taken.isdisjoint(own)]
        return found

    @cached_property
    def _cuts(self) -> list[Span]:
        """The parts into which the text is divided at records."""
        text = self.source.text
        return self._without_blanks(itertools.pairwise([0, *records.divide(text).ends]))

    @cached_property
    def _whole_lines(self) -> list[Span]:
        """The lines of the text that are no names; names are compared by their shape."""
        text = self.source.text
        lines = (line.span() for line in LINE.finditer(text))
        return self._without_blanks(
            (start, end) for start, end in lines if _shape(text[start:end]) != _LINE_OF_NAMES
        )

    def _without_blanks(self, spans: Iterable[Span]) -> list[Span]:
        """Return spans of the text without the white space at their ends, except one character."""
        full = ((start, self.source.text[start:end].rstrip()) for start, end in spans)
        return self._moved((start, start + len(own) + 1) for start, own in full if own)

    def _of_parts(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Return the parts of a text without a row between parts of any shape that have one each.

        Half of the parts need a row if many consecutive parts have none, or if most rows begin
        their parts and are distinct (names of speakers are not); otherwise nearly all need one,
        because in prose values are scattered.
        """
        for division in (self._cuts, self._whole_lines):
            parts = [each for each in division if self._is_answered(each[0])]
            alone = [own for spans in rows if len(own := _touched(parts, spans)) == 1]
            taken, elsewhere = (
                {each for own in several for each in own}
                for several in (alone, [_touched(parts, spans) for spans in others])
            )
            if len(taken) < max(DENSE, _LEAST_CLEAR_SHARE * len(rows)):
                continue
            begin = self._begin_parts(rows, parts, taken)
            end = self._end_of_list(parts, taken, are_outside=begin and division is self._cuts)
            left = _left(parts[:end], taken, elsewhere)
            number = sum(map(len, left))
            share = len(taken) / (len(taken) + number)
            are_long = min(number, len(taken)) >= DENSE * len(left)
            is_beside = number == 1 and left[0][0][0] in {end for _, end in parts}
            are_listed = are_long or begin
            of_others = _LEAST_CLEAR_SHARE if is_beside else _LEAST_SHARE_OF_PARTS
            if share >= (_LEAST_SHARE if are_listed else of_others):
                return [UnreadRecords(runs=left, is_clear=True)]
        return []

    def _end_of_list(
        self, parts: Sequence[Span], taken: Collection[int], *, are_outside: bool
    ) -> int:
        """Return the number of parts up to the end of the list.

        Further parts belong to it if they begin and end like taken ones and follow without a blank
        line. With `are_outside`, several may also follow after one.
        """
        forms = {self._form(parts[each]) for each in taken}
        start = max(taken) + 1
        own = list(itertools.takewhile(lambda each: self._form(each) in forms, parts[start:]))
        if are_outside and len(own) >= DENSE:
            return start + len(own)
        lasts = itertools.pairwise([parts[start - 1], *own])
        return start + sum(
            1 for _ in itertools.takewhile(lambda each: each[0][1] == each[1][0], lasts)
        )

    def _form(self, part: Span) -> tuple[str, str, int]:
        """Return the kinds of the first and last character of a part, and its number of lines."""
        start, end = (place - self.source.offset for place in part)
        text = self.source.text[start:end].strip()
        return _kind_of(text[:1]), _kind_of(text[-1:]), text.count("\n")

    def _begin_parts(
        self, rows: Sequence[Sequence[Span]], parts: Sequence[Span], taken: Collection[int]
    ) -> bool:
        """Return whether most rows begin their parts, after a mark, and are distinct."""
        ends = {start: end for spans in rows for start, end in spans}
        places = (
            (start, ends[start])
            for each in taken
            for start in range(parts[each][0], parts[each][0] + _LONGEST_MARK)
            if start in ends
        )
        offset = self.source.offset
        first = [self.source.text[start - offset : end - offset] for start, end in places]
        is_each = len(first) >= _LEAST_SHARE_OF_PARTS * len(taken)
        return is_each and len({*first}) >= _LEAST_SHARE * len(taken)

    def _of_shape(
        self, shape: str, taken: set[int], count: int, elsewhere: set[int]
    ) -> UnreadRecords:
        """Return the records of a shape; the lines `taken` belong to `count` rows."""
        lines = [each for each in self._filled(shape, taken) if each not in elsewhere]
        blocks = list(_blocks(lines, sorted(taken)))
        headers = {self._line(block[0]).strip() for block in blocks if _is_table(shape)}
        runs = [
            left
            for block in blocks
            for own in [sorted(taken.intersection(block))]
            for is_taken, run in itertools.groupby(block, taken.__contains__)
            if not is_taken
            and (left := [each for each in run if self._is_record(each, headers, own)])
            and (
                own[0] < left[0] < own[-1]
                or len(left) >= DENSE
                or not self._is_outside_list(left[0])
            )
        ]
        is_named = (
            _is_table(shape)
            or _is_named(shape)
            or self._are_names([*taken, *itertools.chain(*runs)])
        )
        is_enough = count >= _FEWEST_ROWS_OF_LINES or (
            is_named and count >= _FEWEST_ROWS and self._are_uniform(blocks, taken, runs)
        )
        share = len(taken) / (len(taken) + sum(map(len, runs)))
        return UnreadRecords(
            runs=[[self._spans[each] for each in run] for run in runs],
            lines_each=max(1.0, len(taken) / count),
            is_clear=is_enough and share >= (_LEAST_SHARE if is_named else _LEAST_CLEAR_SHARE),
        )

    def _filled(self, shape: str, taken: Collection[int]) -> Iterator[int]:
        """Yield the lines with as many filled cells as taken ones, between them one cell less."""
        cells = min(_filled_cells(self._line(each)) for each in taken)
        first, last = min(taken), max(taken)
        for each in self._numbers[shape]:
            least = min(cells, max(2, cells - (first < each < last)))
            if each in taken or _filled_cells(self._line(each)) >= least:
                yield each

    def _are_names(self, numbers: Sequence[int]) -> bool:
        """Return whether lines are list items that consist of a short name."""
        lines = [self._stripped(each) for each in numbers]
        return all(
            _ITEM.match(line) and len(line.split()) <= 1 + _MAX_WORDS_OF_NAME for line in lines
        )

    def _are_uniform(
        self,
        blocks: Sequence[Sequence[int]],
        taken: Collection[int],
        runs: Sequence[Sequence[int]],
    ) -> bool:
        """Return whether the records of each block are equally far apart and of one `_kind`."""
        left = {each for run in runs for each in run}
        records = [[each for each in block if each in taken or each in left] for block in blocks]
        distances = {after - before for own in records for before, after in itertools.pairwise(own)}
        kinds = {_kind(self._line(each)) for each in taken}
        return len(distances) <= 1 and all(_kind(self._line(each)) in kinds for each in left)

    def _is_outside_list(self, number: int) -> bool:
        """Return whether a line is a heading, a name before a value, or a name in a paragraph."""
        shape = self._shapes[number]
        is_alone = bool(self._gap(number) and self._gap(number + 1))
        return _may_be_outside_list(shape) and (shape != _LINE_OF_NAMES or is_alone)

    def _is_amid(self, number: int, taken: Sequence[int]) -> bool:
        """Return whether a name is between other names, with equal distances to them.

        The first name may be below a line that ends with a colon. The last one may be above a blank
        line if it has several words, with the same capitals as a name with a row.
        """
        above, below = self._gap(number), self._gap(number + 1)
        is_below, is_above = (
            self._shapes.get(each) == _LINE_OF_NAMES for each in (number - 1, number + 1)
        )
        if is_below and is_above and above == below:
            return True
        if is_above and not below and (above or not is_below):
            return self._stripped(number - 1).endswith(":")
        if number - 1 not in taken or above or not below.startswith("\n"):
            return False
        capitals = _capitals(self._stripped(number))
        known = (_capitals(self._stripped(each)) for each in taken)
        return len(capitals) > 1 and capitals in known

    def _gap(self, number: int) -> str:
        """Return the white space between a line and the one above it; a blank line at both ends."""
        if not 0 < number < len(self._spans):
            return "\n"
        start = self._spans[number - 1][1] - self.source.offset
        between = self.source.text[start : self._spans[number][1] - self.source.offset]
        return between[: len(between) - len(between.lstrip())].strip(" \t")

    def _is_record(self, number: int, headers: Collection[str], taken: Sequence[int]) -> bool:
        """Return whether a line is a record and not a table header, a total or an added amount.

        Up to the last of the lines `taken`, no line is an added amount. A name on a separate line
        is a record only between other names; otherwise it is a title or a signature.
        """
        is_name = self._shapes[number] == _LINE_OF_NAMES
        if is_name and not self._is_amid(number, taken):
            return False
        line = self._stripped(number)
        if line in headers and all(map(_YEARS.fullmatch, _NUMBER.findall(line))):
            return False
        label = _NUMBER.split(line, maxsplit=1)[0]
        is_long = len(_WORDS_OF_LABEL.findall(label)) > _MAX_WORDS_OF_SUM
        if is_long or (label == line and not is_name):
            return True
        if _REDUCED.search(label) or (number > taken[-1] and _ADDED.search(label)):
            return False
        return not _SUM.search(label) or not (is_name or self._is_total(number, {*taken}))

    def _is_total(self, number: int, taken: Collection[int]) -> bool:
        """Return whether an amount is at least as large as those of the rows since the last sum."""
        rows: list[list[Decimal]] = []
        for each in range(number - 1, min(taken) - 1, -1):
            if each in taken:
                rows.append(_amounts(self._stripped(each)))
            elif _SUM.search(self._stripped(each)):
                break
        return any(
            total >= max((own[place] for own in rows if place < len(own)), default=0)
            for place, total in enumerate(_amounts(self._stripped(number)))
        )

    def _touched(self, spans: Sequence[Span]) -> set[int]:
        """Return the numbers of the lines with a shape that overlap spans."""
        return _touched(self._spans, spans) & self._shapes.keys()

    def _stripped(self, number: int) -> str:
        return self._line(number).strip() if number >= 0 else ""

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
    """Return the runs of parts that are not taken, from the first taken part to the last part.

    Parts much larger or smaller than the taken ones, and those of rows elsewhere, are excluded.
    """
    sizes = [end - start for start, end in parts]
    min_size, max_size = min(sizes[each] for each in taken), max(sizes[each] for each in taken)
    own = [
        each
        for each in range(min(taken), len(parts))
        if each in taken or (each not in elsewhere and min_size <= 2 * sizes[each] <= 4 * max_size)
    ]
    grouped = itertools.groupby(own, taken.__contains__)
    return [[parts[each] for each in run] for is_taken, run in grouped if not is_taken]


def _lines(text: str) -> Iterator[Span]:
    """Yield the lines with letters or digits; long ones are split at sentences or objects."""
    for start, end in records.whole_lines(text):
        is_whole = end - start <= _LONGEST_LINE or _is_row(text[start:end])
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


def _is_named(shape: str) -> bool:
    return shape.startswith(_NAMED)


def _may_be_outside_list(shape: str) -> bool:
    """Return whether lines of a shape may also stand alone, before and after a list."""
    return shape == _LINE_OF_NAMES or shape.startswith((_HEADING, _NAMED_NUMBER))


def _coarse(shape: str, line: str) -> str:
    """Return the shape of a value with a number, independent of the name before it."""
    key = _KEY.match(line.strip()) if _is_named(shape) else None
    value = line.strip()[key.end() :].strip() if key else ""
    has_number = _NUMBER.search(value) is not None
    return _NAMED_NUMBER + _shape_of_words(value, has_number=True) if has_number else shape


def _kind(line: str) -> tuple[bool, ...]:
    """Return which cells of a line have numbers."""
    cells = (own for cell in _CELL.split(line.strip()) for own in _GAP.split(cell))
    return tuple(_NUMBER.search(cell) is not None for cell in cells)


def _kind_of(character: str) -> str:
    """Return whether a character is a lower-case letter, another letter or a digit, or itself."""
    if character.islower():
        return "a"
    return "A" if character.isalpha() else "0" if character.isdigit() else character


def _capitals(line: str) -> list[bool]:
    """Return which words of a line begin with a capital letter."""
    return [word[0].isupper() for word in line.split()]


@lru_cache(maxsize=4_096)
def _amounts(line: str) -> list[Decimal]:
    """Return the absolute numbers in a line, the last one first."""
    found = itertools.chain.from_iterable(map(quantities.quantities, _DELIMITER.split(line)))
    return [abs(each[0].number) for each in found][::-1]


def _is_line(shape: str) -> bool:
    return shape.startswith((_LINE_OF_NAMES, _NAMED))


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
_HEADING, _NAMED_NUMBER = f"{_LINE_OF_WORDS}#", f"{_NAMED}: "
_MAX_WORDS_OF_NAME, _LONGEST_NAME = 5, 50


def _shape(line: str) -> str:
    """Return the shape that lines of the same list share; empty if a line has none.

    It is the number of cells of a row, the mark of an item, the name before a value, the number of
    amounts at the end of a line, or the sequence of words and numbers.
    """
    own = line.rstrip("\r\n")
    has_number = _NUMBER.search(own) is not None
    for mark, least in (("|", 2), ("\t", 1)):
        if (count := own.count(mark)) >= least:
            return f"{mark} {count} {has_number}"
    own = own.strip()
    if (item := _ITEM.match(own)) and len(own) <= _LONGEST_ITEM:
        mark = item[1] or item[2] or item[0][0]
        return f"{_LINE_OF_WORDS}{mark} {len(line) - len(line.lstrip())} {has_number}"
    if key := _KEY.match(own):
        name = _WORDS.sub("a", key[0]) if _NUMBER.search(key[0]) else key[0]
        return f"{_NAMED}{_NUMBER.sub('0', name).casefold()}"
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
        return _LINE_OF_WORDS + _REPEATED.sub(r"\1", _NUMBER.sub("0", _WORDS.sub("a", line)))
    is_short = len(line.split()) <= _MAX_WORDS_OF_NAME and len(line) <= _LONGEST_NAME
    is_name = is_short and not line[:1].islower() and (line[-1:].isalnum() or line[-1:] == ")")
    return _LINE_OF_NAMES if is_name else ""
