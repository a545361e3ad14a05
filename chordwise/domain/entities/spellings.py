"""Names of people, organizations and places: what a spelling says, by rules and lists of words.

Two spellings with the same words, marks and form are one name. The lists are in `spellings.toml`.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib import resources
from itertools import chain

from anyascii import anyascii

from chordwise.domain.words import LEXICON

MAX_NAME = 300
"""The length of a name; a longer text is not one."""


class EntityKind(StrEnum):
    """What the values of a column name; stored in `entity_columns.kind`."""

    PEOPLE = "people"
    ORGANIZATIONS = "organizations"
    PLACES = "places"


@dataclass(frozen=True)
class Name:
    """What a spelling says.

    `marks` distinguish names that are otherwise alike: numbers, and generations of a family.
    `forms` are the legal form of an organization or the regions of a place; a spelling may leave
    them out. `shortened` are the words that end with a period. `is_romanized` tells that the
    spelling has letters of another script.
    """

    kind: EntityKind
    words: tuple[str, ...]
    marks: tuple[str, ...] = ()
    forms: frozenset[str] = frozenset()
    shortened: frozenset[str] = frozenset()
    acronym: str = ""
    is_romanized: bool = False

    @cached_property
    def sorted_words(self) -> tuple[str, ...]:
        """The words that count if their order does not."""
        if self.kind is EntityKind.PEOPLE and _GIVEN.issuperset(self.words):
            return self.words  # James Thomas is not Thomas James
        is_headed = self.kind is EntityKind.ORGANIZATIONS and not _HEADS.isdisjoint(self.words)
        return tuple(sorted(self.content if is_headed else self.words))

    @property
    def content(self) -> tuple[str, ...]:
        """The words without those that connect others."""
        return tuple(word for word in self.words if word not in _CONNECTING) or self.words

    @cached_property
    def text(self) -> str:
        """The words in their order."""
        return " ".join(self.words)

    @cached_property
    def romanized(self) -> str:
        """The words as they sound, whatever the table by which they were transliterated."""
        return " ".join(sorted(map(_romanized, self.words)))


def parsed(value: str, kind: EntityKind) -> Name:
    """Return what a spelling says, as a name of this kind."""
    parse = {
        EntityKind.PEOPLE: _person,
        EntityKind.ORGANIZATIONS: _organization,
        EntityKind.PLACES: _place,
    }[kind]
    for ending, form in _ENDINGS.items():
        value = value.replace(ending, f" {form} ") if ending in value else value
    is_romanized = any(ord(char) > _LAST_LATIN and char.isalpha() for char in value)
    name = parse(_plain(value), value)
    words = name.words or tuple(_WORD.findall(_plain(value))) or (value.strip() or "-",)
    is_romanized = is_romanized and not unicodedata.normalize("NFKC", value).isascii()
    return replace(name, words=tuple(map(_folded, words)), is_romanized=is_romanized)


def is_known(word: str, kind: EntityKind) -> bool:
    """Return whether a word is common in names, so that it is hardly another one misspelled."""
    return word in _KNOWN[kind] or word.removesuffix("s") in _KNOWN[kind]


def kind_of(column: str) -> EntityKind:
    """Return what the values of a column are, by the words of its name."""
    words = set(_WORD.findall(column.lower()))
    kinds = (kind for kind, listed in _LISTS["columns"].items() if words & {*listed.split()})
    return EntityKind(next(kinds, EntityKind.ORGANIZATIONS))


# The lists

_FILE = resources.files(__package__).joinpath("spellings.toml").read_text("utf-8")
_LISTS = tomllib.loads(_FILE)
_WORDS = {name: frozenset(listed.split()) for name, listed in _LISTS["words"].items()}
_ENDINGS: dict[str, str] = _LISTS["endings"]


def _inverted(lists: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    return {
        tuple(spelling.split("_")): name
        for name, spellings in lists.items()
        for spelling in (name, *spellings.split())
    }


_LEGAL_FORMS: dict[tuple[str, ...], str] = {
    spelling: form
    for forms in _LISTS["legal_forms"].values()
    for spelling, form in _inverted(forms).items()
}
_LEADING_FORMS = frozenset(("ooo", "ao", "oao", "zao", "pao", "pt", "kk"))
_REGIONS = {
    spelling: region.replace("_", " ") for spelling, region in _inverted(_LISTS["regions"]).items()
}
_GENERATIONS = {words[0]: mark for words, mark in _inverted(_LISTS["generations"]).items()}
_ABBREVIATIONS = {
    EntityKind(kind): {words[0]: word for words, word in _inverted(lists).items()}
    for kind, lists in _LISTS["abbreviations"].items()
}
_NUMBERS = {
    **{word: str(number) for number, word in enumerate(_LISTS["words"]["numbers"].split())},
    **{word: str(number) for number, word in enumerate(_LISTS["words"]["roman"].split(), start=2)},
}
_NUMBERS |= {"ix": "9", "xi": "11", "xii": "12", "xiii": "13"}
_ORDINALS: dict[int, str] = dict(enumerate(_LISTS["words"]["ordinals"].split()))
_CONNECTING, _HEADS = _WORDS["connecting"], _WORDS["heads_of_names"]
_LEFT_OUT = _WORDS["articles"] | {"and"}
_OF_PLACES = [tuple(words.split("_")) for words in _LISTS["words"]["of_places"].split()]
_OF_REGIONS = frozenset(word for words in _REGIONS for word in words)
_GIVEN = frozenset(_LISTS["known"]["given"].split())
_PEOPLE = _GIVEN | frozenset(_LISTS["known"]["people"].split())
_KNOWN = {
    EntityKind.PEOPLE: _PEOPLE,
    EntityKind.PLACES: _OF_REGIONS,
    EntityKind.ORGANIZATIONS: frozenset(_LISTS["known"]["organizations"].split())
    | _PEOPLE
    | _OF_REGIONS
    | frozenset(word for lists in LEXICON.values() for listed in lists.values() for word in listed)
    | frozenset(_ABBREVIATIONS[EntityKind.ORGANIZATIONS].values()),
}

# The text

_LAST_LATIN = 0x24F
_WORD = re.compile(r"[a-z0-9]+")
_ASIDE = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_DESCRIPTION = re.compile(r",\s+an?\s")
_APOSTROPHE = re.compile(r"['`]")
_ORDINAL = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)")
_PERIOD = re.compile(r"[\s.]")
_MIN_FOLDED = 5
_MIN_ACRONYM, _MAX_ACRONYM = 3, 6


def _plain(value: str) -> str:
    """Return a text in lower-case ASCII, without apostrophes."""
    text = value if value.isascii() else anyascii(unicodedata.normalize("NFKC", value))
    return _APOSTROPHE.sub("", text.lower()).replace("&", " and ").replace("+", " and ")


def _folded(word: str) -> str:
    """Return a word in which `ae`, `oe` and `ue` are one letter, as in `ä`, `ö` and `ü`."""
    if len(word) < _MIN_FOLDED:
        return word
    return word.replace("ae", "a").replace("oe", "o").replace("ue", "u")


_SOUNDS = (
    *(("shch", "c"), ("tsch", "c"), ("sch", "s"), ("tch", "c"), ("ch", "c"), ("sh", "s")),
    *(("zh", "z"), ("kh", "h"), ("ph", "f"), ("th", "t"), ("ts", "c"), ("tz", "c"), ("ks", "x")),
    *(("ck", "k"), ("w", "v"), ("j", "i"), ("y", "i"), ("ii", "i"), ("ie", "e"), ("io", "e")),
    *(("ou", "u"), ("oi", "u")),
)
_DOUBLED = re.compile(r"(.)\1")


@lru_cache(maxsize=100_000)
def _romanized(word: str) -> str:
    for spelling, sound in _SOUNDS:
        word = word.replace(spelling, sound)
    return _DOUBLED.sub(r"\1", word)


# The kinds


def _organization(text: str, value: str) -> Name:
    description = _DESCRIPTION.search(text)
    text = _ASIDE.sub(_without_aside, text[: description.start()] if description else text)
    joined = _joined_letters(_WORD.findall(text))
    words, forms = _without_legal_forms([word for word in joined if word not in _LEFT_OUT])
    spelled = _ABBREVIATIONS[EntityKind.ORGANIZATIONS]
    written = [_number(spelled.get(word, word)) for word in words]
    marks = tuple(word for word in written if _is_mark(word))
    return Name(
        kind=EntityKind.ORGANIZATIONS,
        words=tuple(word for word in written if not _is_mark(word)) or tuple(written),
        marks=marks,
        forms=forms,
        shortened=frozenset(word for word in written if f"{word}." in text),
        acronym=_acronym(words, value),
    )


def _without_aside(aside: re.Match[str]) -> str:
    words = aside[1].split()
    is_alias = '"' in aside[1] or not words or words[0].strip(",.:") in _WORDS["asides"]
    return " " if is_alias else f" {aside[1]} "


def _joined_letters(words: Iterable[str]) -> list[str]:
    """Join single letters in succession: `s p a` is `spa`."""
    joined: list[str] = []
    is_open = False
    for word in words:
        is_letter = len(word) == 1 and word.isalpha()
        if is_letter and is_open:
            joined[-1] += word
        else:
            joined.append(word)
        is_open = is_letter
    return joined


_LONGEST_FORM = 7


def _without_legal_forms(words: list[str]) -> tuple[list[str], frozenset[str]]:
    """Return the words without legal forms at either end, and the form; “co” yields to others."""
    forms: list[str] = []
    if len(words) > 1 and words[0] in _LEADING_FORMS:
        forms.append(words[0])
        words = words[1:]
    while len(words) > 1:
        sizes = range(min(_LONGEST_FORM, len(words) - 1), 0, -1)
        size = next((size for size in sizes if tuple(words[-size:]) in _LEGAL_FORMS), 0)
        if not size:
            break
        forms.append(_LEGAL_FORMS[tuple(words[-size:])])
        words = words[:-size]
    distinct = sorted({*forms} - {"co"} or {*forms})
    return words, frozenset(("+".join(distinct),) if distinct else ())


def _number(word: str) -> str:
    ordinal = _ORDINAL.fullmatch(word)
    return _ORDINALS.get(int(ordinal[1]), word) if ordinal else _NUMBERS.get(word, word)


def _is_mark(word: str) -> bool:
    # Parties of a contract, which are grouped as organizations, can be people.
    is_generation = word in ("jr", "jnr", "sr", "snr")
    return is_generation or len(word) == 1 or any(char.isdigit() for char in word)


def _acronym(words: Sequence[str], value: str) -> str:
    """Return the only word of a name if it may stand for the first letters of others."""
    is_short = len(words) == 1 and _MIN_ACRONYM <= len(words[0]) <= _MAX_ACRONYM
    letters = _PERIOD.sub("", value)
    return words[0] if is_short and words[0].isalpha() and words[0].upper() in letters else ""


def _person(text: str, value: str) -> Name:  # noqa: ARG001 - as the other kinds
    parts = [_WORD.findall(part) for part in _ASIDE.sub(" ", text).split(",")]
    marks: list[str] = []
    names = [part for part in (_without_additions(part, marks) for part in parts) if part]
    if len(names) == 2:  # noqa: PLR2004 - the last name, and the first one
        names.reverse()
    words = list(chain.from_iterable(names))
    while len(words) > 1 and words[0] in _WORDS["titles"]:
        words = words[1:]
    spelled = _ABBREVIATIONS[EntityKind.PEOPLE]
    return Name(
        kind=EntityKind.PEOPLE,
        words=tuple(spelled.get(word, word) for word in words),
        marks=tuple(marks),
        shortened=frozenset(word for word in words if len(word) == 1),
    )


def _without_additions(words: list[str], marks: list[str]) -> list[str]:
    """Return a part of a name without titles and degrees; its generation is added to the marks."""
    while words and (words[-1] in _GENERATIONS or words[-1] in _WORDS["degrees"]):
        if words[-1] == "v" and len(words) == 2:  # noqa: PLR2004 - an initial after a name
            break
        if words[-1] in _GENERATIONS:
            marks.append(_GENERATIONS[words[-1]])
        words = words[:-1]
    return [] if all(word in _WORDS["titles"] for word in words) and len(words) == 1 else words


def _place(text: str, value: str) -> Name:
    asides = [aside[1] for aside in _ASIDE.finditer(text)]
    first, *others = _ASIDE.sub(" ", text).split(",")
    words = _joined_letters(_WORD.findall(first))
    forms = {_region(_joined_letters(_WORD.findall(part))) for part in (*others, *asides)}
    is_code = f" {words[-1].upper()}" in value.replace(".", "") if len(words) > 1 else False
    if is_code and (words[-1],) in _REGIONS:
        forms.add(_region(words[-1:]))
        words = words[:-1]
    for prefix in _OF_PLACES:
        if len(words) > len(prefix) and tuple(words[: len(prefix)]) == prefix:
            words = words[len(prefix) :]
    spelled, region = _ABBREVIATIONS[EntityKind.PLACES], _region(words)
    if region in _REGIONS.values() and not forms:
        forms = {region}  # Washington is not Washington, D.C.
    words = [spelled.get(word, word) for word in region.split() if word != "the"]
    return Name(
        kind=EntityKind.PLACES,
        words=tuple(word for word in words if not word.isdigit()),
        marks=tuple(word for word in words if word.isdigit()),
        forms=frozenset(forms - {""}),
    )


def _region(words: Sequence[str]) -> str:
    return _REGIONS.get(tuple(words), " ".join(words))
