"""The check whether a value occurs in its supporting quote, regardless of the format of either.

Only comparable values are judged: numbers, dates, names and codes. Labels, booleans and free text
are not, since they may say the same in other words.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache

from chordwise.domain import grounding, json_values, outline
from chordwise.domain.dates import dates_in, is_time, month_of, months_in, times_in
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.quantities import (
    TIMES,
    VALUE_WORDS,
    Quantity,
    currencies_in,
    currencies_of,
    parse_single,
    powers_in,
    quantities,
    units_in,
)
from chordwise.domain.typed_values import typed

MARK = "value_in_quote"
"""The member of an object with a quote that holds the result of `occurs_in` for its value.

If the evidence supports an object or a list, the member is an object: it maps the JSON Pointer of
each judged value, relative to the object or list, to the result.
"""

_MAX_WORDS = 8
_SPACELESS = "\u0e00-\u0fff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(
    rf"\d+(?:[.,]\d+)*|(?:(?![{_SPACELESS}])[^\W\d_])++|(?:(?=[{_SPACELESS}])[^\W\d_])++"
)
"""A number or a word; a Latin name within Chinese or Thai text is a word even without spaces."""
_PUNCTUATION = re.compile(r"[\W_]+")
_UNNAMED = "yes no true false none null unknown n/a na other"
_DISTINCT = VALUE_WORDS["legal_forms"]["distinct"]
LEGAL_FORMS = {
    **{form: form for forms in VALUE_WORDS["legal_forms"].values() for form in forms},
    **{form: short for form, (short,) in VALUE_WORDS["short_forms"].items()},
}
"""The legal forms of companies, each with its short form."""
_FORMS = {form: short for form, short in LEGAL_FORMS.items() if short in _DISTINCT}
"""Company forms: optional in a name, but not different from that in its quote."""
_MAY_BE_MISSING = frozenset((*LEGAL_FORMS, *VALUE_WORDS["optional_words"]["names"]))
_MIN_LETTERS, _LONGEST_ENDING = 4, 2
_MAX_IDEOGRAPHS = 8
_SHORTEST_CODE = 5
_LONG_NUMBER = re.compile(r"\+?\d(?:[ -]?\d){6,}")
_FRACTION = re.compile(
    r"(?<![\d/.,])(?:\d{1,3} )?"
    r"(?:1/2|[12]/3|[13]/4|[1-4]/5|[1357]/8|(?:[13579]|1[135])/16)(?![\d/])(?! ?%)"
)
"""Proper fractions with usual denominators, which are no dates, ratios or numbers of clauses."""
_BESIDE = re.compile(r"[ .'’-]{1,2}")
_FREE = re.compile(
    r"(?<![a-z])(?:summar|descri|expla|reason|why|overview|opinion|assess|categor|classif|type|kind"
    r"|sentiment|topic|translat|paraphras|infer|in your own words)",
    re.IGNORECASE,
)
_LOSS = re.compile(
    r"(?<![a-z])(?:loss|deficit|credit(?:ed|s| note)|debit|refund|discount|deduct|decreas|declin"
    r"|negative|(?:lost|less(?! than)|minus|fell|dropp?(?:s|ed)?|down|below)(?![a-z]))",
    re.IGNORECASE,
)
_COST = re.compile(
    r"(?<![a-z])(?:expens|cost|charge|pay|paid|purchas|repurchas|tax|dividend|depreciat|amorti[sz]"
    r"|impair|allowance|liabilit|outflow|withh)",
    re.IGNORECASE,
)
"""Costs, which are given without a sign although a document has them in brackets."""
_PROFIT_OR_LOSS = re.compile(r"(?:income|profit|gain|earnings)[ _(]*(?:or[ _])?loss", re.IGNORECASE)
_COMPUTED = re.compile(
    r"(?<![a-z])(?:calculat|comput|conver|count|how many|average|score|rating|rank)", re.IGNORECASE
)
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_MIN_ADDED = 2
_TITLE_SHARE = 0.6
_HUNDRED = 100
_SPELLED_OUT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "ø": "oe"}
)
"""Letters that are also spelled with two letters in names: Müller and Mueller."""


def occurs_in(value: JsonValue, quote: str, question: str = "") -> bool | None:
    """Return whether a value occurs in a quote; `None` if it cannot be judged.

    A number must have the same sign, scale, currency and unit as in the quote, as far as both name
    them. By the `question`, a summary or a calculation need not occur, and units may be requested.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if _COMPUTED.search(question):
            return None
        number = typed(value).number
        return number is not None and _Stated(quote, question).has(Quantity(number=number))
    text = json_values.text(value).strip()
    if not text or _FREE.search(question) or text.casefold() in _UNNAMED.split():
        return None
    if len(text.split()) > _MAX_WORDS:
        return False if _adds_names(text, quote) else None
    return _occurs(text, quote, question)


def _occurs(text: str, quote: str, question: str) -> bool | None:
    if dates := dates_in(text):
        if stated := dates_in(quote):
            return not (dates.isdisjoint(stated) or _adds_words(text, quote))
        return _has_words(text, quote, question) is True
    if month := month_of(text):
        return month in months_in(quote) or (
            not text[0].isdecimal() and _has_words(text, quote, question) is True
        )
    if (currencies := currencies_of(text)) and (stated_in := currencies_in(quote)):
        return bool(currencies & stated_in)
    if is_time(text) and (stated_times := times_in(quote)):
        return times_in(text) <= stated_times
    is_stated = _has_words(text, quote, question)
    spelled, other = text.translate(_SPELLED_OUT), quote.translate(_SPELLED_OUT)
    if is_stated is False and (spelled != text or other != quote):
        return _has_words(spelled, other, question)
    return is_stated


def _adds_names(text: str, quote: str) -> bool:
    """Return whether a long name or title, and not prose, has words that its quote lacks."""
    words = _LONG_WORD.findall(text)
    is_title = sum(word[0].isupper() for word in words) > _TITLE_SHARE * len(words)
    return is_title and _adds_words(text, quote)


def _adds_words(text: str, quote: str) -> bool:
    """Return whether a date is joined with something else that is not in the quote."""
    there = quote.casefold()
    added = sum(word not in there for word in _LONG_WORD.findall(text.casefold()))
    return added >= _MIN_ADDED


def measured(number: Decimal, quote: str) -> Quantity | None:
    """Return a number with its currency or unit in a quote, if that is unambiguous, else `None`."""
    candidates = {
        Quantity(
            number=number,
            currency=quantity.code,
            unit=quantity.unit if quantity.measure[1] and not quantity.code else None,
        )
        for quantity in _all_in(quote)
        if abs(quantity.number) == abs(number) and (quantity.code or quantity.measure[1])
    }
    return candidates.pop() if len(candidates) == 1 else None


def is_positive_in(number: Decimal, quote: str) -> bool:
    """Return whether a quote states a negative number as positive, as a sentence does ($1,000)."""
    stated = {quantity.number for quantity in _all_in(quote)}
    return number < 0 and number not in stated and -number in stated


# Numbers


_FEWEST_CELLS = 3  # of two, one comma may be of a number


@lru_cache(maxsize=64)
def _all_in(quote: str) -> tuple[Quantity, ...]:
    """Cached, since a quote often supports all values of a row."""
    rows = [row for row in map(outline.cells, quote.splitlines()) if len(row) >= _FEWEST_CELLS]
    parts = (quote, *itertools.chain.from_iterable(rows), *_FRACTION.findall(quote))
    return tuple(itertools.chain.from_iterable(itertools.chain(*map(quantities, parts))))


class _Stated:
    """The numbers stated in a quote; `question` is the wording of the question."""

    def __init__(self, quote: str, question: str) -> None:
        self._quote, self._question = quote, question
        powers = powers_in(question)
        stated = _all_in(quote)
        scaled = (value for value in stated if value.power in powers)
        unscaled = [replace(value, number=value.number.scaleb(-value.power)) for value in scaled]
        self._quantities = [*stated, *unscaled]

    def has(self, quantity: Quantity) -> bool:
        """A loss or a cost may be stated without its sign."""
        if self._has(quantity):
            return True
        if quantity.number < 0:
            is_known = _LOSS.search(f"{self._question} {self._quote}")
        else:
            is_known = _LOSS.search(self._question) or _COST.search(self._question)
        is_open = is_known and not _PROFIT_OR_LOSS.search(self._question)
        return bool(is_open) and self._has(replace(quantity, number=quantity.number.copy_negate()))

    def _has(self, quantity: Quantity) -> bool:
        units = units_in(self._question) if not (quantity.unit or quantity.currency) else {}
        if len(units) == 1:
            results = self._compared(replace(quantity, unit=next(iter(units.values()))))
            if True in results or (
                results and {unit for unit, _ in units} <= TIMES and set(results) == {False}
            ):
                return True in results
        results = self._compared(quantity)
        return True in results or (set(results) == {None} and self._is_open(quantity))

    def _compared(self, quantity: Quantity) -> list[bool | None]:
        """The result is `None` if only the wanted quantity has a currency or unit."""
        return [
            _is_same(quantity, stated) for stated in self._quantities if _is_equal(quantity, stated)
        ]

    def _is_open(self, quantity: Quantity) -> bool:
        """Return whether the quote does not name a different currency or unit of time."""
        codes = currencies_in(self._quote)
        times = {unit for unit, _ in units_in(self._quote)} & TIMES
        is_other_currency = quantity.currencies and codes and not quantity.currencies & codes
        unit = quantity.measure[1]
        return not is_other_currency and (unit not in TIMES or not times or unit in times)


def _is_equal(one: Quantity, other: Quantity) -> bool:
    (number, unit), (other_number, other_unit) = one.measure, other.measure
    if one.number == other.number or (unit == other_unit and number == other_number):
        return True
    if unit or other_unit != "%":
        number, other_number = other_number, number
        unit, other_unit = other_unit, unit
    return not unit and other_unit == "%" and number in (other_number, other_number / _HUNDRED)


def _is_same(quantity: Quantity, stated: Quantity) -> bool | None:
    """`None` if only the wanted number has a currency or unit."""
    kind, other = _kind(quantity), _kind(stated)
    if not kind or not other:
        return None if kind else True
    return bool(kind & other) and (bool(quantity.currencies) or quantity.measure == stated.measure)


def _kind(quantity: Quantity) -> frozenset[str]:
    unit = quantity.measure[1]
    return quantity.currencies or frozenset([unit] if unit else [])


# Names and codes


def _has_words(text: str, quote: str, question: str) -> bool | None:
    """Return whether the numbers and names in a text occur; `None` if it has neither."""
    plain, other = _unaccented(text), _unaccented(quote)
    stated = _Stated(quote, question)
    if _has_no_case(plain):
        is_short = len(_PUNCTUATION.sub("", plain)) <= _MAX_IDEOGRAPHS
        number = parse_single(text)
        return _has_code(plain, other) or bool(number and stated.has(number)) if is_short else None
    tokens = list(_names_and_numbers(plain))
    if not tokens or (text[0] == "(" and text in quote):
        return True if tokens else None
    words = {word.casefold() for word in _TOKEN.findall(other)}
    rest = words - {*map(str.casefold, tokens)}  # one word is not two of a name
    numbers = list(quantities(text))
    if (
        all(
            name.casefold() in words or _matches_any(name, rest) for name in _names(tokens, numbers)
        )
        and all(any(map(stated.has, readings)) for readings in numbers)
        and all(token in words or any(quantities(token)) for token in tokens if token[0].isdigit())
    ):
        return _is_company(tokens, words) and _is_one_name(plain, other)
    is_code = parse_single(text) is None or _LONG_NUMBER.fullmatch(text) is not None
    is_long = len(_PUNCTUATION.sub("", plain)) >= _SHORTEST_CODE
    has_digits = any(token[0].isdigit() for token in tokens)
    return has_digits and is_code and is_long and _has_code(plain, other)


def _names(tokens: Sequence[str], numbers: Iterable[Sequence[Quantity]]) -> Sequence[str]:
    """Return the capitalized words that a quote must have, without currencies, units and forms."""
    measured = {
        word
        for readings in numbers
        for value in readings
        for word in _TOKEN.findall(value.currency or (value.unit if value.measure[1] else "") or "")
    }
    names = [token for token in tokens if not token[0].isdigit() and token not in measured]
    return [name for name in names if name.casefold() not in _MAY_BE_MISSING] or names


def _has_code(text: str, quote: str) -> bool:
    """Return whether a code occurs, ignoring separators: AB-12-34 is AB1234, and not in AB12345."""
    if f" {text.casefold()} " in f" {quote.casefold()} ":
        return True
    code, within = (_PUNCTUATION.sub("", passage).casefold() for passage in (text, quote))
    place = within.find(code)
    before, after = within[:place][-1:], within[place + len(code) :][:1]
    is_cut = (code[-1].isdigit() and after.isdigit()) or (code[0].isdigit() and before.isdigit())
    return place >= 0 and not is_cut


def _is_company(tokens: Sequence[str], words: Collection[str]) -> bool:
    forms = {_FORMS[word] for word in map(str.casefold, tokens) if word in _FORMS}
    others = {_FORMS[word] for word in words if word in _FORMS}
    return not forms or not others or bool(forms & others)


def _is_one_name(text: str, quote: str) -> bool:
    """Return whether the words of a name are not combined from several names."""
    others = _name_groups(quote, joins="," not in text)
    return all(
        len(group) == 1 or _is_part_of_one(group, others)
        for group in _name_groups(text, joins=False)
    )


def _is_part_of_one(group: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Return whether a name of the quote has all of these words, or is completely among them."""
    sharing = [other for other in others if any(_matches_any(word, other) for word in group)]
    return len(sharing) < 2 or any(  # noqa: PLR2004 - parts of two names
        all(_matches_any(word, other) for word in group) or all(word in group for word in other)
        for other in sharing
    )


def _name_groups(text: str, *, joins: bool) -> list[list[str]]:
    groups: list[list[str]] = []
    end, is_open = 0, False
    for match in _TOKEN.finditer(text):
        word = match[0].casefold()
        if not match[0][0].isupper() or word in ("and", "or"):
            is_open = False
            continue
        gap = text[end : match.start()]
        is_inverted = joins and gap == ", " and len(groups[-1]) == 1 if groups else False
        is_beside = _BESIDE.fullmatch(gap) is not None or word in _FORMS or is_inverted
        if is_open and is_beside:
            groups[-1].append(word)
        else:
            groups.append([word])
        end, is_open = match.end(), True
    return groups


def _names_and_numbers(text: str) -> Iterator[str]:
    """Yield the capitalized words, except one that only begins a sentence, and the numbers."""
    tokens = _TOKEN.findall(text)
    begins_sentence = any(token.islower() and token not in _MAY_BE_MISSING for token in tokens[1:])
    for number, token in enumerate(tokens):
        if token[0].isdigit() or (token[0].isupper() and (number or not begins_sentence)):
            yield token


def _matches_any(token: str, words: Collection[str]) -> bool:
    word = token.casefold()
    if word in words:
        return True
    if len(word) == 1:
        return not word.isdigit() and any(candidate.startswith(word) for candidate in words)
    longest = len(word) + _LONGEST_ENDING if len(word) >= _MIN_LETTERS else 0
    return any(candidate.startswith(word) and len(candidate) <= longest for candidate in words)


def _unaccented(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _has_no_case(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return bool(letters) and all(char.lower() == char.upper() for char in letters)


# Marks in answers


def values_not_in_quotes(output: JsonObject) -> list[str]:
    """Return the names of the items, or the paths, whose values do not occur in their quotes."""
    names: list[str] = []
    for entry in grounding.quotes(output):
        name = json_values.text(entry.get("item")) or json_values.text(entry.get("path"))
        names += [f"{name}{path}" for path, occurs in _marks_by_path(entry).items() if not occurs]
    return list(dict.fromkeys(names))


def share(entry: JsonObject) -> float:
    """Return the share of the judged values that occur in their quotes; 1 if none was judged."""
    judged = _marks_by_path(entry)
    return sum(judged.values()) / len(judged) if judged else 1.0


def mark_at(entry: JsonObject, path: str) -> bool | None:
    """Return the mark of one value; `path` is relative to the place of the evidence."""
    return _marks_by_path(entry).get(path)


def _marks_by_path(entry: JsonObject) -> Mapping[str, bool]:
    mark = entry.get(MARK)
    marks = mark if isinstance(mark, dict) else {"": mark}
    return {path: occurs for path, occurs in marks.items() if isinstance(occurs, bool)}
