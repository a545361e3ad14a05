"""The items of an extraction, which a user names, and the kinds of their values."""

from __future__ import annotations

import re
from enum import StrEnum


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

    @property
    def is_list(self) -> bool:
        """Whether the column holds several values."""
        return self in (ColumnKind.TEXTS, ColumnKind.NUMBERS, ColumnKind.DATES)


DEFAULT_ITEMS = ("people", "organizations", "dates", "amounts of money", "places")
# A comma in brackets is part of an item if the brackets close within 500 characters.
_SEPARATORS = re.compile(r"[\n;]+|,(?![^()]{0,500}\))")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


def parse(instructions: str) -> tuple[str, ...]:
    """Return the items in a text, split at commas, semicolons and lines."""
    parts = (_BULLET.sub("", part).strip() for part in _SEPARATORS.split(instructions))
    named = tuple(dict.fromkeys(part for part in parts if part))
    return named or DEFAULT_ITEMS


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


def kind_of(item: str) -> ColumnKind:
    """Return the kind of the values of an item by its name: `effective date` is a date.

    The last word before `of`, `for`, `in`, `to` and the like decides: `amounts of money` are
    several amounts, `total assets` are one, `number of employees` is a number, and an
    `invoice number` is text, as it may contain letters.
    """
    noun = _AFTER_NOUN.split(item.strip())[0]
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
