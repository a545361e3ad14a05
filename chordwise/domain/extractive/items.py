"""What an item's own words say about its value: which kind it has, and how texts announce it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chordwise.domain.extractive import words
from chordwise.domain.extractive.values import Kind
from chordwise.domain.extractive.words import LEXICON


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is known of an item.

    `kinds` are those of its value, `terms` its words; it `is_pure` where they name nothing but the
    kind. An item is one value unless `is_list`. `cue` is how sentences with such a value are
    worded; with `needs_cue` there is no value without it. `layout` names a place in a form. The
    answer to what `is_question` may be a whole sentence.
    """

    kinds: tuple[Kind, ...]
    terms: tuple[str, ...]
    is_pure: bool
    is_list: bool
    cue: re.Pattern[str] | None
    needs_cue: bool
    layout: str
    is_question: bool


_KINDS_BY_TERM: dict[str, list[Kind]] = {}
for _kind, _listed in LEXICON["kinds"].items():
    for _word in _listed:
        _KINDS_BY_TERM.setdefault(words.stem(_word), []).append(Kind(_kind))
# Words that name a kind and nothing else; the others also stand beside the value.
_PURE = frozenset(words.stem(word) for word in LEXICON["words"]["naming_kinds"])
_NEEDING_CUE = frozenset({Kind.DATE, Kind.LAW})
_QUESTION_WORDS = frozenset({"when", "who", "where", "many"})
_SINGULAR = frozenset({"address", "business", "status", "sales", "terms", "gross", "loss"})
_IDENTIFIER = re.compile(r"\b(?:number|no\.?|id|code|reference|identifier)\s*$", re.IGNORECASE)
_LIST_WORD = re.compile(r"\b(?:all|every|list|any|each|names of|people)\b", re.IGNORECASE)
_JOINTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[_-]+")
_EMAIL = re.compile(r"\be-mail", re.IGNORECASE)
_OWN = r"(?:invoice|receipt|purchase|transaction|order|letter|bill|issue|document)"
_OWN_DATE = re.compile(rf"^(?:{_OWN} date|date of (?:the )?{_OWN})$", re.IGNORECASE)
_LAYOUTS = {
    name: re.compile(rf"^(?:{items})$", re.IGNORECASE)
    for name, items in {
        "title": r"(?:document|contract|agreement|report|paper) (?:name|title)|title|headline"
        r"|subject|(?:name|title) of the \w+",
        "total": r"(?:grand |invoice )?total(?: amount| price| sum)?(?: due| paid)?|amount due",
        "issuer": r"(?:company|vendor|seller|merchant|store|shop|issuer|supplier)(?: name)?",
    }.items()
}
_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(item, re.IGNORECASE), re.compile(cue, re.IGNORECASE | re.DOTALL))
    for item, cue in {
        r"\b(?:agreement|contract|signing) date|\bdate of (?:the |this )?(?:agreement|contract)": (
            r"\bthis\b.{0,150}?\b(?:made|entered|executed|dated|effective|as\s+of)\b"
            r"|^\W*(?:dated|as\s+of)\b|\b(?:signed|executed|witness)\b.{0,80}\bthis\b"
        ),
        r"effective|start date|commence": r"\beffective\b|\bcommenc|\bshall\s+begin\b",
        r"expir|\bends?\b|terminat\w+ date|until": (
            r"\b(?:shall|will)\s+(?:expire|terminate|continue|remain)|\bexpir(?:es?|ation)\b"
            r"|\bterm\s+of\s+this\b|\buntil\b"
        ),
        r"\bpart(?:y|ies)\b|between whom": r"\bbetween\b|\bby\s+and\s+among\b",
        r"governing law|applicable law|jurisdiction|which law": (
            r"\b(?:govern(?:s|ed)?|constru(?:ed|ction)|interpreted|enforced)\b"
        ),
        r"\bterm\b|duration": r"\bterm\s+of\b|\bfor\s+a\s+(?:period|term)\b",
        r"notice": r"\bnotice\b.{0,80}\bdays?\b|\bdays?\b.{0,80}\bnotice\b",
        r"deadline|due date": r"\b(?:due|deadline|no\s+later\s+than|on\s+or\s+before)\b",
        r"birth|born": r"\b(?:born|birth)\b",
    }.items()
)


def item_of(name: str, description: str = "") -> Item:
    """Read an item, and a description of it, as the user wrote them."""
    spelled = _JOINTS.sub(" ", _EMAIL.sub("email", name)).strip().removeprefix("the ")
    listed = words.words(spelled)
    terms = words.terms(spelled) or words.terms(description)
    asked = [words.stem(word) for word in listed if word in _QUESTION_WORDS]
    kinds = dict.fromkeys(kind for term in asked + terms for kind in _KINDS_BY_TERM.get(term, ()))
    if _IDENTIFIER.search(spelled):
        kinds.pop(Kind.NUMBER, None)
        kinds = kinds or {Kind.IDENTIFIER: None}
    cue = next((cue for known, cue in _CUES if known.search(f"{spelled} {description}")), None)
    is_plural = any(
        word.endswith("s") and not word.endswith("ss") and word not in _SINGULAR
        for word in listed
        if words.stem(word) in _KINDS_BY_TERM
    )
    is_own_date = _OWN_DATE.match(spelled) is not None
    return Item(
        kinds=(Kind.DATE,) if is_own_date else tuple(kinds),
        terms=tuple(dict.fromkeys(terms)),
        is_pure=bool(kinds) and cue is None and (is_own_date or _PURE.issuperset(terms)),
        is_list=is_plural or bool(_LIST_WORD.search(spelled)),
        cue=cue,
        needs_cue=cue is not None and not _NEEDING_CUE.isdisjoint(kinds),
        is_question=bool(asked) or spelled.endswith("?"),
        layout=next((name for name, known in _LAYOUTS.items() if known.match(spelled)), ""),
    )
