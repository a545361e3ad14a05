"""Selection of the mention that a finding means, if its quote occurs several times in the text.

The findings of a row belong together: a finding whose quote occurs once locates the row, and the
others of the row are the mentions nearest to it. Rows that consist of repeated quotes only, such as
equal rows, follow each other.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.layout import Place

_MAX_COMPARED = 32
"""The maximum number of mentions of a quote that are compared for the row that it begins."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """A quote of an answer: `row` identifies its row, and `listed` the list with the row."""

    number: int
    quote: str
    row: Hashable
    listed: str | None


def choose_mentions(
    findings: Sequence[JsonObject], places: Mapping[str, Sequence[Place]], text: str
) -> list[int | None]:
    """Return for each finding the index in `places` of the mention of its quote, `None` if none."""
    rows: dict[Hashable, list[_Finding]] = defaultdict(list)
    for number, item in enumerate(findings):
        finding = _named(number, item)
        rows[finding.row].append(finding)
    row_counts = Counter(quote for row in rows.values() for quote in {entry.quote for entry in row})
    choice = _Choice(places, text, row_counts)
    chosen: list[int | None] = [None] * len(findings)
    for row in rows.values():
        for finding, mention in choice.of_row(row):
            chosen[finding.number] = mention
    return chosen


def _named(number: int, finding: JsonObject) -> _Finding:
    quote, path = (json_values.text(finding.get(name)) for name in ("quote", "path"))
    steps = path.split("/")
    positions = [index for index, step in enumerate(steps) if step.isdecimal()]
    if not positions:
        return _Finding(number, quote, number, None)
    row, listed = (steps[:end] for end in (positions[-1] + 1, positions[0]))
    return _Finding(number, quote, "/".join(row), "/".join(listed))


@dataclass
class _Choice:
    """The mentions chosen so far: `taken` by quote, and the end of the last row of each list."""

    places: Mapping[str, Sequence[Place]]
    text: str
    row_counts: Mapping[str, int]
    taken: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    ends: dict[str | None, int] = field(default_factory=dict)

    def of_row(self, findings: Sequence[_Finding]) -> Iterator[tuple[_Finding, int]]:
        located = (finding for finding in findings if self.places.get(finding.quote))
        ranked = sorted(located, key=self._rank)
        anchor: Place | None = None
        for finding in ranked:
            places = self.places[finding.quote]
            if anchor is None:
                mention = self._begin(finding, [self.places[other.quote] for other in ranked[1:]])
                anchor = places[mention]
            else:
                mention = self._nearest(anchor, places)
            self.taken[finding.quote].add(mention)
            yield finding, mention
        if anchor is not None:
            self.ends[findings[0].listed] = anchor[1]

    def _rank(self, finding: _Finding) -> tuple[bool, int]:
        """Rank quotes by how well they locate a row: rare ones and those of one row first."""
        places = len(self.places[finding.quote])
        return places < self.row_counts[finding.quote], places

    def _begin(self, finding: _Finding, others: Sequence[Sequence[Place]]) -> int:
        places, taken = self.places[finding.quote], self.taken[finding.quote]
        begins = self.ends.get(finding.listed, 0) if finding.listed is not None else 0
        first = bisect_left(places, (begins,))
        order = itertools.chain(range(first, len(places)), range(first - 1, -1, -1))
        free = list(itertools.islice((item for item in order if item not in taken), _MAX_COMPARED))
        if len(free) < 2 or not others:  # noqa: PLR2004 - nothing to choose from
            return free[0] if free else 0

        def spread(mention: int) -> list[int]:
            anchor = places[mention]
            nearest = [listed[self._nearest(anchor, listed)] for listed in others]
            lines, _, gaps = zip(*(self._distance(anchor, place) for place in nearest), strict=True)
            return [sum(lines), sum(gaps)]

        return min(free, key=spread)

    def _nearest(self, anchor: Place, places: Sequence[Place]) -> int:
        """Return the mention the fewest lines away; on its line the closest, else the later."""
        after = bisect_left(places, anchor)
        near = [mention for mention in (after, after - 1) if 0 <= mention < len(places)]
        return min(near, key=lambda mention: self._distance(anchor, places[mention]))

    def _distance(self, anchor: Place, other: Place) -> tuple[int, bool, int]:
        (_, end), (start, _) = sorted([anchor, other])
        lines = self.text.count("\n", end, max(end, start))
        return lines, lines > 0 and other < anchor, max(0, start - end)
