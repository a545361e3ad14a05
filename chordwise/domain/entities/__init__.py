"""Entities: which values of a column name the same person, organization or place.

Spellings that say the same are joined first, then those that say less (without a legal form, with
initials, as an acronym) if only one entity says more, and last words with typing errors. Names are
compared within blocks of the same initials or final letters only. What is similar and was not
joined is a doubtful pair, on which a person or a model decides; `entities` replays the decisions.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import combinations, pairwise
from operator import itemgetter

from rapidfuzz import process
from rapidfuzz.distance import OSA, Prefix

from chordwise.domain.entities.spellings import EntityKind, Name, is_known, parsed


@dataclass(frozen=True, slots=True)
class DoubtfulPair:
    """Two values that may name the same; `likeness` is between 0 and 1."""

    value: str
    other: str
    reason: str
    likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedValues:
    """The value that each new value joins (the first itself), the reason, and doubtful pairs."""

    joins: Mapping[str, tuple[str, str]]
    doubtful: Sequence[DoubtfulPair]


def group(
    counts: Mapping[str, int], kind: EntityKind, known: Mapping[str, Hashable] | None = None
) -> GroupedValues:
    """Group the values of a column; `counts` tells how often a value occurs.

    `known` has the entities of earlier values: these stay as they are, and a value that fits two
    of them joins none.
    """
    grouper = _Grouper(kind, counts, known or {})
    grouper.join_equal()
    grouper.join_forms()
    grouper.join_misspelled()
    grouper.join_shortened()
    return grouper.grouping()


@dataclass
class _Node:
    """Values that say the same, the most frequent first, and the entity of earlier ones."""

    name: Name
    values: list[str]
    entity: Hashable = None
    forms: set[frozenset[str]] = field(default_factory=set)
    reason: str = ""


_MAX_DOUBTS = 3
_SAME, _LESS, _TRANSLITERATION = "the same words", "a shorter form", "transliteration"
_OTHER_FORM = "another form"
_NO_FORM: frozenset[str] = frozenset()
_MIN_SOUNDS = 8
_LARGE_BLOCK = 1_000
_MAX_EDITS = 3


class _Grouper:
    """The state of a grouping: nodes, joined to trees whose root is the fullest name."""

    def __init__(
        self, kind: EntityKind, counts: Mapping[str, int], known: Mapping[str, Hashable]
    ) -> None:
        self._kind = kind
        self._known = known
        self._counts = counts
        self._nodes: list[_Node] = []
        self._parents: list[int] = []
        self._doubtful: dict[tuple[int, int], tuple[str, float]] = {}
        self._established: frozenset[str] = frozenset()

    def join_equal(self) -> None:
        """Those of two known entities stay apart."""
        same: dict[Hashable, list[tuple[str, Name]]] = defaultdict(list)
        for value in sorted(self._counts, key=lambda value: (-self._counts[value], value)):
            name = parsed(value, self._kind)
            same[name.sorted_words, name.marks, name.forms].append((value, name))
        for spellings in same.values():
            entities = dict.fromkeys(self._known.get(value) for value, _ in spellings)
            entities.pop(None, None)
            by_entity: dict[Hashable, list[tuple[str, Name]]] = defaultdict(list)
            only = next(iter(entities)) if len(entities) == 1 else None
            for value, name in spellings:
                by_entity[self._known.get(value, only)].append((value, name))
            for entity, members in by_entity.items():
                values = [value for value, _ in members]
                self._nodes.append(
                    _Node(self._usual(members), values, entity, {members[0][1].forms} - {_NO_FORM})
                )
            last = len(self._nodes)
            for a, b in combinations(range(last - len(by_entity), last), 2):
                self._doubt(a, b, _SAME, 1.0)
        self._parents = list(range(len(self._nodes)))
        self._established = _established_words(node.name for node in self._nodes)
        for nodes in self._by(lambda name: ("".join(name.words), name.marks, name.forms)).values():
            self._join_all(nodes, _SAME)
        self._join_romanized()

    def _usual(self, spellings: Sequence[tuple[str, Name]]) -> Name:
        """Return the name whose words have the most frequent order."""
        orders: Counter[tuple[str, ...]] = Counter()
        for value, name in spellings:
            orders[name.words] += self._counts[value]
        usual = orders.most_common(1)[0][0]
        return next(name for _, name in spellings if name.words == usual)

    def join_forms(self) -> None:
        """Join names without a legal form or region to the only entity that has one."""
        by_words = self._by(lambda name: (name.sorted_words, name.marks))
        compact = self._by(lambda name: ("".join(name.words), name.marks))
        for nodes in (*by_words.values(), *compact.values()):
            bare = [node for node in nodes if not self._nodes[node].name.forms]
            fuller = [node for node in nodes if self._nodes[node].name.forms]
            for node in bare:
                self._join_only(node, fuller, _LESS)
            for a, b in combinations(fuller[:_MAX_DOUBTS], 2):
                is_part = self._nodes[a].name.forms != self._nodes[b].name.forms
                if is_part and self._may_join(a, b):
                    self._join(a, b, _LESS)
                elif self._root(a) != self._root(b):
                    self._doubt(a, b, _OTHER_FORM, 0.95)

    def join_misspelled(self) -> None:
        edges: dict[tuple[int, int], _Likeness] = {}
        for block in self._blocks():
            for a, b in _similar(block, [self._nodes[node].name.text for node in block]):
                names = self._nodes[a].name, self._nodes[b].name
                if (a, b) not in edges and names[0].text != names[1].text:
                    edges[a, b] = _compared(*names, self._established)
        ambiguous = self._ambiguous(pair for pair, likeness in edges.items() if likeness.is_same)
        for (a, b), likeness in sorted(edges.items(), key=lambda edge: (-edge[1].value, edge[0])):
            is_clear = likeness.is_same and ambiguous.isdisjoint((a, b))
            fullest = self._nodes[self._root(a)].name, self._nodes[self._root(b)].name
            fits = is_clear and not _are_apart(*fullest, self._established)
            if fits and self._may_join(a, b):
                self._join(a, b, likeness.reason)
            elif likeness.is_same or likeness.is_doubtful:
                self._doubt(a, b, likeness.reason, likeness.value)

    def _ambiguous(self, pairs: Iterable[tuple[int, int]]) -> set[int]:
        """Return the nodes that are like several entities, or like names with several forms."""
        alike: dict[int, set[int]] = defaultdict(set)
        for a, b in pairs:
            alike[a].add(self._root(b))
            alike[b].add(self._root(a))
        return {node for node, roots in alike.items() if self._is_ambiguous(node, roots)}

    def _is_ambiguous(self, node: int, roots: set[int]) -> bool:
        root = self._nodes[self._root(node)]
        forms = {form for other in roots for form in self._nodes[other].forms}
        is_of_one = root.entity is not None or len(self._entities(roots)) <= 1
        return not is_of_one or not (root.forms or _fit_forms(forms, self._kind))

    def join_shortened(self) -> None:
        """Join initials and acronyms to the only entity for which they stand."""
        if self._kind is EntityKind.PEOPLE:
            self._join_initials()
        if self._kind is EntityKind.ORGANIZATIONS:
            self._join_acronyms()

    def grouping(self) -> GroupedValues:
        joins: dict[str, tuple[str, str]] = {}
        earlier = [next((v for v in node.values if v in self._known), None) for node in self._nodes]
        heads = {self._root(n): value for n, value in enumerate(earlier) if value is not None}
        for index in sorted(range(len(self._nodes)), key=lambda n: self._root(n) != n):
            node = self._nodes[index]
            head = heads.setdefault(self._root(index), node.values[0])
            for value in node.values:
                if value not in self._known:
                    is_first = earlier[index] is None and value == node.values[0]
                    reason = node.reason or _SAME if is_first else _SAME
                    joins[value] = (earlier[index] or head, "" if value == head else reason)
        return GroupedValues(joins=joins, doubtful=list(self._pairs()))

    def _pairs(self) -> Iterator[DoubtfulPair]:
        """Yield the pairs of different entities with a new value, the most similar first."""
        shown: Counter[int] = Counter()
        by_likeness = sorted(self._doubtful.items(), key=lambda pair: (-pair[1][1], pair[0]))
        for (a, b), (reason, likeness) in by_likeness:
            new = [n for n in (a, b) if not self._known.keys() >= set(self._nodes[n].values)]
            is_open = self._root(a) != self._root(b) and self._nodes[a].name != self._nodes[b].name
            if new and (is_open or reason == _SAME) and max(shown[a], shown[b]) < _MAX_DOUBTS:
                shown.update((a, b))
                value, other = (self._nodes[node].values[0] for node in (a, b))
                yield DoubtfulPair(value, other, reason, likeness)

    # Joining

    def _root(self, node: int) -> int:
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def _may_join(self, a: int, b: int) -> bool:
        """Return whether no mark, form or known entity keeps two nodes apart."""
        first, second = self._nodes[self._root(a)], self._nodes[self._root(b)]
        if first.name.marks != second.name.marks or first is second:
            return first is second
        if None not in (first.entity, second.entity) and first.entity != second.entity:
            return False
        return _fit_forms(first.forms | second.forms, self._kind)

    def _join(self, a: int, b: int, reason: str) -> None:
        first, second = sorted((self._root(a), self._root(b)), key=self._fullness, reverse=True)
        if first == second:
            return
        head, other = self._nodes[first], self._nodes[second]
        self._parents[second] = first
        head.forms |= other.forms
        head.entity = head.entity if head.entity is not None else other.entity
        for node in (a, b):
            if node != first and not self._nodes[node].reason:
                self._nodes[node].reason = reason
        other.reason = other.reason or reason

    def _fullness(self, node: int) -> tuple[int, ...]:
        name, values = self._nodes[node].name, self._nodes[node].values
        occurrences = sum(self._counts[value] for value in values)
        full = sum(len(word) > 1 for word in name.words)
        known = sum(is_known(word, self._kind) for word in name.words)
        return full, len(name.words), known, occurrences, -node

    def _join_only(self, node: int, candidates: Iterable[int], reason: str) -> None:
        """Join a node to the only entity among the candidates; several are doubtful."""
        roots = dict.fromkeys(map(self._root, candidates))
        if not roots or self._root(node) in roots:
            return
        fitting = [root for root in roots if self._may_join(node, root)]
        if len(fitting) == len(roots) == 1:
            self._join(node, fitting[0], reason)
        else:
            for root in [*roots][:_MAX_DOUBTS]:
                self._doubt(node, root, f"{reason} of several names", 0.9)

    def _doubt(self, a: int, b: int, reason: str, likeness: float) -> None:
        self._doubtful.setdefault((min(a, b), max(a, b)), (reason, likeness))

    def _by(self, key: Callable[[Name], Hashable]) -> Mapping[Hashable, list[int]]:
        nodes: dict[Hashable, list[int]] = defaultdict(list)
        for index, node in enumerate(self._nodes):
            nodes[key(node.name)].append(index)
        return nodes

    def _join_all(self, nodes: Sequence[int], reason: str) -> None:
        """Join nodes with each other, unless earlier values have divided them."""
        if len(self._entities(nodes)) > 1:
            for a, b in combinations(nodes[:_MAX_DOUBTS], 2):
                self._doubt(a, b, reason, 1.0)
            return
        for a, b in pairwise(nodes):
            if self._may_join(a, b):
                self._join(a, b, reason)

    def _entities(self, nodes: Iterable[int]) -> set[Hashable]:
        return {self._nodes[self._root(node)].entity for node in nodes} - {None}

    # The rules of a kind

    def _join_romanized(self) -> None:
        """Join names that sound alike if one of them is in another script."""
        romanized = {n for n, node in enumerate(self._nodes) if node.name.is_romanized}
        if not romanized:
            return
        for nodes in self._by(lambda name: (name.romanized, name.marks)).values():
            if not romanized.isdisjoint(nodes):
                self._join_all(nodes, _TRANSLITERATION)
        sounds = self._by(lambda name: (_initials(name.romanized.split()), name.marks))
        for nodes in sounds.values():
            texts = {node: self._nodes[node].name.romanized for node in nodes}
            for node in romanized.intersection(nodes):
                max_edits = 2 if len(texts[node]) >= _MIN_SOUNDS else 0
                alike = process.extract(
                    texts[node], texts, scorer=OSA.distance, score_cutoff=max_edits, limit=None
                )
                others = [n for _, _, n in alike if self._root(n) != self._root(node)]
                self._join_only(node, others, _TRANSLITERATION)

    def _join_initials(self) -> None:
        """Join a name with initials, or without middle names, to the only fuller one."""
        families: dict[Hashable, list[int]] = defaultdict(list)
        for index, person in enumerate(self._nodes):
            words = person.name.words
            if len(words) > 1:
                families[words[-1], words[0][0], person.name.marks].append(index)
        for nodes in families.values():
            by_length = sorted(nodes, key=lambda n: (-len(self._nodes[n].name.text), n))
            for place, node in enumerate(by_length):
                name = self._nodes[node].name
                fuller = [n for n in by_length[:place] if _is_short_for(name, self._nodes[n].name)]
                self._join_only(node, fuller, "initials")
        for nodes in self._by(lambda name: name.sorted_words).values():
            for a, b in combinations(nodes[:_MAX_DOUBTS], 2):
                if not all(self._nodes[node].name.marks for node in (a, b)):
                    self._doubt(a, b, "without a generation", 0.9)

    def _join_acronyms(self) -> None:
        acronyms = self._by(lambda name: (name.acronym, name.marks))
        spelled: dict[Hashable, list[int]] = defaultdict(list)
        for index, name in enumerate(node.name for node in self._nodes):
            for letters in {_initials(name.words), _initials(name.content)}:
                if (letters, name.marks) in acronyms and len(name.words) > 1:
                    spelled[letters, name.marks].append(index)
        for key, nodes in spelled.items():
            for node in acronyms[key]:
                self._join_only(node, nodes, "an acronym")

    def _blocks(self) -> Iterator[Sequence[int]]:
        """Yield the nodes with the same initials, and those with the same final letters."""
        by_first = self._by(lambda name: (name.marks, *(word[0] for word in name.words)))
        by_last = self._by(lambda name: (name.marks, *(word[-1] for word in name.words)))
        for blocks in (by_first, by_last):
            for nodes in blocks.values():
                yield from _divided(nodes, [self._nodes[node].name.text for node in nodes])


def _fit_forms(forms: set[frozenset[str]], kind: EntityKind) -> bool:
    """Return whether legal forms are the same, or regions are parts of each other."""
    if kind is EntityKind.PLACES:
        return all(a <= b or b <= a for a, b in combinations(forms, 2))
    return len(forms) <= 1


def _is_short_for(name: Name, fuller: Name) -> bool:
    """Return whether a name of a person leaves out middle names of another, or has initials."""
    first, other = name.words[0], fuller.words[0]
    middle, middles = name.words[1:-1], fuller.words[1:-1]
    if first != other and not _is_initial(first, other):
        return False
    return len(middle) <= len(middles) and all(map(_is_initial, middle, middles))


def _is_initial(word: str, full: str) -> bool:
    return word == full or (len(word) == 1 and full.startswith(word))


def _initials(words: Sequence[str]) -> str:
    return "".join(word[0] for word in words)


def _divided(nodes: Sequence[int], texts: Sequence[str]) -> Iterator[Sequence[int]]:
    """Yield a block in parts of the same first or last letters if it is large."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for node, text in zip(nodes, texts, strict=True):
        if len(nodes) <= _LARGE_BLOCK:
            parts["whole"].append(node)
        else:
            parts["start", text[:3]].append(node)
            parts["end", text[-3:]].append(node)
    yield from (part for part in parts.values() if len(part) > 1)


def _similar(block: Sequence[int], texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a block that differ in a few letters."""
    places = sorted(range(len(block)), key=lambda place: len(texts[place]))
    ordered = [texts[place] for place in places]
    end = 0
    for start, text in enumerate(ordered):
        end = max(end, start + 1)
        while end < len(ordered) and len(ordered[end]) <= len(text) + _MAX_EDITS:
            end += 1
        others = ordered[start + 1 : end]
        matches = process.extract(
            text, others, scorer=OSA.distance, score_cutoff=_MAX_EDITS, limit=None
        )
        for _, _, offset in matches:
            pair = block[places[start]], block[places[start + 1 + offset]]
            yield min(pair), max(pair)


# Typing errors: whether two words that differ in a letter are one word misspelled


@dataclass(frozen=True, slots=True)
class _Likeness:
    """How alike two names are, from 0 to 1, and whether they are the same or may be."""

    value: float
    reason: str
    is_same: bool = False
    is_doubtful: bool = False


_DIFFERENT = _Likeness(0.0, "")
_MIN_USES, _MIN_PREFIX = 3, 3
_MIN_DOUBTFUL = 0.85
_LONG_NAME = 16
_VOWELS = frozenset("aeiouy")
_SHORT_WORD, _LONG_WORD, _MUCH_ELSE = 4, 9, 8


def _established_words(names: Iterable[Name]) -> frozenset[str]:
    """Return the words that several different names have, so that they are no misspellings."""
    uses: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for name in names:
        for place, word in enumerate(name.words):
            if len(uses[word]) < _MIN_USES:
                uses[word].add((*name.words[:place], *name.words[place + 1 :]))
    return frozenset(word for word, rests in uses.items() if len(rests) >= _MIN_USES)


def _compared(a: Name, b: Name, established: frozenset[str]) -> _Likeness:
    """Compare two names with the same number of words, word by word."""
    if len(a.words) != len(b.words):
        return _DIFFERENT
    likeness = OSA.normalized_similarity(a.text, b.text)
    different = [(x, y) for x, y in zip(a.words, b.words, strict=True) if x != y]
    if not different:
        return _Likeness(likeness, "the same words", is_same=True)
    if len(different) == 1 and _is_shortened(different[0], a.shortened | b.shortened):
        return _Likeness(likeness, "an abbreviation", is_same=a.kind is EntityKind.ORGANIZATIONS)
    common = sum(len(x) for x, y in zip(a.words, b.words, strict=True) if x == y)
    is_error = partial(_is_error, kind=a.kind, common=common, established=established)
    max_errors = 2 if len(a.text) >= _LONG_NAME else 1
    is_same = len(different) <= max_errors and all(is_error(*words) for words in different)
    is_doubtful = likeness >= _MIN_DOUBTFUL and not any(len(x) == 1 == len(y) for x, y in different)
    return _Likeness(likeness, "a typing error", is_same=is_same, is_doubtful=is_doubtful)


def _are_apart(a: Name, b: Name, established: frozenset[str]) -> bool:
    """Return whether names with the same number of words are too different for one entity."""
    if len(a.words) != len(b.words):
        return False
    different = [(x, y) for x, y in zip(a.words, b.words, strict=True) if x != y]
    known = ([_is_known(word, a.kind, established) for word in pair] for pair in different)
    return any(map(all, known)) or OSA.distance(a.text, b.text) > _MAX_EDITS


def _is_known(word: str, kind: EntityKind, established: frozenset[str]) -> bool:
    return word in established or is_known(word, kind)


def _is_shortened(pair: tuple[str, str], shortened: frozenset[str]) -> bool:
    short, full = sorted(pair, key=len)
    return short in shortened and len(short) >= _MIN_PREFIX and full.startswith(short)


def _is_error(
    a: str, b: str, *, kind: EntityKind, common: int, established: frozenset[str]
) -> bool:
    """`common` is the number of letters in the words that both names have."""
    known = [_is_known(word, kind, established) for word in (a, b)]
    shortest = min(len(a), len(b))
    if all(known) or shortest < _SHORT_WORD or not (a + b).isalpha():
        return False
    distance = OSA.distance(a, b, score_cutoff=2)
    if distance > (2 if shortest >= _LONG_WORD and (any(known) or common) else 1):
        return False
    is_swap = sorted(a) == sorted(b)
    if shortest == _SHORT_WORD and not (is_swap or (any(known) and common)):
        return False
    if a[0] != b[0] and not (is_swap or common >= _MUCH_ELSE or any(known)):
        return False
    if kind is EntityKind.PEOPLE:
        return any(known) or not _are_variants(a, b)
    return bool(common) or any(known) or shortest > _SHORT_WORD + 1


def _are_variants(a: str, b: str) -> bool:
    """Return whether two names of people are likely two names, such as Hansen and Hanson."""
    start = Prefix.similarity(a, b)
    rest_a, rest_b = a[start:], b[start:]
    if a[-1] != b[-1] and sorted(a) != sorted(b):
        return True  # the last letter: Daniel and Daniela
    if len(a) == len(b):
        return {rest_a[0], rest_b[0]} <= _VOWELS and rest_a[1:] == rest_b[1:]
    return max(rest_a, rest_b, key=len)[0] in "hpty"  # Thomson and Thompson


# The decisions of people, which are replayed in their order


class Action(StrEnum):
    """What a decision does; stored in `entity_decisions.action`."""

    MERGE = "merge"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Decision:
    """All names are one entity, or the others are not the first one but another."""

    id: uuid.UUID
    action: Action
    names: Sequence[str]


def entities(
    joins: Mapping[str, tuple[uuid.UUID, str]], decisions: Iterable[Decision]
) -> dict[str, uuid.UUID]:
    """Return the identity of the entity of each value.

    `joins` has the id of a value and the value that it joined. Ids ascend with time: a value is
    where the other one was when it joined. A decision is not replayed before its values.
    """
    events: list[tuple[uuid.UUID, int, str | Decision]] = [
        (id_, -1, value) for value, (id_, _) in joins.items()
    ]
    for number, decision in enumerate(decisions):
        if joins.keys() >= {*decision.names}:
            last = max(joins[name][0] for name in decision.names)
            events.append((max(decision.id, last), number, decision))
    replay = _Replay()
    for id_, _, event in sorted(events, key=itemgetter(0, 1)):
        if isinstance(event, Decision):
            replay.decide(event)
        else:
            replay.move([event], replay.entity.get(joins[event][1], id_))
    return replay.entity


class _Replay:
    def __init__(self) -> None:
        self.entity: dict[str, uuid.UUID] = {}
        self._members: dict[uuid.UUID, set[str]] = defaultdict(set)

    def move(self, values: Iterable[str], target: uuid.UUID) -> None:
        for value in values:
            self._members[self.entity.get(value, target)].discard(value)
            self.entity[value] = target
            self._members[target].add(value)

    def decide(self, decision: Decision) -> None:
        first, *others = decision.names
        entity = self.entity[first]
        if decision.action is Action.SPLIT:
            self.move((name for name in others if self.entity[name] == entity), decision.id)
            return
        for other in others:
            self.move([*self._members[self.entity[other]]], entity)
