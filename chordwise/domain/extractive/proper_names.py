"""Names of people and places in Latin letters, by lists of names and words.

The lists are data files of the package `mimesis`, which is not imported. Each word of a run of
capitalized words becomes a letter for its kind, and a pattern over these letters finds the names.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from chordwise.domain.json_values import JsonValue
from chordwise.domain.words import LEXICON, STOPWORDS

_LANGUAGES = frozenset(("en", "de", "es", "fr", "it", "nl", "pt"))
_SHORTEST = 3
_LONGEST_PLACE = 4
FORMS = frozenset(LEXICON["words"]["forms_of_organizations"])
_TITLES = frozenset(LEXICON["words"]["titles"])
_SUFFIXES = frozenset(("jr", "sr", "ii", "iii", "iv"))
_PARTICLES = (
    r"(?:de la|de las|de los|van de[rn]|von der|d[aeio]|d[ao]s|du|del|della|van|von|de[rn]|bin|ibn"
    r"|al|el|l[ae]|[ye]|&)"
)
_WORD = (
    r"(?:(?:[A-ZÀ-ÖØ-Þ]\.)+(?!\w)|(?:St|Jr|Sra?|Mrs?|Ms|Dr|Prof|Hon|Min)\."
    r"|[A-ZÀ-ÖØ-ÞĀ-Ž](?:[\w-]|['’](?!s\b))*+)"
)
_RUN = re.compile(rf"(?<![\w@.]){_WORD}(?:,? (?:Jr|Sr|II|III|IV)\b\.?| (?:{_PARTICLES} )?{_WORD})*")
_PART = re.compile(r"[^ ]+")
_INITIALS = re.compile(r"(?:[A-ZÀ-Þ]\.)+|[A-Z]")
# Words: f first name, i initial, s surname, w word that is a surname too, o other, p particle,
# j suffix, t title, l place, m and n the first and later words of one, r street, c company,
# x neither of these.
_NAMES = re.compile(
    # Within a run of initials, a person who does not begin at the first does not begin later.
    r"(?P<person>(?<!c)(?:(?<!i)|(?<=ci))"
    r"(?:i*+f[ip]*+[fsowl]|i++p*+[fs]|(?<=t)[ip]*+[fso])(?:[ip]*+[fsol])*+j*+"
    r"(?![rc]))|(?P<place>(?<![fos])l|mn+)(?![rc])"
)


class NameLists(NamedTuple):
    """Lower-case names and words of many countries; the places contain the states."""

    first: frozenset[str]
    last: frozenset[str]
    places: frozenset[str]
    states: frozenset[str]
    streets: frozenset[str]
    words: frozenset[str]


@lru_cache(maxsize=1)
def name_lists() -> NameLists:
    """Return the lists of `mimesis`, read once."""
    spec = importlib.util.find_spec("mimesis")
    first, last, places, states, streets, words = (set[str]() for _ in NameLists._fields)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for locale in Path(folder, "datasets").glob("*/"):
            person, address, text = (_data(locale, name) for name in ("person", "address", "text"))
            first.update(_texts(person, "names"))
            last.update(_texts(person, "surnames"))
            streets.update(_texts(address, "street", "suffix"))
            states.update(_texts(address, "state", "name"))
            places.update(_texts(address, "city"), _texts(address, "country", "name"), states)
            if locale.name in _LANGUAGES:
                words.update(_texts(text, "words"))
    words -= first | last | places
    return NameLists(*map(frozenset, (first, last, places, states, streets, words)))


def _data(locale: Path, name: str) -> JsonValue:
    source = locale / f"{name}.json"
    return json.loads(source.read_text("utf-8")) if source.exists() else {}


def _texts(value: JsonValue, *path: str) -> Iterator[str]:
    """Yield the texts in a member of a value, in small letters; none if there is no such member."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, str):
        yield value.casefold()
    elif isinstance(value, (dict, list)):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _texts(member)


def names(text: str, ordinary: AbstractSet[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the kinds, `person` or `place`, and spans of names; `ordinary` words are no names."""
    for run in _RUN.finditer(text):
        parts = list(_PART.finditer(run[0]))
        for name in _NAMES.finditer(_kinds([part[0] for part in parts], ordinary)):
            begin, end = parts[name.start()].start(), parts[name.end() - 1].end()
            end = begin + len(run[0][begin:end].rstrip(","))
            yield str(name.lastgroup), run.start() + begin, run.start() + end


def _kinds(parts: list[str], ordinary: AbstractSet[str]) -> str:
    """Return a letter for each word of a run."""
    words = [part.casefold().strip(".,'’") for part in parts]
    kinds = [_kind(part, word, ordinary) for part, word in zip(parts, words, strict=True)]
    for length in range(2, _LONGEST_PLACE + 1):
        for start in range(len(words) - length + 1):
            if " ".join(words[start : start + length]) in name_lists().places:
                kinds[start : start + length] = "m" + "n" * (length - 1)
    return "".join(kinds)


def _kind(part: str, word: str, ordinary: AbstractSet[str]) -> str:
    lists = name_lists()
    is_surname = word in lists.last or word in lists.first
    kinds = (
        ("c", word in FORMS or part == "&"),
        ("x", part.lower() in STOPWORDS),
        ("p", part[0].islower()),
        ("t", word in _TITLES),
        ("j", word in _SUFFIXES),
        ("i", _INITIALS.fullmatch(part)),
        ("r", word in lists.streets and not is_surname),
        ("f", word in lists.first and len(word) >= _SHORTEST and word not in ordinary),
        ("w", word in ordinary and is_surname),
        ("x", word in ordinary or word in lists.words),
        ("s", is_surname),
        ("l", word in lists.places and len(word) > _SHORTEST),
    )
    return next((kind for kind, holds in kinds if holds), "w" if part.isupper() else "o")
