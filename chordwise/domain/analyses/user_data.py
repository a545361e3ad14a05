"""Merging what the chunks say under a user's own schema; evidence follows its value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from chordwise.domain import json_values
from chordwise.domain.analyses.analysis import take_turns
from chordwise.domain.analyses.user_lists import SchemaNode, identity
from chordwise.domain.json_values import JsonObject, JsonValue


def merge(answers: Sequence[JsonObject], schema: JsonObject) -> JsonObject:
    """Merge by shape: objects by member, lists joined, else the first that says something.

    Chunks do not overlap, so equal rows of two chunks stand at different places and are two rows.
    Only a list of distinct values (`uniqueItems`) drops repetitions, and only one with `maxItems`
    drops rows. Evidence is kept for the values that are kept, with the paths that they have in the
    merged data; a path that leads nowhere in its own part's data stays as the model wrote it.
    """
    merge_ = _Merge()
    parts = [
        _Value(part=number, path="", content=answer.get("data"))
        for number, answer in enumerate(answers)
    ]
    data = merge_.join(parts, SchemaNode.of(schema), "")
    return {"data": data, "evidence": list(merge_.evidence(answers))}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value in the data of a part, and its place there."""

    part: int
    path: str
    content: JsonValue

    @property
    def is_said(self) -> bool:
        return self.content not in (None, "", [], {})

    def members(self) -> dict[str, _Value]:
        members = self.content if isinstance(self.content, dict) else {}
        return {name: self._child(name, value) for name, value in members.items()}

    def items(self) -> list[_Value]:
        items = self.content if isinstance(self.content, list) else []
        return [self._child(position, value) for position, value in enumerate(items)]

    def _child(self, step: str | int, content: JsonValue) -> _Value:
        return replace(self, path=json_values.pointer(self.path, step), content=content)


@dataclass
class _Merge:
    """Where the values of the parts stand in the merged data.

    `joined` are objects and lists that became a part of a larger one, `moved` values that were
    taken over as a whole.
    """

    joined: dict[tuple[int, str], str] = field(default_factory=dict)
    moved: dict[tuple[int, str], str] = field(default_factory=dict)

    def join(self, values: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        """Return the merged value, which will stand at `place`."""
        said = [value for value in values if value.is_said] or list(values)
        if all(isinstance(value.content, dict) for value in said):
            return self._join_objects(said, node, place)
        if all(isinstance(value.content, list) for value in said) and not node.is_tuple:
            self._note(self.joined, values, place)
            return self._join_lists(said, node, place)
        first = identity(said[0].content)
        self._note(self.moved, [each for each in said if identity(each.content) == first], place)
        return said[0].content

    def evidence(self, answers: Sequence[JsonObject]) -> Iterator[JsonValue]:
        """Yield the evidence of the values that were kept, with their new paths."""
        for part, answer in enumerate(answers):
            for entry in json_values.objects(answer.get("evidence")):
                path = json_values.text(entry.get("path"))
                exact = _exact(path, answer.get("data"))
                followed = path if exact is None else self._followed(part, exact)
                if followed is not None:
                    yield {**entry, "path": followed}

    def _join_objects(self, said: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        self._note(self.joined, said, place)
        objects = [value.members() for value in said]
        names = dict.fromkeys(name for members in objects for name in members)
        return {
            name: self.join(
                [members[name] for members in objects if name in members],
                node.member(name),
                json_values.pointer(place, name),
            )
            for name in names
        }

    def _join_lists(self, said: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        lists = [value.items() for value in said]
        rows = _first_of_each(lists) if node.is_unique else lists
        if node.max_items is not None:
            kept = take_turns(rows, node.max_items)
        else:
            kept = [row for each in rows for row in each]
        for position, row in enumerate(kept):
            self._note(self.moved, [row], json_values.pointer(place, position))
        if node.is_unique:
            self._note_repetitions(kept, lists, place)
        return [row.content for row in kept]

    def _note_repetitions(
        self, kept: Sequence[_Value], lists: Sequence[Sequence[_Value]], place: str
    ) -> None:
        positions = {identity(row.content): position for position, row in enumerate(kept)}
        for row in (row for each in lists for row in each):
            position = positions.get(identity(row.content))
            if position is not None:
                self._note(self.moved, [row], json_values.pointer(place, position))

    def _note(
        self, where: dict[tuple[int, str], str], values: Sequence[_Value], place: str
    ) -> None:
        where.update({(value.part, value.path): place for value in values})

    def _followed(self, part: int, path: str) -> str | None:
        """Return where a value of a part stands in the merged data; `None` if it was dropped."""
        if (part, path) in self.joined:
            return self.joined[part, path]
        beginning, rest = path, ""
        while beginning and (part, beginning) not in self.moved:
            beginning, _, step = beginning.rpartition("/")
            rest = f"/{step}{rest}"
        place = self.moved.get((part, beginning))
        return None if place is None else f"{place}{rest}"


def _first_of_each(lists: Sequence[Sequence[_Value]]) -> list[list[_Value]]:
    """Return the lists without the values that came before, in the same list or another."""
    seen: set[str] = set()
    kept: list[list[_Value]] = []
    for rows in lists:
        kept.append([])
        for row in rows:
            if (own := identity(row.content)) not in seen:
                seen.add(own)
                kept[-1].append(row)
    return kept


def _exact(path: str, value: JsonValue) -> str | None:
    """Return a JSON Pointer in its usual form; `None` where it leads to no value inside."""
    exact = ""
    for name in json_values.steps(path):
        if isinstance(value, dict) and name in value:
            value, exact = value[name], json_values.pointer(exact, name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value, exact = value[int(name)], json_values.pointer(exact, int(name))
        else:
            return None
    return exact or None
