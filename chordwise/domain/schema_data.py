"""Data in the schema of a user: counting and locating rows, and joining several parts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from chordwise.domain import json_values, value_in_quote
from chordwise.domain.analysis import Joining, RowCount, round_robin
from chordwise.domain.json_values import JsonObject, JsonValue, text_of
from chordwise.domain.schema_nodes import SchemaNode

ANY_POSITION = "*"


def row_counts(answers: Sequence[JsonObject], schema: JsonObject) -> dict[str, RowCount]:
    """Return the number of rows of the lists in several answers, by JSON Pointer into the output.

    Lists at the same place count together; `*` stands for the position of an enclosing row. Tuples
    are not lists. If the schema requires distinct values, each value counts once. A row that two
    answers have read at the same place, or that continues from one answer to the next, counts once,
    too.
    """
    root, counts = SchemaNode.root_of(schema), dict[str, RowCount]()
    numbers, distinct = Counter[str](), defaultdict[str, set[str]](set)
    for answer, repeated in zip(answers, _repeated_rows(answers, root), strict=True):
        for path, node, rows in _lists(_without_rows(answer.get("data"), repeated), root):
            is_nested = ANY_POSITION in json_values.steps(path)
            numbers[path] += len(rows)
            if node.is_unique and not is_nested:
                distinct[path].update(map(canonical_json, rows))
            counts[path] = RowCount(
                number=0,
                max_items=None if is_nested else node.max_items,
                is_selection=node.is_unique or node.is_selection,
            )
    for path in (path for paths in _continued_rows(answers, root) for path in paths):
        numbers[path.rpartition("/")[0]] -= 1
    for path, values in distinct.items():
        numbers[path] = len(values)
    return {f"/data{path}": replace(count, number=numbers[path]) for path, count in counts.items()}


def _lists(
    value: JsonValue, node: SchemaNode, path: str = ""
) -> Iterator[tuple[str, SchemaNode, list[JsonValue]]]:
    """Yield the lists in some data, except tuples, by path with `*` for positions."""
    if isinstance(value, dict):
        for name, member in value.items():
            if isinstance(member, dict | list):
                yield from _lists(member, node.member(name), json_values.pointer(path, name))
    elif isinstance(value, list) and not node.is_tuple:
        yield path, node, value
        items, place = node.items, json_values.pointer(path, ANY_POSITION)
        for item in value:
            yield from _lists(item, items, place)


def row_places(answer: JsonObject) -> dict[str, list[list[tuple[int, int]]]]:
    """Return the spans of the evidence of each row, by list; rows without evidence are left out."""
    spans: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for path, span in _grounded_paths(answer):
        for row, listed in _rows_around(path, answer.get("data")):
            spans[listed, row].append(span)
    places: dict[str, list[list[tuple[int, int]]]] = defaultdict(list)
    for (listed, _), row_spans in spans.items():
        places[f"/data{listed}"].append(row_spans)
    return places


def values_without_place(answer: JsonObject) -> list[JsonObject]:
    """Return evidence that quotes the values of rows for which no quote was found."""
    data = answer.get("data")
    around = ((path, _rows_around(path, data)) for path, _ in _grounded_paths(answer))
    placed = {row for _, rows in around for row, _ in rows}
    return [
        {"path": path, "quote": text}
        for path, value in json_values.walk(data)
        if not isinstance(value, bool)
        and (text := text_of(value))
        and (rows := [row for row, _ in _rows_around(path, data)])
        and rows[-1] not in placed
    ]


def without_shared_quotes(answer: JsonObject, is_long: Callable[[int, int], bool]) -> JsonObject:
    """Return an answer without the long quotes that overlap a quote of another row."""
    data, evidence = answer.get("data"), json_values.objects(answer.get("evidence"))
    quoted = [
        (*span, rows[-1][0], number)
        for number, entry in enumerate(evidence)
        if (span := json_values.span_of(entry)) is not None
        if (rows := list(_rows_around(json_values.text(entry.get("path")), data)))
    ]
    mirrored = [(-end, -start, row, number) for start, end, row, number in reversed(quoted)]
    shared = {*_overlapping(quoted), *_overlapping(mirrored)}
    left_out = {
        number for start, end, _, number in quoted if number in shared and is_long(start, end)
    }
    kept = [entry for number, entry in enumerate(evidence) if number not in left_out]
    return {**answer, "evidence": list(kept)}


def _overlapping(quoted: Sequence[tuple[int, int, str, int]]) -> Iterator[int]:
    """Yield the numbers of the spans that overlap an earlier one of another row."""
    ends: dict[str, int] = {}
    for start, end, row, number in sorted(quoted, key=lambda span: span[:2]):
        ends = {other: last for other, last in ends.items() if last > start}
        if ends.keys() - {row}:
            yield number
        # The two last ends are sufficient: one of them is of another row.
        ends[row] = max(end, ends.get(row, end))
        ends = dict(sorted(ends.items(), key=lambda pair: pair[1])[-2:])


def repetitions(answer: JsonObject, schema: JsonObject) -> dict[str, int]:
    """Return for each list how many rows of an answer repeat an equal row at the same places.

    Rows without a place may be different rows. Lists of distinct values are left out, since they
    drop equal rows.
    """
    places, node = _places_of_rows(answer), SchemaNode.root_of(schema)
    read = Counter(
        (listed, frozenset(places[path]), canonical_json(row))
        for listed, path, row in _joined_rows(answer.get("data"), node, "")
        if path in places and not node.at(listed).is_unique
    )
    repeated: Counter[str] = Counter()
    for (listed, _, _), number in read.items():
        repeated[listed] += number - 1
    return {f"/data{listed}": number for listed, number in repeated.items() if number}


def _repeated_rows(answers: Sequence[JsonObject], node: SchemaNode) -> list[set[str]]:
    """Return for each answer the paths of rows that another answer has read at the same place.

    Equal rows within one answer are different rows. A row of several values without a place repeats
    an equal row of another answer that has one, as if a model had read on into the next chunk.
    """
    seen: Counter[Hashable] = Counter()
    repeated: list[set[str]] = []
    readings = [list(_readings(answer, node)) for answer in answers]
    located = Counter(row for reading in readings for _, row, place in reading if place)
    for reading in readings:
        counts: Counter[Hashable] = Counter()
        here = Counter(row for _, row, place in reading if place)
        repeated.append(set())
        for path, row, place in reading:
            if place:
                counts[row, place] += 1
                is_repeated = counts[row, place] <= seen[row, place]
            else:
                is_repeated = located[row] > here[row]
                located[row] -= is_repeated
            if is_repeated:
                repeated[-1].add(path)
        for row_read, number in counts.items():  # a union would visit all that was seen
            seen[row_read] = max(seen[row_read], number)
    return repeated


def _readings(
    answer: JsonObject, node: SchemaNode
) -> Iterator[tuple[str, tuple[str, str], frozenset[Hashable]]]:
    """Yield the path, list, text and places of each row that has places or several values."""
    places = _places_of_rows(answer)
    for listed, path, row in _joined_rows(answer.get("data"), node, ""):
        values = row.values() if isinstance(row, dict) else ()
        if path in places or sum(map(json_values.is_filled, values)) > 1:
            yield path, (listed, canonical_json(row)), frozenset(places.get(path, ()))


def _continued_rows(answers: Sequence[JsonObject], node: SchemaNode) -> list[set[str]]:
    """Return for each answer the paths of rows that continue the last row of an earlier answer.

    Such a row is the first of its list and has only lists, although its schema declares single
    values: these are in the part where the row began.
    """
    continued: list[set[str]] = []
    begun: set[str] = set()
    for answer in answers:
        rows = _joined_rows(answer.get("data"), node, "")
        first = [entry for entry in rows if not _position(entry[1])]
        rest = (one for one in first if one[0] in begun and _is_rest(one[2], node.at(one[0])))
        continued.append({path for _, path, _ in rest})
        begun |= {listed for listed, _, _ in first}
    return continued


def _is_rest(row: JsonValue, node: SchemaNode) -> bool:
    values = row.values() if isinstance(row, dict) else ()
    filled = [value for value in values if json_values.is_filled(value)]
    is_known = bool(node.items.properties) and node.items.has_single_values()
    is_open = bool(filled) and all(isinstance(value, list) for value in filled)
    return is_open and is_known and not node.is_unique


def _places_of_rows(answer: JsonObject) -> Mapping[str, set[Hashable]]:
    """Return the places of the values of each row in a joined list, by the path of the row."""
    places: dict[str, set[Hashable]] = defaultdict(set)
    for path, span in _grounded_paths(answer):
        for row, _ in _rows_around(path, answer.get("data")):
            places[row].add((path.removeprefix(row), span))
            break
    return places


def _grounded_paths(answer: JsonObject) -> Iterator[tuple[str, tuple[int, int]]]:
    for entry in json_values.objects(answer.get("evidence")):
        if (span := json_values.span_of(entry)) is not None:
            yield json_values.text(entry.get("path")), span


def _rows_around(path: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the rows that contain a place, the outermost first, as the paths of row and list."""
    row = listed = ""
    for step in json_values.steps(path):
        if isinstance(value, dict) and step in value:
            value, row = value[step], json_values.pointer(row, step)
            listed = json_values.pointer(listed, step)
        elif isinstance(value, list) and json_values.is_position(step, value):
            value, row = value[int(step)], json_values.pointer(row, int(step))
            yield row, listed
            listed = json_values.pointer(listed, ANY_POSITION)
        else:
            return


def _joined_rows(
    value: JsonValue, node: SchemaNode, path: str
) -> Iterator[tuple[str, str, JsonValue]]:
    """Yield the rows of the joined lists: the paths of the list and of the row, and the row."""
    if isinstance(value, dict):
        for name, member in value.items():
            if isinstance(member, dict | list):
                yield from _joined_rows(member, node.member(name), json_values.pointer(path, name))
    elif isinstance(value, list) and not node.is_tuple:
        for position, row in enumerate(value):
            yield path, json_values.pointer(path, position), row


def _without_rows(value: JsonValue, left_out: Collection[str], path: str = "") -> JsonValue:
    if not left_out:
        return value
    if isinstance(value, dict):
        return {
            name: _without_rows(member, left_out, json_values.pointer(path, name))
            for name, member in value.items()
        }
    if isinstance(value, list):
        places = ((json_values.pointer(path, position), row) for position, row in enumerate(value))
        return [row for place, row in places if place not in left_out]
    return value


def canonical_json(value: JsonValue) -> str:
    """Return the canonical JSON text of a value; `true`, 1 and 1.0 have different texts."""
    return json.dumps(value, sort_keys=True)


def join(answers: Sequence[JsonObject], schema: JsonObject) -> Joining:
    """Join answers by shape: objects by member, lists by concatenation, other values by the first.

    Equal rows are kept, except that a row which two answers have read at the same place, or which
    continues from one part to the next, is one row. Only lists of distinct values (`uniqueItems`)
    drop repetitions, and lists with `maxItems` drop further rows. Evidence is kept for the kept
    values, with their paths in the joined data; a path without a value in the data of its part is
    not changed. A single value on which the parts differ is contested: a model gets the parts
    without their lists to decide it.
    """
    node = SchemaNode.root_of(schema)
    repeated, continued = _repeated_rows(answers, node), _continued_rows(answers, node)
    merge_ = _Merge(repeated=repeated, continued=continued)
    values = [
        _Value(part=number, path="", content=answer.get("data"))
        for number, answer in enumerate(answers)
    ]
    data = merge_.join(values, node, "")
    output: JsonObject = {"data": data, "evidence": list(merge_.evidence(answers))}
    if not merge_.contested:
        return Joining(output=output)
    parts = [_single_values(answer, node, is_first=not n) for n, answer in enumerate(answers)]
    return Joining(output=output, parts=parts, contested=merge_.contested)


def apply_reconciliation(joining: Joining, answer: JsonObject) -> JsonObject:
    """Return the joined output with the contested values taken from an answer, where it has them.

    If the answer has no evidence for a value, the evidence of a part with the same value is used.
    """
    data, evidence = joining.output["data"], json_values.objects(joining.output["evidence"])
    for path in joining.contested:
        value = _at(answer.get("data"), path)
        if not json_values.is_filled(value):
            continue
        data = _with(data, json_values.steps(path), value)
        agreeing = (part for part in joining.parts if _same(_at(part.get("data"), path), value))
        candidates = (
            [entry for entry in json_values.objects(part.get("evidence")) if _is_below(path, entry)]
            for part in (answer, *agreeing)
        )
        evidence = [entry for entry in evidence if not _is_below(path, entry)]
        evidence += next(filter(None, candidates), [])
    return {"data": data, "evidence": list(evidence)}


def _single_values(answer: JsonObject, node: SchemaNode, *, is_first: bool) -> JsonObject:
    """Return an answer without the rows of its lists; the first one keeps the minimum of rows."""
    data = answer.get("data")
    rows = list(_joined_rows(data, node, ""))
    counts = Counter(listed for listed, _, _ in rows)
    least = {listed: node.at(listed).min_items if is_first else 0 for listed in counts}
    left_out = {path for listed, path, _ in rows if _position(path) >= least[listed]}
    data = _without_rows(data, left_out)
    evidence: list[JsonValue] = [
        entry
        for entry in json_values.objects(answer.get("evidence"))
        if _exact(json_values.text(entry.get("path")), data) is not None
    ]
    return {"data": data, "evidence": evidence}


def _position(path: str) -> int:
    return int(path.rpartition("/")[2])


def _at(value: JsonValue, path: str) -> JsonValue:
    """Return the value at a path of object members; null if there is none."""
    for step in json_values.steps(path):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _with(value: JsonValue, steps: Sequence[str], new: JsonValue) -> JsonValue:
    if not steps or not isinstance(value, dict):
        return new
    return {**value, steps[0]: _with(value.get(steps[0]), steps[1:], new)}


def _is_below(path: str, entry: JsonObject) -> bool:
    return json_values.is_within(json_values.text(entry.get("path")), path)


def _same(one: JsonValue, other: JsonValue) -> bool:
    return _folded(one) == _folded(other)


def _folded(value: JsonValue) -> str:
    """Return a text that is equal for equivalent values: 7 equals 7.0, and case is ignored."""
    if isinstance(value, str):
        value = " ".join(value.casefold().split())
    return canonical_json(int(value) if isinstance(value, float) and value.is_integer() else value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value in the data of a part, with its path there."""

    part: int
    path: str
    content: JsonValue

    def members(self) -> dict[str, _Value]:
        members = self.content if isinstance(self.content, dict) else {}
        return {name: self._child(name, value) for name, value in members.items()}

    def items(self) -> list[_Value]:
        items = self.content if isinstance(self.content, list) else []
        return [self._child(position, value) for position, value in enumerate(items)]

    def _child(self, step: str | int, content: JsonValue) -> _Value:
        return replace(self, path=json_values.pointer(self.path, step), content=content)


_Row: TypeAlias = list[_Value]
"""A row of a list: one value, or several if the row continues from part to part."""


@dataclass
class _Merge:
    """The places of the values of the parts in the merged data.

    `joined` holds objects and lists that became parts of larger ones, `moved` values that were
    taken over as a whole. `repeated` holds for each part the rows that are left out, and
    `continued` those that continue the previous row. `contested` holds the places on which the
    parts differ.
    """

    repeated: Sequence[Collection[str]]
    continued: Sequence[Collection[str]]
    contested: list[str] = field(default_factory=list)
    joined: dict[tuple[int, str], str] = field(default_factory=dict)
    moved: dict[tuple[int, str], str] = field(default_factory=dict)

    def join(self, values: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        filled = [value for value in values if json_values.is_filled(value.content)] or list(values)
        if all(isinstance(value.content, dict) for value in filled):
            return self._join_objects(filled, node, place)
        if all(isinstance(value.content, list) for value in filled) and not node.is_tuple:
            self._record(self.joined, values, place)
            return self._join_lists(filled, node, place)
        first = filled[0].content
        agreeing = [value for value in filled if _same(value.content, first)]
        self._record(self.moved, agreeing, place)
        if len(agreeing) < len(filled):
            self.contested.append(place)
        return first

    def evidence(self, answers: Sequence[JsonObject]) -> Iterator[JsonValue]:
        """Yield the evidence of the kept values, with their new paths."""
        for part, answer in enumerate(answers):
            for entry in json_values.objects(answer.get("evidence")):
                path = json_values.text(entry.get("path"))
                exact = _exact(path, answer.get("data"))
                followed = path if exact is None else self._followed(part, exact)
                if followed is not None:
                    yield {**entry, "path": followed}

    def _join_objects(self, filled: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        self._record(self.joined, filled, place)
        objects = [value.members() for value in filled]
        names = dict.fromkeys(name for members in objects for name in members)
        return {
            name: self.join(
                [members[name] for members in objects if name in members],
                node.member(name),
                json_values.pointer(place, name),
            )
            for name in names
        }

    def _join_lists(self, filled: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        lists = self._rows_of(filled)
        rows = _first_of_each(lists) if node.is_unique else lists
        if node.max_items is not None:
            kept = round_robin(rows, node.max_items)
        else:
            kept = [row for listed in rows for row in listed]
        paths = [json_values.pointer(place, position) for position in range(len(kept))]
        if node.is_unique:
            texts = [canonical_json(row[0].content) for row in kept]
            path_of = dict(zip(texts, paths, strict=True))
            for row in (row for listed in lists for row in listed):
                if path := path_of.get(canonical_json(row[0].content)):
                    self._record(self.moved, row, path)
        return [self._joined_row(*row, node.items) for row in zip(kept, paths, strict=True)]

    def _rows_of(self, filled: Sequence[_Value]) -> list[list[_Row]]:
        """Return the rows of each list, joined with their continuations in later lists."""
        lists: list[list[_Row]] = []
        last: _Row = []
        for value in filled:
            lists.append([])
            for item in value.items():
                if item.path in self.continued[item.part] and last:
                    last.append(item)
                elif item.path not in self.repeated[item.part]:
                    last = [item]
                    lists[-1].append(last)
        return lists

    def _joined_row(self, parts: _Row, place: str, node: SchemaNode) -> JsonValue:
        if len(parts) > 1:
            return self.join(parts, node, place)
        self._record(self.moved, parts, place)
        return parts[0].content

    def _record(
        self, where: dict[tuple[int, str], str], values: Sequence[_Value], place: str
    ) -> None:
        where.update({(value.part, value.path): place for value in values})

    def _followed(self, part: int, path: str) -> str | None:
        """Return the path of a value of a part in the merged data; `None` if it was dropped."""
        if (part, path) in self.joined:
            return self.joined[part, path]
        beginning, rest = path, ""
        while beginning and (part, beginning) not in self.moved:
            beginning, _, step = beginning.rpartition("/")
            rest = f"/{step}{rest}"
        place = self.moved.get((part, beginning))
        return None if place is None else f"{place}{rest}"


def _first_of_each(lists: Sequence[Sequence[_Row]]) -> list[list[_Row]]:
    """Return the lists without repeated values, within a list and across lists."""
    seen: set[str] = set()
    kept: list[list[_Row]] = []
    for rows in lists:
        kept.append([])
        for row in rows:
            if (key := canonical_json(row[0].content)) not in seen:
                seen.add(key)
                kept[-1].append(row)
    return kept


def quoted_values(answer: JsonObject) -> int:
    """Return how many values the evidence supports, counting a value once for each of its entries.

    The number can grow with the square of the size of an answer; `with_marks` checks each value.
    """
    data, inside = answer.get("data"), Counter[str]()
    for path, _ in json_values.scalars(data):
        inside.update(json_values.upward(path))
    paths = (json_values.text(e.get("path")) for e in json_values.objects(answer.get("evidence")))
    return sum(inside[exact] for path in paths if (exact := _exact(path, data)) is not None)


def with_marks(answer: JsonObject, schema: JsonObject) -> JsonObject:
    """Mark for each value with evidence whether it occurs there (see `value_in_quote`)."""
    root, data = SchemaNode.root_of(schema), answer.get("data")
    evidence = json_values.objects(answer.get("evidence"))
    return {**answer, "evidence": [_marked(entry, data, root) for entry in evidence]}


def without_evidence(answer: JsonObject, schema: JsonObject) -> list[str]:
    """Return the paths of the numbers, dates, names and codes without evidence.

    Evidence counts for the value that it names and for all values nested in it.
    """
    root, data = SchemaNode.root_of(schema), answer.get("data")
    entries = json_values.objects(answer.get("evidence"))
    quoted = [json_values.text(entry.get("path")) for entry in entries if entry.get("quote")]
    covered = {exact for path in quoted if (exact := _exact(path, data))}
    return [
        path
        for path, value in json_values.scalars(data)
        if value is not None
        and not isinstance(value, bool)
        and covered.isdisjoint(json_values.upward(path))
        and _inside(data, root, json_values.steps(path))[1].occurs_in(value, "", [path]) is not None
    ]


def _marked(entry: JsonObject, data: JsonValue, root: SchemaNode) -> JsonObject:
    quote, path = (json_values.text(entry.get(name)) for name in ("quote", "path"))
    exact = _exact(path, data)
    if not quote or exact is None:
        return {**entry, value_in_quote.MARK: None}
    names = json_values.steps(exact)
    value, node = _inside(data, root, names)
    if not isinstance(value, dict | list):
        return {**entry, value_in_quote.MARK: node.occurs_in(value, quote, names)}
    marks: JsonObject = {}
    for below, leaf in json_values.scalars(value):
        steps = json_values.steps(below)
        occurs = _inside(value, node, steps)[1].occurs_in(leaf, quote, [*names, *steps])
        marks |= {} if occurs is None else {below: occurs}
    return {**entry, value_in_quote.MARK: marks}


def _inside(
    value: JsonValue, node: SchemaNode, names: Sequence[str]
) -> tuple[JsonValue, SchemaNode]:
    for name in names:
        if isinstance(value, list):
            value, node = value[int(name)], node.items
        elif isinstance(value, dict):
            value, node = value[name], node.member(name)
    return value, node


def _exact(path: str, value: JsonValue) -> str | None:
    """Return the normalized form of a JSON Pointer; `None` if it leads to no nested value."""
    exact = ""
    for name in json_values.steps(path):
        if isinstance(value, dict) and name in value:
            value, exact = value[name], json_values.pointer(exact, name)
        elif isinstance(value, list) and json_values.is_position(name, value):
            value, exact = value[int(name)], json_values.pointer(exact, int(name))
        else:
            return None
    return exact or None
