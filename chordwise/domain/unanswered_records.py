"""Unread records: entries of a list in a text for which an answer has no row.

The rows of an answer show which entries of a text are records: those of the same form nearby.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from operator import gt, itemgetter

from chordwise.domain import outline, quantities
from chordwise.domain.grounding import Source
from chordwise.domain.outline import DELIMITER, NUMBER, EntryKind, Form, OutlineEntry, Span

DENSE = 5
"""The number of rows from which on a part of a text is assumed to lie within a list."""
_FEWEST = {EntryKind.ROW: 1, EntryKind.ITEM: 2, EntryKind.NAMED: 3, EntryKind.WORDS: 3}
"""The number of rows from which on the other entries of a form are records; fewer if evident."""
_MIN_ROWS, _MANY_ROWS = 2, 3
_LEAST_SHARE, _LEAST_SHARE_OF_WORDS = 0.5, 0.75
_LEAST_ENTRIES_BY_ROW = 0.8
_MIN_ENTRIES, _MANY_ENTRIES = 4, 8
_MANY_ADJACENT = 10
_LINES_BETWEEN = 6
_LONGEST_ITEM = 200
_YEARS = re.compile(r"(?:(?:19|20)\d\d[.,]?)++")
_CELL = re.compile(r"[|\t,;]")
_WORDS_OF_LABEL = re.compile(r"[^\W\d_]++")
_MAX_WORDS_OF_SUM, _MAX_WORDS_OF_NAME = 3, 5
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
    """Records without a row: runs of their entries, about `entries_each` a record.

    `is_clear` is set if there are many rows, and if they are most of the records of the list, and
    `is_rest` if those with a row are adjacent in a table.
    """

    runs: Sequence[Sequence[Span]] = ()
    entries_each: float = 1.0
    is_clear: bool = False
    is_rest: bool = False

    @property
    def number(self) -> int:
        """The number of records."""
        return round(sum(map(len, self.runs)) / self.entries_each)

    @property
    def longest(self) -> int:
        """The number of records in the longest run."""
        return round(max(map(len, self.runs), default=0) / self.entries_each)


class TextEntries:
    """The entries in the answered spans of a text, for comparing them with rows.

    `values` are the texts in the answer, in lower case. A name before a value that is one of them
    is the beginning of a record, and not what the records have in common.
    """

    def __init__(
        self, source: Source, answered: Sequence[Span] | None, values: AbstractSet[str]
    ) -> None:
        self._source = source
        self._answered = answered
        self._values = values

    @cached_property
    def _entries(self) -> Sequence[OutlineEntry]:
        # Only now, since most questions have no list whose rows are counted.
        borders = [border for span in self._answered or () for border in span]
        return [
            entry
            for entry in outline.outline_of(self._source.text).entries
            if self._answered is None
            or bisect_right(borders, entry.start + self._source.offset) % 2
        ]

    @cached_property
    def _forms(self) -> Sequence[Form]:
        are_values = any(entry.label in self._values for entry in self._entries)
        return [
            Form(EntryKind.WORDS, ":") if are_values and self._is_speaker(entry) else entry.form
            for entry in self._entries
        ]

    @cached_property
    def _numbers(self) -> Mapping[Form, Sequence[int]]:
        numbers: dict[Form, list[int]] = defaultdict(list)
        for number, form in enumerate(self._forms):
            numbers[form].append(number)
        return numbers

    def without_row(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]]
    ) -> list[UnreadRecords]:
        """Return the entries without a row of any list that look like the entries with rows."""
        left = [touched for spans in rows if (touched := self._touched(spans))]
        elsewhere = {number for spans in others for number in self._touched(spans)}
        fields = {
            number
            for spans in rows
            for span in spans
            for number in self._touched([span])
            if self._is_field(number, span)
        }
        groups: list[UnreadRecords] = []
        while left:
            forms = (dict.fromkeys(self._forms[number] for number in touched) for touched in left)
            form, count = Counter(itertools.chain.from_iterable(forms)).most_common(1)[0]
            taken = {number for row in left for number in row if self._forms[number] == form}
            is_usual = count >= _FEWEST[form.kind]
            are_shared = len(taken) < _LEAST_ENTRIES_BY_ROW * count
            is_rare = not groups and count < _LEAST_SHARE * len(rows)
            if is_usual and (are_shared or is_rare):
                break
            group = self._of_form(form, taken, count, elsewhere - taken)
            if is_usual or (group.is_clear and taken <= fields):
                groups.append(group)
            left = [touched for touched in left if taken.isdisjoint(touched)]
        return groups

    def _touched(self, spans: Sequence[Span]) -> list[int]:
        """Return the numbers of the entries of a row; one of words and a long one begin with it."""
        numbers: list[int] = []
        for start, end in spans:
            first, last = start - self._source.offset, end - self._source.offset
            number = bisect_right(self._entries, first, key=itemgetter(1))
            while number < len(self._entries) and self._entries[number].start < last:
                is_weak = self._forms[number].kind is EntryKind.WORDS or self._is_long(number)
                if not is_weak or self._begins(number, first):
                    numbers.append(number)
                number += 1
        return list(dict.fromkeys(numbers))

    def _is_long(self, number: int) -> bool:
        is_row = self._forms[number].kind is EntryKind.ROW
        return not is_row and len(self._line(number)) > _LONGEST_ITEM

    def _begins(self, number: int, start: int) -> bool:
        before = self._line(number)[: max(0, start - self._entries[number].start)]
        content = outline.without_label(outline.without_mark(f"{before} |"))
        return not any(map(str.isalnum, content))

    def _is_field(self, number: int, span: Span) -> bool:
        """Return whether a span is the first field of an entry, or the value after its name."""
        start, end = (place - self._source.offset - self._entries[number].start for place in span)
        after = self._line(number)[max(0, end) :].lstrip(" *_")
        is_within = after[:2].lstrip(".,")[:1].isalnum()
        return not is_within and self._begins(number, start + self._entries[number].start)

    def _of_form(
        self, form: Form, taken: set[int], count: int, elsewhere: Collection[int]
    ) -> UnreadRecords:
        """Return the other entries of a form near the taken ones."""
        is_usual = count >= _FEWEST[form.kind]
        numbers = [number for number in self._filled(form, taken) if number not in elsewhere]
        blocks = list(self._blocks(numbers, taken, has_gaps=is_usual and count > 1))
        first, last = min(taken), max(taken)
        headers = {self._stripped(block[0]) for block in blocks if form.kind is EntryKind.ROW}
        runs = [
            left
            for block in blocks
            for is_taken, run in itertools.groupby(block, taken.__contains__)
            if not is_taken
            and (left := [one for one in run if self._is_record(one, headers, taken, last)])
            and (first < left[0] < last or len(left) >= DENSE or "#" not in form.name)
        ]
        members = {*taken, *itertools.chain(*runs)}
        listed = [[number for number in block if number in members] for block in blocks]
        share = len(taken) / len(members)
        if share < _LEAST_SHARE and 2 * sum(map(self._is_long, taken)) >= len(taken):
            return UnreadRecords()
        pairs = itertools.chain(*map(itertools.pairwise, listed))
        are_alike = len({self._distance(*pair)[0] for pair in pairs}) <= 1
        if not is_usual:
            is_clear = are_alike and self._are_evident(listed, taken)
        elif form.kind is EntryKind.WORDS:
            is_clear = share >= _LEAST_SHARE_OF_WORDS
        else:
            is_enough = count >= _MANY_ROWS or (count >= _MIN_ROWS and are_alike)
            are_alone = form.kind is EntryKind.NAMED or self._are_names(itertools.chain(*listed))
            is_clear = is_enough and (share >= _LEAST_SHARE or are_alone)
        offset = self._source.offset
        records = [[self._entries[number] for number in run] for run in runs]
        spans = [[(one.start + offset, one.end + offset) for one in run] for run in records]
        entries_each = max(1.0, len(taken) / count)
        return UnreadRecords(
            runs=spans,
            entries_each=entries_each,
            is_clear=is_clear,
            is_rest=form.kind is EntryKind.ROW and _are_adjacent(taken, members),
        )

    def _blocks(
        self, numbers: Sequence[int], taken: Collection[int], *, has_gaps: bool
    ) -> Iterator[Sequence[int]]:
        """Yield groups of nearby entries of a form, each with a taken one."""
        distances = [*itertools.starmap(self._distance, itertools.pairwise(numbers))]
        pairs = list(zip(distances, itertools.pairwise(numbers), strict=True))
        both = [one for one, (before, after) in pairs if before in taken and after in taken]
        near = [one for one, (before, after) in pairs if before in taken or after in taken]
        usual = sorted(both)[len(both) * 9 // 10] if both else min(near, default=(0, 0))
        kind = self._forms[numbers[0]].kind
        if kind is EntryKind.ROW and not has_gaps:
            usual = 1, 0
        more = _LINES_BETWEEN if has_gaps and kind is not EntryKind.WORDS else 0
        limits = [number + more for number in usual]
        borders = [
            at for at, (distance, _) in enumerate(pairs, start=1) if any(map(gt, distance, limits))
        ]
        in_order = sorted(taken)
        for start, end in itertools.pairwise([0, *borders, len(numbers)]):
            first = bisect_left(in_order, numbers[start])
            if first < len(in_order) and in_order[first] <= numbers[end - 1]:
                yield numbers[start:end]

    def _distance(self, before: int, after: int) -> tuple[int, int]:
        """Return the distance of two entries in lines and in paragraphs."""
        one, other = self._entries[before], self._entries[after]
        return other.line - one.line, other.paragraph - one.paragraph

    def _are_evident(self, blocks: Sequence[Sequence[int]], taken: Collection[int]) -> bool:
        """Return whether entries are one list although few of them have a row.

        They are short, and are many with a mark, names with a mark, or equal, or have the same
        separator of fields.
        """
        numbers = [*itertools.chain(*blocks)]
        lines = [self._stripped(number) for number in numbers]
        is_amid = any(number not in taken for block in blocks for number in block[1:-1])
        are_few = len(numbers) < _MIN_ENTRIES or not (is_amid or len(numbers) > len(taken) + 1)
        if are_few or not all(map(outline.is_short, lines)):
            return False
        kind = self._forms[numbers[0]].kind
        contents = [outline.without_mark(line) for line in lines]
        if kind is EntryKind.NAMED:
            contents = [outline.without_label(content) for content in contents]
        separators = {outline.field_separator(content) for content in contents}
        are_names = kind is not EntryKind.WORDS and all(
            len(content.split()) <= _MAX_WORDS_OF_NAME for content in contents
        )
        are_of_fields = len(separators) == 1 and (are_names or separators != {""})
        is_list = kind is not EntryKind.WORDS and len(numbers) >= _MANY_ENTRIES
        is_list = is_list or (are_of_fields and not contents[0][:1].islower())
        return is_list or len({*lines}) == 1

    def _are_names(self, numbers: Iterable[int]) -> bool:
        contents = [outline.without_mark(self._stripped(number)).split() for number in numbers]
        return all(
            len(words) <= _MAX_WORDS_OF_NAME and all(word[:1].isupper() for word in words)
            for words in contents
        )

    def _filled(self, form: Form, taken: Collection[int]) -> Iterator[int]:
        """Rows with fewer cells are sums or headings; names without usual capitals are titles."""
        if form.name == outline.NAMES:
            known = {_capitals(self._line(number)) for number in taken}
            yield from (one for one in self._numbers[form] if _capitals(self._line(one)) in known)
            return
        cells = min(_filled_cells(self._line(number)) for number in taken)
        first, last = min(taken), max(taken)
        for number in self._numbers[form]:
            least = min(cells, max(2, cells - (first < number < last)))
            if number in taken or _filled_cells(self._line(number)) >= least:
                yield number

    def _is_record(
        self, number: int, headers: Collection[str], taken: Collection[int], last: int
    ) -> bool:
        """Headers and totals are none, nor are added amounts behind the `last` taken entry."""
        line = self._stripped(number)
        if line in headers and all(map(_YEARS.fullmatch, NUMBER.findall(line))):
            return False
        label = NUMBER.split(line, maxsplit=1)[0]
        if label == line or len(_WORDS_OF_LABEL.findall(label)) > _MAX_WORDS_OF_SUM:
            return True
        if _REDUCED.search(label) or (number > last and _ADDED.search(label)):
            return False
        return not (_SUM.search(label) and self._is_total(number, taken))

    def _is_total(self, number: int, taken: Collection[int]) -> bool:
        rows: list[list[Decimal]] = []
        for other in range(number - 1, min(taken) - 1, -1):
            if other in taken:
                rows.append(_amounts(self._stripped(other)))
            elif _SUM.search(self._stripped(other)):
                break
        return any(
            total >= max((row[index] for row in rows if index < len(row)), default=0)
            for index, total in enumerate(_amounts(self._stripped(number)))
        )

    def _stripped(self, number: int) -> str:
        return self._line(number).strip()

    def _line(self, number: int) -> str:
        return self._source.text[self._entries[number].start : self._entries[number].end]

    def _is_speaker(self, entry: OutlineEntry) -> bool:
        line = self._source.text[entry.start : entry.end].strip()
        return entry.form.kind is EntryKind.NAMED and outline.is_short(line)


def _are_adjacent(taken: Collection[int], members: Iterable[int]) -> bool:
    """Return whether many rows follow each other, so that they are a part and no selection."""
    first, last = min(taken), max(taken)
    between = sum(first <= number <= last for number in members)
    return len(taken) >= _MANY_ADJACENT and len(taken) >= _LEAST_ENTRIES_BY_ROW * between


def _capitals(line: str) -> tuple[bool, ...]:
    return tuple(word[0].isupper() for word in line.split())


def _filled_cells(line: str) -> int:
    """Return the number of non-empty cells of a row; a row with a total has fewer than others."""
    return sum(1 for cell in _CELL.split(line) if cell.strip())


@lru_cache(maxsize=4_096)
def _amounts(line: str) -> list[Decimal]:
    numbers = itertools.chain.from_iterable(map(quantities.quantities, DELIMITER.split(line)))
    return [abs(readings[0].number) for readings in numbers][::-1]
