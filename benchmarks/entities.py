"""`python -m benchmarks.entities` measures how rightly and how fast names are grouped.

Names of organizations, people and places from real documents are written in the variants of
`tests/fakes/entity_pairs.py`, and near misses are built from them; 100,000 values show the time and
the memory.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator, Sequence
from random import Random

from benchmarks import quality, report
from chordwise.domain.entities import group
from chordwise.domain.entities.spellings import EntityKind
from tests.fakes.entity_pairs import Names, Same, misspelled, pairs_of, scores
from tests.unit.test_domain_entities import HELD_OUT

_TABLE_STARTS = "<!-- make quality: entities -->\n"
_CORPORA = ("cuad_contracts", "sec_filings", "speeches", "qmsum_meetings")
_MAX_CHARACTERS = 300_000
_MAX_NAMES = 150
_VALUES = 100_000
_ORGANIZATION = re.compile(
    r"\b((?:[A-Z][a-z]{2,15} ){1,3}[A-Z][a-z]{2,15}),? (?:Inc|LLC|Ltd|Corp|L\.P|N\.A)\b"
)
_PERSON = re.compile(r"\b(?:Mr|Mrs|Ms|Dr)\. ([A-Z][a-z]{2,12} [A-Z][a-z]{3,14})\b")
_PLACE = re.compile(r"\b([A-Z][a-z]{4,14}), (Texas|Ohio|Florida|Oregon|Maine|Iowa|California)\b")


def names_in(texts: Sequence[str]) -> Names:
    """Return the names in texts, at most 150 of each kind; near misses are those of the tests."""

    def matches(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(match.groups() for t in texts for match in pattern.finditer(t)))

    return Names(
        organizations=[name for (name,) in matches(_ORGANIZATION)][:_MAX_NAMES],
        people=[name for (name,) in matches(_PERSON)][:_MAX_NAMES],
        places=[(name, region) for name, region in matches(_PLACE)][:_MAX_NAMES],
        romanized=HELD_OUT.romanized,
        alike=HELD_OUT.alike,
    )


def table(texts: Sequence[str]) -> str:
    """Return a row for each kind, from pairs in one column, and for the speed."""
    names = names_in(texts)
    rows: list[Sequence[str]] = []
    for kind in EntityKind:
        pairs = pairs_of(kind, names, Random(1))  # noqa: S311 - statistics, not secrets
        entity = _entities(dict.fromkeys((v for pair in pairs for v in pair[:2]), 1), kind)
        precision, f1, _ = scores(pairs, _alike(entity))
        rows.append((f"pairs, {kind}", f"{len(pairs)}", f"{precision:.3f}", f"{f1:.3f}", "", ""))
    many = dict.fromkeys(_many(names), 1)
    started = time.process_time()
    group(many, EntityKind.ORGANIZATIONS)
    seconds = time.process_time() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("one column", f"{len(many)}", "", "", f"{seconds:.1f}", f"{megabytes:.0f}"))
    return report.table(("values", "n", "precision", "F1", "seconds", "MB"), rows)


def _alike(entity: dict[str, str]) -> Same:
    return lambda a, b: entity[a] == entity[b]


def _entities(values: dict[str, int], kind: EntityKind) -> dict[str, str]:
    joins = {value: other for value, (other, _) in group(values, kind).joins.items()}

    def first(value: str) -> str:
        return value if joins[value] == value else first(joins[value])

    return {value: first(value) for value in values}


def _many(names: Names) -> Iterator[str]:
    random = Random(2)  # noqa: S311 - statistics, not secrets
    words = sorted({word for name in names.organizations for word in name.split()})
    values: set[str] = set()
    while len(values) < _VALUES:
        name = " ".join(random.choices(words, k=3))
        values.update((name, f"{name} Inc.", misspelled(f"{name} Inc.", random)))
    yield from sorted(values)[:_VALUES]


def main() -> None:
    """Measure the corpora, print the table, and with `--write` update benchmarks/quality.md."""
    options = quality.parser("entities", __doc__).parse_args()
    files = [file for name in _CORPORA for file in sorted((options.corpora / name).rglob("*.txt"))]
    texts = [
        " ".join(file.read_text("utf-8", "replace")[:_MAX_CHARACTERS].split()) for file in files
    ]
    quality.publish(_TABLE_STARTS, table(texts), writes=options.write)


if __name__ == "__main__":
    main()
