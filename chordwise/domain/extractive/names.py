"""Finding names by their capitals, and guessing who bears them by the words in and around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from chordwise.domain.extractive import gazetteer
from chordwise.domain.extractive.stopwords import STOPWORDS


class Bearer(StrEnum):
    """Who or what a name belongs to."""

    PERSON = "person"
    ORGANIZATION = "organization"
    PLACE = "place"
    UNKNOWN = "unknown"


class Name(NamedTuple):
    """A name as it stands in a text."""

    text: str
    start_char: int
    bearer: Bearer


_WORD = (
    r"(?:(?:[A-Z]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Corp|Ltd|Co)\."
    r"|[A-ZÀ-ÖØ-Þ](?:[\w&-]|['’](?!s\b))*)"
)
_LINK = r"(?:of the|of|de|la|van|von|der|&)"
_NAME = re.compile(
    rf"(?<![\w@])(?:{_WORD})(?:[ \t](?:{_LINK}[ \t])?{_WORD}){{0,5}}"
    r"(?:,? (?:Inc|Corp|Ltd|LLC|L\.L\.C|L\.P|LP|Co|B\.V|S\.A|N\.V|PLC|GmbH|AG|plc)\b\.?)?"
)
_TITLE = re.compile(
    r"(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|Senator|Sir|Lord|Lady|Judge|Justice|Captain"
    r"|General|Governor|Minister|King|Queen|Secretary|Chairman)\.?\s*$"
)
_TITLED = re.compile(
    r"^(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|Senator|Sir|Lord|Lady|Judge|Justice|Captain"
    r"|Governor|King|Queen)\b\.?\s+(?=[A-Z])"
)
_WHEREABOUTS = re.compile(
    r"\b(?:born|lives?|lived|living|located|situated|based|headquartered|held|resid\w+|arrived"
    r"|travell?ed|moved|flew|offices?|city|town|capital|village|province|region)"
    r"\s+(?:in|at|near|of|to)\s+(?:the\s+)?$"
)
_ACRONYM = re.compile(r"^(?:[A-Z]{3,6}|EU|UN)$")
_LOOK_BACK = 30
_MOST_PERSON_WORDS = 3


def names(text: str) -> Iterator[Name]:
    """Yield what is written like a name, in order."""
    for match in _NAME.finditer(text):
        for part_start, part in _parts(match.start(), match.group()):
            start, name = _without_ordinary_lead(part_start, part)
            name = _without_ordinary_end(name)
            if name:
                before = text[max(0, start - _LOOK_BACK) : start]
                yield Name(name, start, bearer(name, before, is_alone=_opens(text, start)))


def _parts(start: int, name: str) -> Iterator[tuple[int, str]]:
    """Part a person from a place or an organization: “Ann Lee of Acme”, not “Bank of America”."""
    person, joint, other = name.partition(" of ")
    if joint and is_person(person.lower().split()):
        yield start, person
        yield start + len(person) + len(joint), other
    else:
        yield start, name


def _without_ordinary_lead(start: int, name: str) -> tuple[int, str]:
    """Drop function words at the front, which are capitalized where a sentence begins."""
    while name:
        first, _, rest = name.partition(" ")
        word = first.lower().strip(".'’")
        if word not in STOPWORDS and word not in gazetteer.TIME_WORDS:
            return start, name
        start, name = start + len(first) + 1, rest
    return start, ""


def _without_ordinary_end(name: str) -> str:
    """Drop labels that follow a name on its line, such as “By” and “Title” in signatures."""
    while " " in name:
        rest, _, last = name.rpartition(" ")
        if last.lower() not in STOPWORDS and last.lower() not in gazetteer.TIME_WORDS:
            break
        name = rest
    return name


def _opens(text: str, start: int) -> bool:
    """Tell whether a capital at this place may be owed to the start of a sentence or a line."""
    before = text[max(0, start - 3) : start].rstrip(" \t\"'“‘(")
    return not before or before[-1] in ".!?:;\n•*-"


def bearer(name: str, before: str, *, is_alone: bool) -> Bearer:
    """Guess the bearer from the name's words and from what stands before it."""
    parts = [part.strip(".,'’").lower() for part in name.split()]
    is_known = " ".join(parts) in gazetteer.ORGANIZATIONS
    if not is_known and not gazetteer.ORDINARY_WORDS.isdisjoint(parts):
        return Bearer.UNKNOWN
    if is_organization(parts):
        return Bearer.ORGANIZATION
    if _TITLED.match(name) or (_TITLE.search(before) and len(parts) <= _MOST_PERSON_WORDS):
        return Bearer.PERSON
    if " ".join(parts) in gazetteer.PLACES or parts[-1] in gazetteer.PLACE_WORDS:
        return Bearer.PLACE
    if is_person(parts):
        return Bearer.PERSON
    return _by_context(name, parts, before, is_alone=is_alone)


def _by_context(name: str, parts: list[str], before: str, *, is_alone: bool) -> Bearer:
    if _ACRONYM.match(name) and not is_alone and name.lower() not in gazetteer.ORDINARY_ACRONYMS:
        return Bearer.ORGANIZATION
    is_capitalized = not name.isupper() and name[-1].isalpha()
    if _WHEREABOUTS.search(before) and is_capitalized and len(parts) <= _MOST_PERSON_WORDS:
        return Bearer.PLACE
    return Bearer.UNKNOWN


def is_organization(parts: list[str]) -> bool:
    """Tell an organization by a form of organizations beside a name, or by being well known."""
    has_form = not gazetteer.ORGANIZATION_WORDS.isdisjoint(parts)
    return (has_form and len(parts) > 1) or " ".join(parts) in gazetteer.ORGANIZATIONS


def is_person(parts: list[str]) -> bool:
    """Tell a person's name by a given name at its front, in lower case."""
    return 1 < len(parts) <= _MOST_PERSON_WORDS + 1 and parts[0] in gazetteer.GIVEN_NAMES
