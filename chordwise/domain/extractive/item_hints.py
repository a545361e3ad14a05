"""What an item's own words say about its value: which kind it has, and how texts announce it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chordwise.domain.extractive import words
from chordwise.domain.extractive.value_patterns import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What is known of an item.

    `kinds` are those of its value; `is_list` asks for several, `is_title` for the document's
    title. `kind_terms` are those of its terms that only name the kind; `cue` is how sentences
    with such a value are worded.
    """

    kinds: tuple[Kind, ...]
    terms: tuple[str, ...]
    kind_terms: frozenset[str]
    is_list: bool
    is_title: bool = False
    cue: re.Pattern[str] | None


_KIND_WORDS: dict[Kind, str] = {
    Kind.EMAIL: "email e-mail mail",
    Kind.PHONE: "phone telephone mobile fax",
    Kind.URL: "url website link homepage web",
    Kind.PERCENT: "percent percentage rate ratio",
    Kind.LAW: "law jurisdiction",
    Kind.DATE: "date deadline when day birthday expiration expiry year",
    Kind.DURATION: "duration period length term expiration expiry",
    Kind.MONEY: "amount money price cost fee salary payment revenue sum budget rent balance "
    "income profit subtotal total tax value sales",
    Kind.PERSON: "person people who author signatory witness employee consultant name ceo "
    "president attorney speaker",
    Kind.ORGANIZATION: "organization organisation company party vendor supplier customer buyer "
    "seller employer client firm lessor lessee landlord tenant licensor licensee distributor "
    "issuer bank institution agency",
    Kind.PLACE: "place location where city country state address venue town",
    Kind.NUMBER: "number count quantity many shares age size",
}
_KINDS_BY_TERM: dict[str, list[Kind]] = {}
# Words that name a kind and nothing else; the others also stand beside the value.
_PURE_WORDS = """
date when day amount money person people who organization organisation company party  place
location where number count quantity many email phone telephone url website  link percent
percentage address city country name duration sum year
"""
_PURE = frozenset(words.stem(word) for word in _PURE_WORDS.split())
_ID_ITEM = re.compile(r"\b(?:number|no\.?|id|code|reference|identifier)\s*$", re.IGNORECASE)
_LIST_WORD = re.compile(r"\b(?:all|every|list|any|each|names of)\b", re.IGNORECASE)
# What stands before a hyphen: “Non-Compete” is announced by “compete”.
_PREFIXES = frozenset({"non", "anti", "pre", "sub", "find"})
_SINGULAR_S = frozenset({"address", "business", "status", "sales", "terms", "gross", "loss"})
_TITLE = re.compile(
    r"^(?:(?:the\s+)?(?:document|contract|agreement|report|paper)\s+(?:name|title)|title|headline"
    r"|subject|(?:name|title)\s+of\s+the\s+\w+)$",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"\be-mail", re.IGNORECASE)
_JOINTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[_-]+")
_QUESTION_WORDS = frozenset({"when", "who", "where", "many"})
_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(item, re.IGNORECASE), re.compile("|".join(cues), re.IGNORECASE))
    for item, cues in {
        r"effective|agreement date|contract date|start date|commence|dated": (
            r"\beffective\s+(?:as\s+of|date)",
            r"\b(?:made|entered\s+into|dated)\s+(?:\w+\s+){0,6}?(?:as\s+of|on|this)",
            r"\bas\s+of\s+(?=\w+\s+\d)",
            r"\bdated\b",
            r"\bcommenc\w+\s+on",
        ),
        r"expir|\bends?\b|terminat\w+ date|until": (
            r"\b(?:shall|will)\s+(?:expire|terminate|continue|remain)",
            r"\bexpir(?:es?|ation)\b",
            r"\bterm\s+of\s+this\b",
            r"\buntil\b",
        ),
        r"\bpart(?:y|ies)\b|between whom": (
            r"\b(?:by\s+and\s+)?between\b",
            r"\bby\s+and\s+among\b",
            r"\(.{0,20}(?:the\s+)?[\"“”].{1,40}[\"“”]\)",
        ),
        r"governing law|applicable law|jurisdiction|which law": (
            r"\bgoverned\s+(?:by|in)\b",
            r"\blaws?\s+of\s+(?:the\s+)?[A-Z]",
            r"\bconstrued\b",
        ),
        r"\bterm\b|duration": (r"\b(?:initial\s+)?term\s+of\b", r"\bfor\s+a\s+(?:period|term)\b"),
        r"renew": (r"\brenew", r"\bsuccessive\b", r"\bextend"),
        r"notice": (r"\bnotice\b.{0,80}\bdays?\b", r"\bdays?\b.{0,80}\bnotice\b"),
        r"\btotal\b": (r"\b(?:grand\s+)?total\b", r"\b(?:amount|balance)\s+due\b"),
        r"deadline|due date": (r"\b(?:due|deadline|no\s+later\s+than|on\s+or\s+before)\b",),
        r"birth|born": (r"\b(?:born|date of birth)\b",),
        r"salary|wage": (r"\bsalary\b", r"\bper\s+(?:annum|year|hour)\b"),
    }.items()
)


def hint(item: str, description: str = "") -> Hint:
    """Read an item, and a description of it, as the user wrote them."""
    spelled = _spaced(item)
    named = [term for term in words.terms(spelled) if term not in _PREFIXES]
    own_terms = named or words.terms(description)
    question = [word for word in words.words(spelled) if word in _QUESTION_WORDS]
    telling = [words.stem(word) for word in question] + own_terms
    kinds = list(dict.fromkeys(kind for term in telling for kind in _KINDS_BY_TERM.get(term, ())))
    if _ID_ITEM.search(spelled):
        kinds = [kind for kind in kinds if kind is not Kind.NUMBER]
        kinds = kinds or [Kind.IDENTIFIER]
    return Hint(
        kinds=tuple(kinds),
        terms=tuple(dict.fromkeys(own_terms)),
        kind_terms=frozenset(term for term in own_terms if term in _PURE),
        is_list=bool(_LIST_WORD.search(spelled)) or _is_plural(spelled),
        is_title=bool(_TITLE.match(spelled.strip())),
        cue=next((cue for known, cue in _CUES if known.search(f"{spelled} {description}")), None),
    )


def _spaced(name: str) -> str:
    """Part the words of a property's name: `dueDate`, `due_date` and `due-date` alike."""
    return _JOINTS.sub(" ", _EMAIL.sub("email", name))


def _is_plural(item: str) -> bool:
    listed = words.words(item)
    return any(
        word == "people"
        or (word.endswith("s") and not word.endswith("ss") and word not in _SINGULAR_S)
        for word in listed
        if words.stem(word) in _KINDS_BY_TERM or word == "people"
    )


for _kind, _listed in _KIND_WORDS.items():
    for _word in _listed.split():
        _KINDS_BY_TERM.setdefault(words.stem(_word), []).append(_kind)
