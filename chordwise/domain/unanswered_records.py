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
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from operator import itemgetter

from chordwise.domain import line_shapes, quantities, records
from chordwise.domain.grounding import Source
from chordwise.domain.records import LINE, Span

DENSE = 5
"""The number of rows from which on a part of a text is assumed to lie within a list."""
_MIN_ROWS, _MIN_ROWS_OF_LINES = 2, 3
"""The number of rows in lines of one shape from which on the other lines count as records.

In a table it is one; lines of words and names before values need three unless they are clear.
"""
_LEAST_SHARE, _LEAST_CLEAR_SHARE = 0.5, 0.75
_LEAST_LINES_BY_ROW = 0.8
_LEAST_SHARE_OF_PARTS = 0.9
_LONGEST_MARK = 5
_LINES_BETWEEN = 4
_MIN_RECORDS, _MANY_RECORDS = 4, 8
# A short word with a capital letter before a full stop is mostly an abbreviation: Mr., Jan., Ltd.
_STOP = re.compile(
    r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]{2})(?<!\b[A-Z][a-z]{3})[.!?] +(?![a-z])"
    r"|(?<=[]}>\[]),? *+(?=[{<])"
)
"""The ends of sentences, and of elements or objects on a common line."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadRecords:
    """Records without a row: runs of their lines, about `lines_each` a record.

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
class TextLines:
    """The lines of a text, and the shapes of those in answered spans; `values` in lower case."""

    source: Source
    answered: Sequence[Span] | None
    values: AbstractSet[str] = frozenset()
    are_divided: bool = False

    @cached_property
    def _spans(self) -> list[Span]:
        return self._moved(_lines(self.source.text))

    def _moved(self, spans: Iterable[Span]) -> list[Span]:
        offset = self.source.offset
        return [(start + offset, end + offset) for start, end in spans]

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        numbers: dict[str, list[int]] = {}
        group = 0
        for number in range(len(self._spans)):
            shape = self._shape(number)
            group += self.are_divided and self._begins_group(number, shape)
            if shape:
                key = f"{shape} {group}" if self.are_divided else shape
                numbers.setdefault(key, []).append(number)
        return numbers

    def _shape(self, number: int) -> str:
        if not self._is_answered(self._spans[number][0]):
            return ""
        line = self._line(number)
        if self.are_divided:
            return line_shapes.divided_shape_of(line, are_labels=self._are_labels)
        return line_shapes.shape_of(line)

    @cached_property
    def _are_labels(self) -> bool:
        """Whether no name before a value is a value of the answer, such as a speaker."""
        names = map(line_shapes.label_of, map(self._line, range(len(self._spans))))
        return self.values.isdisjoint(names)

    def _begins_group(self, number: int, shape: str) -> bool:
        """Any blank line separates lines without a mark and a separator."""
        above, between, below = (bool(self._gap(index)) for index in range(number - 1, number + 2))
        is_apart = between and not (above and below and shape != line_shapes.BARE)
        return is_apart or line_shapes.is_heading(self._stripped(number - 1))

    @cached_property
    def _borders(self) -> list[int]:
        return [border for span in self.answered or () for border in span]

    def _is_answered(self, place: int) -> bool:
        return self.answered is None or bisect_right(self._borders, place) % 2 == 1

    @cached_property
    def _shapes(self) -> dict[int, str]:
        return {number: shape for shape, numbers in self._numbers.items() for number in numbers}

    def without_row(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]] = ()
    ) -> list[UnreadRecords]:
        """Return the lines without a row of any list that look like the lines with rows."""
        if self.are_divided:
            return [
                group for group in self._of_shapes(rows, others) if group.is_clear and group.runs
            ]
        equal = self._equal_lines(rows, others)
        groups = self._of_forms(rows, [*others, *equal])
        return [*groups, UnreadRecords(runs=equal, is_clear=True)] if equal else groups

    def _equal_lines(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[list[Span]]:
        """Return the lines that equal the only line of a row in the same run of such lines.

        Beyond other lines, an equal line is a further mention, such as the names on a title page.
        """
        touched = [self._touched(spans) for spans in rows]
        taken, elsewhere = {*itertools.chain(*touched)}, self._touched([*itertools.chain(*others)])
        known = {self._stripped(line) for lines in touched if len(lines) == 1 for line in lines}
        left = self._shapes.keys() - elsewhere - taken
        equal = {line for line in left if self._stripped(line) in known}
        runs = itertools.groupby(sorted(self._shapes), {*equal, *taken}.__contains__)
        copied_runs: list[list[Span]] = []
        for listed in (list(run) for is_listed, run in runs if is_listed):
            rows_here = {self._stripped(line) for line in listed if line in taken}
            copies = (line for line in listed if line in equal)
            copied_runs.append(
                [self._spans[line] for line in copies if self._stripped(line) in rows_here]
            )
        return [run for run in copied_runs if run]

    def _of_forms(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Further shapes, or parts of any shape, count only if they are clear and more."""
        plain = self._of_shapes(rows, others)
        divided = self._divided.without_row(rows, others)
        largest = max(plain, divided, key=lambda groups: sum(group.number for group in groups))
        return largest or self._of_parts(rows, others)

    @cached_property
    def _divided(self) -> TextLines:
        return replace(self, are_divided=True)

    def _of_shapes(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        left = [lines for spans in rows if (lines := self._begun(spans))]
        elsewhere = {line for spans in others for line in self._touched(spans)}
        groups: list[UnreadRecords] = []
        while left:
            shapes = Counter(
                shape for lines in left for shape in {self._shapes[line] for line in lines}
            )
            shape, count = shapes.most_common(1)[0]
            taken = {line for lines in left for line in lines if self._shapes[line] == shape}
            fewest = 1 if line_shapes.is_table(shape) or self.are_divided else _MIN_ROWS
            is_enough = count >= max(fewest, _LEAST_SHARE * len(rows) * (not groups))
            if not is_enough or len(taken) < _LEAST_LINES_BY_ROW * count:
                break
            records = self._of_shape(shape, taken, count, elsewhere - taken)
            if (
                line_shapes.is_named_or_name(shape)
                and count < _MIN_ROWS_OF_LINES
                and not records.is_clear
            ):
                break
            if records.runs or not (groups or line_shapes.may_be_outside_list(shape)):
                groups += [records] if not groups or records.is_clear else []
            left = [lines for lines in left if taken.isdisjoint(lines)]
        return groups

    @cached_property
    def _cuts(self) -> list[Span]:
        text = self.source.text
        return self._without_blanks(itertools.pairwise([0, *records.divide(text).ends]))

    @cached_property
    def _whole_lines(self) -> list[Span]:
        text = self.source.text
        lines = (line.span() for line in LINE.finditer(text))
        return self._without_blanks(
            (start, end)
            for start, end in lines
            if line_shapes.shape_of(text[start:end]) != line_shapes.LINE_OF_NAMES
        )

    def _without_blanks(self, spans: Iterable[Span]) -> list[Span]:
        full = ((start, self.source.text[start:end].rstrip()) for start, end in spans)
        return self._moved((start, start + len(text) + 1) for start, text in full if text)

    def _of_parts(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Return the parts of a text without a row between parts of any shape that have one each.

        In prose values are scattered: unless most rows begin their parts and are distinct, or many
        consecutive parts have none, nearly all parts need a row.
        """
        for division in (self._cuts, self._whole_lines):
            parts = [part for part in division if self._is_answered(part[0])]
            alone = [touched for spans in rows if len(touched := _touched(parts, spans)) == 1]
            taken, elsewhere = (
                {number for touched in several for number in touched}
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
        """With `are_outside`, several parts may also follow a blank line."""
        forms = {self._form(parts[number]) for number in taken}
        start = max(taken) + 1
        tail = list(itertools.takewhile(lambda part: self._form(part) in forms, parts[start:]))
        if are_outside and len(tail) >= DENSE:
            return start + len(tail)
        lasts = itertools.pairwise([parts[start - 1], *tail])
        return start + sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0][1] == pair[1][0], lasts)
        )

    def _form(self, part: Span) -> tuple[str, str, int]:
        start, end = (place - self.source.offset for place in part)
        text = self.source.text[start:end].strip()
        return _kind_of(text[:1]), _kind_of(text[-1:]), text.count("\n")

    def _begin_parts(
        self, rows: Sequence[Sequence[Span]], parts: Sequence[Span], taken: Collection[int]
    ) -> bool:
        ends = {start: end for spans in rows for start, end in spans}
        places = (
            (start, ends[start])
            for number in taken
            for start in range(parts[number][0], parts[number][0] + _LONGEST_MARK)
            if start in ends
        )
        offset = self.source.offset
        first = [self.source.text[start - offset : end - offset] for start, end in places]
        is_each = len(first) >= _LEAST_SHARE_OF_PARTS * len(taken)
        return is_each and len({*first}) >= _LEAST_SHARE * len(taken)

    def _of_shape(
        self, shape: str, taken: set[int], count: int, elsewhere: set[int]
    ) -> UnreadRecords:
        lines = [line for line in self._filled(shape, taken) if line not in elsewhere]
        blocks = list(_blocks(lines, sorted(taken), _LINES_BETWEEN if self.are_divided else 1))
        headers = {self._line(block[0]).strip() for block in blocks if line_shapes.is_table(shape)}
        runs = [
            left
            for block in blocks
            for block_rows in [sorted(taken.intersection(block))]
            for is_taken, run in itertools.groupby(block, taken.__contains__)
            if not is_taken
            and (left := [line for line in run if self._is_record(line, headers, block_rows)])
            and (
                block_rows[0] < left[0] < block_rows[-1]
                or len(left) >= DENSE
                or not self._is_outside_list(left[0])
            )
        ]
        is_named = (
            line_shapes.is_table(shape)
            or line_shapes.is_named(shape)
            or self._are_names([*taken, *itertools.chain(*runs)])
        )
        members = {*taken, *itertools.chain(*runs)}
        records = [[line for line in block if line in members] for block in blocks]
        is_enough = count >= _MIN_ROWS_OF_LINES or (
            is_named and count >= _MIN_ROWS and self._are_uniform(records, taken)
        )
        share = len(taken) / (len(taken) + sum(map(len, runs)))
        is_most = is_enough and share >= (_LEAST_SHARE if is_named else _LEAST_CLEAR_SHARE)
        return UnreadRecords(
            runs=[[self._spans[line] for line in run] for run in runs],
            lines_each=max(1.0, len(taken) / count),
            is_clear=self._are_evident(records, taken, count) if self.are_divided else is_most,
        )

    def _are_evident(
        self, blocks: Sequence[Sequence[int]], taken: Collection[int], count: int
    ) -> bool:
        """Return whether divided lines are one list although most of them may have no row."""
        records = [*itertools.chain(*blocks)]
        left = [record for record in records if record not in taken]
        is_amid = len(left) == 1 and any(left[0] in block[1:-1] for block in blocks)
        are_few = len(records) < _MIN_RECORDS or (len(left) < _MIN_ROWS and not is_amid)
        if are_few or len(taken) > count:
            return False
        lines = [self._line(record) for record in records]
        are_named = all(map(line_shapes.separator_of, lines)) or self._are_names(records)
        if all(map(line_shapes.is_entry, lines)):
            may_be_prose = self._shapes[records[0]].startswith(line_shapes.BARE)
            are_most = 2 * len(taken) >= len(records) and not may_be_prose
            if are_named and (_are_equally_far(blocks) or are_most):
                return True
            if len(lines) >= _MANY_RECORDS and self._are_uniform(blocks, taken):
                return True
        places = [index for index, record in enumerate(records) if record in taken]
        return count >= _MIN_ROWS_OF_LINES and (
            _are_regular(places, len(records)) or self._are_speakers(records, taken)
        )

    def _are_speakers(self, records: Sequence[int], taken: Collection[int]) -> bool:
        names = Counter(line_shapes.label_of(self._line(line)) for line in records if line in taken)
        others = {line_shapes.label_of(self._line(line)) for line in records if line not in taken}
        return 2 * len(names) <= names.total() and others.isdisjoint(names)

    def _filled(self, shape: str, taken: Collection[int]) -> Iterator[int]:
        cells = min(line_shapes.filled_cells(self._line(line)) for line in taken)
        first, last = min(taken), max(taken)
        for line in self._numbers[shape]:
            least = min(cells, max(2, cells - (first < line < last)))
            if line in taken or line_shapes.filled_cells(self._line(line)) >= least:
                yield line

    def _are_names(self, numbers: Iterable[int]) -> bool:
        return all(line_shapes.is_short_item(self._line(number)) for number in numbers)

    def _are_uniform(self, records: Sequence[Sequence[int]], taken: Collection[int]) -> bool:
        kinds = {line_shapes.number_cells(self._line(line)) for line in taken}
        are_alike = all(
            line_shapes.number_cells(self._line(line)) in kinds for run in records for line in run
        )
        return are_alike and _are_equally_far(records)

    def _is_outside_list(self, number: int) -> bool:
        shape = self._shapes[number]
        is_alone = bool(self._gap(number) and self._gap(number + 1))
        return line_shapes.may_be_outside_list(shape) and (
            shape != line_shapes.LINE_OF_NAMES or is_alone
        )

    def _is_amid(self, number: int, taken: Sequence[int]) -> bool:
        """Return whether a name is between other names, with equal distances to them.

        The first may be below a colon, the last above a blank line if it has several words.
        """
        above, below = self._gap(number), self._gap(number + 1)
        is_below, is_above = (
            self._shapes.get(line) == line_shapes.LINE_OF_NAMES for line in (number - 1, number + 1)
        )
        if is_below and is_above and above == below:
            return True
        if is_above and not below and (above or not is_below):
            return self._stripped(number - 1).endswith(":")
        if number - 1 not in taken or above or not below.startswith("\n"):
            return False
        capitals = _capitals(self._stripped(number))
        known = (_capitals(self._stripped(line)) for line in taken)
        return len(capitals) > 1 and capitals in known

    def _gap(self, number: int) -> str:
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
        is_name = self._shapes[number] == line_shapes.LINE_OF_NAMES
        if is_name and not self._is_amid(number, taken):
            return False
        line = self._stripped(number)
        if line in headers and all(map(_YEARS.fullmatch, line_shapes.NUMBER.findall(line))):
            return False
        label = line_shapes.NUMBER.split(line, maxsplit=1)[0]
        is_long = len(_WORDS_OF_LABEL.findall(label)) > _MAX_WORDS_OF_SUM
        if is_long or (label == line and not is_name):
            return True
        if _REDUCED.search(label) or (number > taken[-1] and _ADDED.search(label)):
            return False
        return not _SUM.search(label) or not (is_name or self._is_total(number, {*taken}))

    def _is_total(self, number: int, taken: Collection[int]) -> bool:
        rows: list[list[Decimal]] = []
        for line in range(number - 1, min(taken) - 1, -1):
            if line in taken:
                rows.append(_amounts(self._stripped(line)))
            elif _SUM.search(self._stripped(line)):
                break
        return any(
            total >= max((row[index] for row in rows if index < len(row)), default=0)
            for index, total in enumerate(_amounts(self._stripped(number)))
        )

    def _begun(self, spans: Sequence[Span]) -> set[int]:
        touched = ((line, span) for span in spans for line in self._touched([span]))
        return {line for line, span in touched if not self.are_divided or self._begins(line, span)}

    def _begins(self, number: int, span: Span) -> bool:
        places = (max(0, place - self._spans[number][0]) for place in span)
        return line_shapes.begins(self._line(number), *places)

    def _touched(self, spans: Sequence[Span]) -> set[int]:
        return _touched(self._spans, spans) & self._shapes.keys()

    def _stripped(self, number: int) -> str:
        return self._line(number).strip() if number >= 0 else ""

    def _line(self, number: int) -> str:
        start, end = (place - self.source.offset for place in self._spans[number])
        return self.source.text[start:end]


def _touched(parts: Sequence[Span], spans: Sequence[Span]) -> set[int]:
    numbers: set[int] = set()
    for start, end in spans:
        number = bisect_right(parts, start, key=itemgetter(1))
        while number < len(parts) and parts[number][0] < end:
            numbers.add(number)
            number += 1
    return numbers


def _left(
    parts: Sequence[Span], taken: Collection[int], elsewhere: Collection[int]
) -> list[list[Span]]:
    """Parts much larger or smaller than the taken ones are excluded."""
    sizes = [end - start for start, end in parts]
    min_size, max_size = min(sizes[part] for part in taken), max(sizes[part] for part in taken)
    similar = [
        part
        for part in range(min(taken), len(parts))
        if part in taken or (part not in elsewhere and min_size <= 2 * sizes[part] <= 4 * max_size)
    ]
    grouped = itertools.groupby(similar, taken.__contains__)
    return [[parts[part] for part in run] for is_taken, run in grouped if not is_taken]


def _lines(text: str) -> Iterator[Span]:
    for start, end in records.whole_lines(text):
        is_whole = end - start <= line_shapes.LONGEST_LINE or _is_row(text[start:end])
        stops = () if is_whole else _STOP.finditer(text, start, end)
        for own_start, own_end in itertools.pairwise([start, *(stop.end() for stop in stops), end]):
            if any(map(str.isalnum, text[own_start:own_end])):
                yield own_start, own_end


def _is_row(line: str) -> bool:
    """Return whether a long line is a table row and not elements or objects on one line."""
    return line_shapes.is_table(line_shapes.shape_of(line)) and not line.lstrip().startswith(
        ("{", "[", "<")
    )


def _are_equally_far(blocks: Sequence[Sequence[int]]) -> bool:
    pairs = itertools.chain(*map(itertools.pairwise, blocks))
    return len({after - before for before, after in pairs}) <= 1


def _are_regular(places: Sequence[int], number: int) -> bool:
    step, first, last = places[1] - places[0], places[0], number - 1 - places[-1]
    if places != list(range(places[0], places[-1] + 1, step)):
        return False
    return max(first, last) < step if step > 1 else min(first, last) == 0


def _kind_of(character: str) -> str:
    """Return a sign for lower-case letters, other letters or digits; else the character itself."""
    if character.islower():
        return "a"
    return "A" if character.isalpha() else "0" if character.isdigit() else character


def _capitals(line: str) -> list[bool]:
    return [word[0].isupper() for word in line.split()]


@lru_cache(maxsize=4_096)
def _amounts(line: str) -> list[Decimal]:
    numbers = itertools.chain.from_iterable(
        map(quantities.quantities, line_shapes.DELIMITER.split(line))
    )
    return [abs(readings[0].number) for readings in numbers][::-1]


def _blocks(numbers: Sequence[int], taken: Sequence[int], alone: int) -> Iterator[Sequence[int]]:
    """Yield groups of nearby lines of one shape with taken lines; a record may have several."""
    distances = [after - before for before, after in itertools.pairwise(taken)]
    limit = min(distances) + _LINES_BETWEEN if distances else alone
    borders = [
        index
        for index, (before, after) in enumerate(itertools.pairwise(numbers), start=1)
        if after - before > limit
    ]
    for start, end in itertools.pairwise([0, *borders, len(numbers)]):
        first = bisect_left(taken, numbers[start])
        if first < len(taken) and taken[first] <= numbers[end - 1]:
            yield numbers[start:end]
