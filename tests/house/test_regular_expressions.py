"""Tests that no regular expression backtracks for long on the text of a document."""

from __future__ import annotations

import ast
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import NamedTuple, TypeAlias

import pytest

from tests.fakes.adversarial_strings import Attack, attacks
from tests.house.checkout import PACKAGES, ROOT, modules

Pattern: TypeAlias = re.Pattern[str] | re.Pattern[bytes]

EXTRACTIVE = "chordwise.domain.extractive."
READ_SENTENCES = (
    *(f"{EXTRACTIVE}{name}." for name in ("extraction", "values")),
    *(f"{EXTRACTIVE}forms.{name}" for name in ("_HEADING", "_NAMED")),
)
"""Patterns for single sentences, of at most 400 characters, or for the input of a user."""


class Growth(NamedTuple):
    """The maximum ratio between the times for strings of `large` and of `small` characters.

    If the small one takes less than `measurable` seconds, the large one is not tried.
    """

    small: int
    large: int
    factor: float
    measurable: float


LINEAR = Growth(2_000, 16_000, 24, 0.0003)  # of linear time: 8, of quadratic: 64
QUADRATIC = Growth(500, 2_000, 32, 0.005)  # of quadratic time: 16, of cubic: 64
PART, ALIKE = 8, 10.0
"""If a string takes at most ten times as long as an eighth of it, the large one is not tried."""
SHORT_CHARACTERS = 100
SHORT_SECONDS = 2.0  # microseconds, unless the time grows exponentially
LONG_SECONDS = 10.0
TRIES = 3
"""A busy machine may disturb one measurement, but hardly three in a row."""


class TooSlowError(Exception):
    """The process has exceeded its CPU time."""


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block when it exceeds this CPU time; other processes do not count.

    Raises:
        TooSlowError: It took longer.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@cache
def compiled() -> dict[str, Pattern]:
    """Return every pattern in the modules of Chordwise, by its place."""
    places: dict[Pattern, str] = {}
    for package in PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                for name, value in vars(import_module(module.name)).items():
                    for place, pattern in patterns_in(f"{module.name}.{name}", value):
                        places.setdefault(pattern, place)
    return {place: pattern for pattern, place in places.items()}


def patterns_in(place: str, value: object) -> Iterator[tuple[str, Pattern]]:
    if isinstance(value, re.Pattern):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from patterns_in(f"{place}[{key!s}]", item)
            yield from patterns_in(f"{place}[{key!s}]", key)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(value):
            yield from patterns_in(f"{place}[{number}]", item)


@cache
def calls() -> dict[str, set[str]]:
    """Return the methods that the code calls on each name."""
    methods: dict[str, set[str]] = {}
    for file in modules(*PACKAGES):
        for name, method in re.findall(r"\b(\w+)\.(\w+)\(", file.read_text("utf-8")):
            methods.setdefault(name, set()).add(method)
    return methods


def application(place: str, pattern: Pattern) -> Callable[[str], object]:
    """Return how a pattern is applied: only at the start if the code never searches with it."""
    methods = calls().get(place.rpartition(".")[2], set()) if "[" not in place else set()
    anchored = methods & {"match", "fullmatch"} if methods <= {"match", "fullmatch"} else ()

    def apply(text: str) -> None:
        subject = text if isinstance(pattern.pattern, str) else text.encode()
        for method in anchored:
            getattr(pattern, method)(subject)
        if not anchored:
            for _ in pattern.finditer(subject):  # type: ignore[arg-type]  # str or bytes alike
                pass

    return apply


def timed(apply: Callable[[str], object], text: str, limit: float) -> float:
    """Return the CPU seconds of a call."""
    with cpu_limit(limit):
        started = time.process_time()
        apply(text)
        return time.process_time() - started


def growth_of(place: str) -> Growth:
    return QUADRATIC if place.startswith(READ_SENTENCES) else LINEAR


def is_fast(
    apply: Callable[[str], object], growth: Growth, attack: Attack, tries: int = TRIES
) -> bool:
    """Return whether the time of a pattern grows no faster than allowed."""
    for _ in range(tries):
        try:
            timed(apply, attack.of_length(SHORT_CHARACTERS), SHORT_SECONDS)
            seconds = timed(apply, attack.of_length(growth.small), LONG_SECONDS)
            if seconds > growth.measurable:
                part = timed(apply, attack.of_length(growth.small // PART), LONG_SECONDS)
                if seconds > ALIKE * part:
                    timed(apply, attack.of_length(growth.large), seconds * growth.factor)
        except TooSlowError:
            continue
        return True
    return False


@pytest.mark.parametrize("place", sorted(compiled()))
def test_no_pattern_is_slow_on_adversarial_strings(place: str) -> None:
    """The time grows linearly with the length; for patterns of sentences, quadratically."""
    pattern = compiled()[place]
    apply, growth = application(place, pattern), growth_of(place)

    slow = next((attack for attack in attacks(pattern) if not is_fast(apply, growth, attack)), None)

    assert slow is None


@pytest.mark.parametrize(
    ("pattern", "growth"),
    [
        (r"(?:[^a-z]+|(?:[A-Z0-9]\S*|of|and|the|for|in|to|a|\s)+)$", QUADRATIC),
        (r"^#\s+(.+?)\s*#*\s*$", QUADRATIC._replace(small=200, large=800)),
        (r"[^\S\n]*\n\s*", LINEAR),
    ],
    ids=["exponential", "cubic", "quadratic"],
)
def test_slow_patterns_are_found(pattern: str, growth: Growth) -> None:
    """Former patterns, which took seconds or forever, are found."""
    compiled_pattern = re.compile(pattern)
    apply = application("[…]", compiled_pattern)

    assert not all(is_fast(apply, growth, attack, tries=1) for attack in attacks(compiled_pattern))


def test_every_pattern_is_compiled_at_module_level() -> None:
    hidden = []
    for file in modules(*PACKAGES):
        place = str(file.relative_to(ROOT))
        tree = ast.parse(file.read_text("utf-8"))
        for function, call in calls_to_re(tree):
            at_top = call == "compile" and not function
            if not (at_top or call == "escape"):
                hidden.append(f"{place}: re.{call} in {function or 'the module'}")

    assert hidden == []


def calls_to_re(tree: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """Yield every call to the module `re` with its function, and every import from it."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.ImportFrom) and node.module == "re":
            yield function, "import"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "re":
                yield function, node.func.attr
        yield from calls_to_re(node, inner)
