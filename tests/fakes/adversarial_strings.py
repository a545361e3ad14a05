"""Strings that make a regular expression backtrack, built from its own parse tree.

An attack on a pattern consists of a prefix that leads to a repetition, a piece that the repetition
matches many times, and an end at which the match fails.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TypeAlias

Node: TypeAlias = tuple[object, object]

_ENDS = ("", "\x01", " x", "A \x01", "\n", "0.")
"""Ends that most repetitions do not match."""
_FREQUENT = (
    "A",
    "a",
    "0",
    " ",
    "\n",
    "\t",
    ".",
    "-",
    "(",
    '"',
    "\r\n",
    "a ",
    "A a ",
    "0,",
    "\u0e01",
)
_SAMPLES = "aAz09 \n\t_.,-:;/@(<[\"'#|*=\u00e9\u0e01\x00\x07\x13\x1b"
_MAX_EXAMPLES = 4

_parse: Callable[[str | bytes, int], Sequence[Node]] = import_module("re._parser").parse
_CATEGORIES = {
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
}


@dataclass(frozen=True, slots=True)
class Attack:
    """A string of any length: `prefix`, `pump` repeated to fill the length, and `end`."""

    prefix: str
    pump: str
    end: str

    def of_length(self, length: int) -> str:
        return self.prefix + self.pump * (length // len(self.pump)) + self.end


def attacks(pattern: re.Pattern[str] | re.Pattern[bytes]) -> list[Attack]:
    """Return attacks on each repetition of a pattern, and attacks with frequent characters."""
    tree = list(_parse(pattern.pattern, pattern.flags))
    pumped = [(lead, pump) for lead, pump in _repetitions(tree, "") if pump]
    pumped += [("", pump) for pump in _FREQUENT]
    return [Attack(*pieces, end) for pieces in dict.fromkeys(pumped) for end in _ENDS]


def _repetitions(nodes: Sequence[Node], before: str) -> Iterator[tuple[str, str]]:
    """Yield for each repetition a text that leads to it, and a piece that it matches."""
    lead = before
    for node in nodes:
        if _is_repetition(node):
            pieces = _examples(_children(node)[0])
            pairs = map("".join, itertools.permutations(pieces, 2))
            yield from itertools.product([lead], [*pieces, *pairs])
        for child in _children(node):
            yield from _repetitions(child, lead)
        lead += _of_node(node)[0]


def _is_repetition(node: Node) -> bool:
    return str(node[0]).endswith("_REPEAT") and isinstance(node[1], tuple) and node[1][1] > 1


def _children(node: Node) -> list[list[Node]]:
    children: list[list[Node]] = []
    waiting = [node[1]]
    while waiting:
        value = waiting.pop(0)
        inside = getattr(value, "data", None)
        if isinstance(value, tuple | list):
            waiting.extend(value)
        elif isinstance(inside, list):
            children.append(inside)
    return children


def _examples(nodes: Sequence[Node]) -> list[str]:
    """Return a few texts that a sequence of nodes matches, ignoring assertions."""
    texts = [""]
    for node in nodes:
        pairs = itertools.product(texts, _of_node(node))
        texts = ["".join(pair) for pair in itertools.islice(pairs, _MAX_EXAMPLES)]
    return texts


def _of_node(node: Node) -> list[str]:
    kind, value = str(node[0]), node[1]
    if kind == "LITERAL" and isinstance(value, int):
        return [chr(value)]
    if kind in ("IN", "NOT_LITERAL", "ANY"):
        taken = (candidate for candidate in _candidates(value) if _takes(kind, value, candidate))
        return list(itertools.islice(dict.fromkeys(taken), _MAX_EXAMPLES)) or [""]
    if kind in ("AT", "ASSERT_NOT", "ASSERT", "GROUPREF"):
        return [""]
    texts = [text for child in _children(node) for text in _examples(child)] or [""]
    if kind.endswith("_REPEAT") and isinstance(value, tuple):
        return [text * max(1, value[0]) for text in texts]
    return texts


def _candidates(value: object) -> Iterator[str]:
    """Yield characters that a set may match, starting with those that it names."""
    for name, bounds in value if isinstance(value, list) else []:
        if str(name) == "LITERAL":
            yield chr(bounds)
        elif str(name) == "RANGE":
            yield from map(chr, bounds)
    yield from _SAMPLES


def _takes(kind: str, value: object, sample: str) -> bool:
    if kind == "ANY":
        return sample != "\n"
    if kind == "NOT_LITERAL":
        return ord(sample) != value
    members = value if isinstance(value, list) else []
    is_member = any(_is_in(str(name), bounds, sample) for name, bounds in members)
    return is_member != any(str(name) == "NEGATE" for name, _ in members)


def _is_in(name: str, bounds: object, sample: str) -> bool:
    if name == "RANGE" and isinstance(bounds, tuple):
        return bool(bounds[0] <= ord(sample) <= bounds[1])
    if name == "CATEGORY":
        return _CATEGORIES[str(bounds)].match(sample) is not None
    return name == "LITERAL" and ord(sample) == bounds
