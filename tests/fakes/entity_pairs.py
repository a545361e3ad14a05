"""Pairs of names, built by rule from lists of names, with whether both name the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase
from typing import TypeAlias

from chordwise.domain.entities.spellings import EntityKind

Pair: TypeAlias = tuple[str, str, bool, str]
"""Two names, whether they are the same, and the rule that made the second one."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What pairs are built from.

    `organizations` have no legal form. `romanized` are groups of spellings of one person, of which
    the first one may be in another script. `alike` are pairs that are different.
    """

    organizations: Sequence[str]
    people: Sequence[str]
    places: Sequence[tuple[str, str]]
    romanized: Sequence[Sequence[str]]
    alike: dict[EntityKind, Sequence[tuple[str, str]]]


def pairs_of(kind: EntityKind, names: Names, random: Random) -> list[Pair]:
    """Return the pairs of a kind, in random order."""
    build = {
        EntityKind.ORGANIZATIONS: _organizations,
        EntityKind.PEOPLE: _people,
        EntityKind.PLACES: _places,
    }[kind]
    pairs = [*build(names, random), *((a, b, False, "alike") for a, b in names.alike[kind])]
    random.shuffle(pairs)
    return pairs


def misspelled(name: str, random: Random) -> str:
    """Return a name with one typing error in a word of at least four letters."""
    words = name.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return name
    place = random.choice(long)
    word = words[place]
    at = random.randrange(len(word))
    letter = random.choice(ascii_lowercase)
    swapped = word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :] if at else word
    wrong = [word[:at] + letter + word[at + 1 :], word[:at] + word[at + 1 :],
             word[:at] + letter + word[at:], swapped]  # fmt: skip
    words[place] = random.choice(wrong)
    return " ".join(words)


_FORMS = (
    ("Inc.", "Incorporated"), ("Corp.", "Corporation"), ("LLC", "Limited Liability Company"),
    ("Ltd.", "Limited"), ("GmbH", "Gesellschaft mit beschränkter Haftung"), ("S.p.A.", "SpA"),
    ("plc", "Public Limited Company"), ("L.P.", "Limited Partnership"),
    ("AG", "Aktiengesellschaft"),
    ("B.V.", "Besloten Vennootschap"), ("Pty Ltd", "Proprietary Limited"), ("Co.", "Company"),
    ("Sp. z o.o.", "sp zoo"), ("SARL", "S.A.R.L."), ("A/S", "AS"), ("Co., Ltd.", "Co Limited"),
)  # fmt: skip
_ABBREVIATED = {
    "International": "Intl", "Manufacturing": "Mfg.", "National": "Natl.", "Association": "Assn",
    "Management": "Mgmt", "Services": "Svcs.", "Industries": "Inds", "Brothers": "Bros.",
    "Group": "Grp", "Financial": "Fin'l", "University": "Univ.", "Insurance": "Ins.",
    "Laboratories": "Labs", "Technologies": "Tech.", "Holdings": "Hldgs", "and": "&",
    "Institute": "Inst.", "Department": "Dept.", "Systems": "Sys.", "Partners": "Ptnrs",
}  # fmt: skip
_SUBSIDIARIES = ("Holdings", "Capital", "Leasing", "(UK)", "Deutschland", "Finance", "of Canada")


def _organizations(names: Names, random: Random) -> Iterator[Pair]:
    for number, name in enumerate(names.organizations):
        form, long = _FORMS[number % len(_FORMS)]
        other = _FORMS[(number + 3) % len(_FORMS)][0]
        full = f"{name} {form}"
        yield full, f"{name} {long}".upper(), True, "legal form"
        yield full, name, True, "without legal form"
        yield full, f"{name.upper()}, {form}", True, "case"
        yield full, misspelled(full, random), True, "typing error"
        yield full, f"{misspelled(name, random)} {long}", True, "typing error"
        yield full, f"{name} {form}, The".replace(" and ", " & "), True, "order"
        short = " ".join(_ABBREVIATED.get(word, word) for word in name.split())
        if short != name:
            yield full, f"{short} {form}", True, "abbreviation"
        if name.startswith("University of "):
            yield name, f"{name.removeprefix('University of ')} University", True, "order"
        if len(name.split()) >= 3 and " of " not in name and " and " not in name:
            yield full, "".join(word[0] for word in name.split()), True, "acronym"
        if name != (plain := _without_accents(name)):
            yield full, f"{plain} {form}", True, "transliteration"
        yield full, f"{name} {random.choice(_SUBSIDIARIES)} {form}", False, "subsidiary"
        yield f"{name} Fund II LP", f"{name} Fund III LP", False, "numbered"
        yield f"{name} Fund 2 LP", f"{name} Fund II, L.P.", True, "numbered"
        yield f"{full} Series A", f"{full} Series B", False, "numbered"
        if {form, other} != {"Co.", "Co., Ltd."}:
            yield f"{name} Estates {form}", f"{name} Estates {other}", False, "another legal form"


_TRANSCRIBED = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ø": "o", "é": "e", "è": "e",
    "ß": "ss", "á": "a", "í": "i", "ó": "o", "ñ": "n", "ç": "c", "ł": "l", "å": "a", "Å": "A",
    "š": "s", "č": "c", "ž": "z", "Ł": "L", "ą": "a", "ê": "e", "ã": "a", "ń": "n", "Š": "S",
})  # fmt: skip


def _without_accents(name: str) -> str:
    return name.translate(_TRANSCRIBED)


def _people(names: Names, random: Random) -> Iterator[Pair]:
    for number, name in enumerate(names.people):
        first_names, family = name.rsplit(" ", 1)
        first = first_names.split()[0]
        yield name, f"{family}, {first_names}", True, "order"
        yield name, f"{family.upper()} {first_names}", True, "order"
        yield name, f"Dr. {name}, PhD", True, "title"
        yield name, misspelled(name, random), True, "typing error"
        yield name, misspelled(name, random), True, "typing error"
        yield name, f"{first[0]}. {family}", True, "initials"
        if name != (plain := _without_accents(name)):
            yield name, plain, True, "transliteration"
        son = names.people[(number + 1) % len(names.people)]
        yield f"{son} Jr.", f"{son} Sr.", False, "father and son"
        yield name, f"{name} Jr.", False, "father and son"
        yield f"{name} Jr.", f"{name}, Junior", True, "father and son"
        yield f"{name} II", f"{name} III", False, "father and son"
        other = names.people[(number + 7) % len(names.people)].split()[0]
        if other[0] != first[0]:
            yield name, f"{other} {family}", False, "family"
        stranger = names.people[(number + 11) % len(names.people)].rsplit(" ", 1)[1]
        yield f"{first} B. {stranger}", f"{first} C. {stranger}", False, "middle initial"
    for spellings in names.romanized:
        yield from ((spellings[0], other, True, "transliteration") for other in spellings[1:])


def _places(names: Names, random: Random) -> Iterator[Pair]:
    states = {"Texas": "TX", "Ohio": "OH", "Florida": "FL", "Oregon": "OR", "France": "FR",
              "Illinois": "Ill.", "Maine": "ME", "Georgia": "GA", "Iowa": "IA"}  # fmt: skip
    for number, (place, region) in enumerate(names.places):
        full = f"{place}, {region}"
        elsewhere = names.places[(number + 1) % len(names.places)][1]
        yield full, full.upper(), True, "case"
        yield full, place, True, "without region"
        yield full, f"{misspelled(place, random)}, {region}", True, "typing error"
        if region in states:
            yield full, f"{place}, {states[region]}", True, "abbreviation"
        if place != (plain := _without_accents(place)):
            yield full, plain, True, "transliteration"
        if elsewhere != region:
            yield f"New {place}, {region}", f"New {place}, {elsewhere}", False, "another region"
        yield f"North {place}", f"South {place}", False, "direction"
        yield place, f"West {place}", False, "direction"


Same: TypeAlias = Callable[[str, str], bool]


def scores(pairs: Sequence[Pair], is_same: Same) -> tuple[float, float, list[Pair]]:
    """Return precision, F1 and the pairs on which the judgment is wrong."""
    wrong = [pair for pair in pairs if is_same(pair[0], pair[1]) != pair[2]]
    positives = sum(pair[2] for pair in pairs)
    missed = sum(pair[2] for pair in wrong)
    false = len(wrong) - missed
    right = positives - missed
    return right / (right + false), 2 * right / (2 * right + missed + false), wrong
