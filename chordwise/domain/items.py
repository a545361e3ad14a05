"""The items of an extraction: their names, and the kinds of their values.

A user may declare the type of a value after the name, as in `annual fee: money`; otherwise the name
determines it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.errors import UsageError


class ColumnKind(StrEnum):
    """The kind of the values of a column; the values in `answer_tables.columns`."""

    TEXT = "text"
    NUMBER = "number"
    MONEY = "money"
    DATE = "date"
    BOOLEAN = "boolean"
    TEXTS = "texts"
    NUMBERS = "numbers"
    DATES = "dates"
    JSON = "json"
    LABEL = "label"
    SCORE = "score"
    ENTITY = "entity"
    ENTITIES = "entities"

    @property
    def is_list(self) -> bool:
        """Whether the column holds several values."""
        return self in (self.TEXTS, self.NUMBERS, self.DATES, self.ENTITIES)


DEFAULT_ITEMS = ("people", "organizations", "dates", "amounts of money", "places")
# A comma in brackets is part of an item if the brackets close within 500 characters.
_SEPARATORS = re.compile(r"[\n;]+|,(?![^()]{0,500}\))")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


TYPES = {
    "text": (ColumnKind.TEXT, "one text"),
    "number": (ColumnKind.NUMBER, "a number"),
    "money": (ColumnKind.MONEY, "an amount of money with its currency"),
    "date": (ColumnKind.DATE, "a date"),
    "yes/no": (ColumnKind.BOOLEAN, "yes or no"),
    "list": (ColumnKind.TEXTS, "an entry for each value"),
}
"""The types that a user may declare, each with the kind of its values and a hint for the model."""
_TYPE = re.compile(r":\s*([^\W\d_][\w/-]*+)$")


@dataclass(frozen=True, slots=True)
class DeclaredItem:
    """An item with its declared type, which is empty or one of `TYPES`."""

    name: str
    type: str = ""

    @property
    def kind(self) -> ColumnKind:
        """The kind of its values, as declared or by its name."""
        return TYPES[self.type][0] if self.type else kind_of(self.name)

    @property
    def in_prompt(self) -> str:
        """The item as a model reads it."""
        return f"{self.name} ({TYPES[self.type][1]})" if self.type else self.name


def split(text: str) -> tuple[str, ...]:
    """Return the items in a text, split at commas, semicolons and lines."""
    parts = (_BULLET.sub("", part).strip() for part in _SEPARATORS.split(text))
    return tuple(part for part in parts if part)


def declared(item: str) -> DeclaredItem:
    """Parse an item as written, with its type if it declares one."""
    match = _TYPE.search(item)
    kind = match[1].casefold() if match else ""
    if match is None or kind not in TYPES:
        return DeclaredItem(item)
    return DeclaredItem(item[: match.start()].strip(), kind)


def without_type(item: str) -> str:
    """Return the name of an item."""
    return declared(item).name


def of(options: AnalysisOptions) -> dict[str, DeclaredItem]:
    """Return the items that a question without a schema asks for, by their names."""
    return _parsed(options.items, options.instructions)


def kind_in(options: AnalysisOptions, name: str) -> ColumnKind:
    """Return the kind of the values of an item in a question."""
    return of(options).get(name, DeclaredItem(name)).kind


def are_named(options: AnalysisOptions) -> bool:
    """Return whether the items are those of the user, and not the default ones."""
    return bool(options.items or split(options.instructions))


def check(options: AnalysisOptions) -> None:
    """Check the declared types of the items.

    Raises:
        UsageError: There is no such type, or an item is declared twice with another type or case.
    """
    first_of: dict[str, str] = {}
    for item in options.items or split(options.instructions):
        first = first_of.setdefault(without_type(item).casefold(), item)
        if declared(first) != declared(item):
            hint = "Name one of them differently."
            raise UsageError(f"An item is declared twice: {first}, and {item}.", hint)
    for item in of(options):
        if unknown := _TYPE.search(item):
            raise UsageError(
                f"“{unknown[1]}” is not a type of values: {item}.",
                f"Known: {', '.join(TYPES)}. Example: annual fee: money, parties: list",
            )


@lru_cache(maxsize=256)
def _parsed(listed: tuple[str, ...], instructions: str) -> dict[str, DeclaredItem]:
    by_name: dict[str, DeclaredItem] = {}
    for item in listed or split(instructions) or DEFAULT_ITEMS:
        by_name.setdefault(without_type(item), declared(item))
    return by_name


# The head noun of an item determines the kind of its values.

_LETTERS = re.compile(r"[^\W\d_]+")
_AFTER_NOUN = re.compile(
    r"\s(?:of|in|for|to|by|with|from|per|on|that|who|which)\s|[(:?]", re.IGNORECASE
)
_DATES = frozenset(("date", "day", "deadline", "birthday"))
_AMOUNTS = {
    "amount", "budget", "charge", "compensation", "cost", "deposit", "expense", "fee", "income",
    "payment", "penalty", "premium", "price", "profit", "rent", "revenue", "salary", "tax", "vat",
    "wage",
}  # fmt: skip
_SUMS = frozenset(("sum", "total"))
_COUNTS = frozenset(("count", "number", "percentage", "quantity", "share"))
_LIST_WORD = re.compile(
    r"\b(?:all(?!-)|(?<!if )any|(?<!for )(?:each|every)|list(?! price)|names of|people)\b",
    re.IGNORECASE,
)
_PLURALS = frozenset(("people", "men", "women", "children", "staff", "ids"))
_SINGULAR_ENDINGS = ("ss", "us", "is")
_ONE_SUM = frozenset(("earnings", "proceeds", "sales", "savings"))
_ONE = frozenset(
    (
        *("terms", "series", "news", "means", "headquarters", "premises"),
        *("minutes", "hours", "days", "weeks", "months", "years"),
    )
)
"""Words that look like plurals, and name one value."""
_OF_A_WHOLE = frozenset(
    ("total", "net", "gross", "aggregate", "combined", "consolidated", "overall")
)
"""Words that make one quantity of a plural: “total assets”."""
_SUMMED = frozenset(("assets", "borrowings", "debts", "liabilities", "losses", "receivables"))
_SUMMED |= _ONE_SUM | {"dividends", "funds", "payables", "penalties", "salaries", "taxes"}


def noun_of(item: str) -> str:
    """Return the words of an item up to a preposition: “name” of “name of the buyer”."""
    return _AFTER_NOUN.split(item.strip())[0]


def kind_of(item: str) -> ColumnKind:
    """Return the kind of the values of an item by its name: `effective date` is a date.

    The last word before `of`, `for`, `in`, `to` and the like decides: `amounts of money` are
    several amounts, `total assets` are one, `number of employees` is a number, and an
    `invoice number` is text, as it may contain letters.
    """
    noun = noun_of(item)
    words = _LETTERS.findall(noun.casefold())
    head = words[-1] if words else ""
    if head in _COUNTS and noun != item.strip():
        return ColumnKind.NUMBER
    if head in _SUMS | _ONE_SUM:
        return ColumnKind.MONEY
    is_plural = head not in _ONE and head.endswith("s") and not head.endswith(_SINGULAR_ENDINGS)
    is_plural = head in _PLURALS or (is_plural and len(head) > 3)  # noqa: PLR2004 - gas, VAT’s
    singular = head.removesuffix("s") if is_plural else head
    if is_plural and not _OF_A_WHOLE.isdisjoint(words[:-1]):
        is_money = head in _SUMMED or singular in _AMOUNTS
        return ColumnKind.MONEY if is_money else ColumnKind.NUMBER
    if is_plural or _LIST_WORD.search(item):
        return ColumnKind.DATES if singular in _DATES else ColumnKind.TEXTS
    if head in _DATES:
        return ColumnKind.DATE
    return ColumnKind.MONEY if head in _AMOUNTS else ColumnKind.TEXT


# Phrases that announce the value of an item in a document, such as “made as of” a date.

_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(item, re.IGNORECASE), re.compile(cue, re.IGNORECASE | re.DOTALL))
    for item, cue in {
        r"\b(?:agreement|contract|signing) date|\bdate of (?:the |this )?(?:agreement|contract)": (
            r"\bthis\b.{0,150}?\b(?:made|entered|executed|dated|effective|as\s+of)\b"
            r"|^\W*(?:dated|as\s+of)\b|\b(?:signed|executed|witness)\b.{0,80}\bthis\b"
            r"|^(?!.{0,80}\b(?:whereas|an?|certain|their|under)\b).{0,80}"
            r"\b(?:agreement|contract|lease)\b.{0,40}\b(?:dated|effective\s+as\s+of)\b"
        ),
        r"effective|start date|commence": r"\beffective\b|\bcommenc|\bshall\s+begin\b",
        r"expir|\bends?\b|terminat\w+ date|until": (
            r"^(?!.{0,400}\b(?:after|following|prior)\b.{0,40}?\b(?:terminat|expir)).{0,400}?"
            r"(?:\b(?:agreement|term|attachment|contract)\b.{0,60}?\b(?:shall|will|is|be)\b.{0,100}?"
            r"\b(?:(?:for|of)\s+(?:an?\s+)?(?:initial\s+)?(?:period|term)\b|until\b|years?\b"
            r"|(?:expir|conclud|end)(?:es?|ing|s)?\s+(?:on|upon)\b)|\bexpir(?:es?|ation\s+date)\b)"
            r"|\b(?:shall|will)\s+(?:continue|remain|extend|be\s+(?:effective|in\s+\w+))\b.{0,40}?"
            r"\b(?:until|through|to)\s+(?:\w+\s+\d{1,2},?\s+)?\d"
            r"|\bagreement\b.{0,100}?\b(?:shall|will)\s+continue\b.{0,40}?\bfor\b"
        ),
        r"\bpart(?:y|ies)\b|between whom": r"\bbetween\b|\bby\s+and\s+among\b",
        r"governing law|applicable law|jurisdiction|which law": (
            r"\b(?:govern(?:s|ed)?|constru(?:ed|ction)|interpreted|enforced)\b"
        ),
        r"notice": r"\bnotice\b.{0,80}\bdays?\b|\bdays?\b.{0,80}\bnotice\b",
        r"\bterm\b|duration": r"\bterm\s+of\b|\bfor\s+a\s+(?:period|term)\b",
    }.items()
)


def cue_of(item: str) -> re.Pattern[str] | None:
    """Return the pattern of the phrases that announce an item, or `None` if none are known."""
    return next((cue for known, cue in _CUES if known.search(item)), None)
