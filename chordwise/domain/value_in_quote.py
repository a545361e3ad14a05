"""Whether a value stands in the quote that is given for it, in whatever format either is written.

Only what can be compared is judged: numbers, dates, names and codes. Labels, truth values and free
text are not, since they may say the same in other words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping

from chordwise.domain import grounding, json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.typed_values import dates_in, numbers_in, typed

MARK = "value_in_quote"
"""The member that an object with a quote has: what `stands_in` says of its value.

Where the evidence is for an object or a list, it is an object: a JSON Pointer from there to each
value that was judged, and what is said of it.
"""

_MAX_WORDS = 8
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
_PUNCTUATION = re.compile(r"[\W_]+")
_UNNAMED = "yes no true false none null unknown n/a na other"
_COMPANIES = "inc corp ltd llc llp lp plc gmbh ag kg sarl srl spa bv nv oy pty pte"
_WRITTEN_OUT = {"incorporated": "inc", "corporation": "corp", "limited": "ltd"}
_FORMS = {form: form for form in _COMPANIES.split()} | _WRITTEN_OUT
"""Forms of companies, which a name may have or not, but no other than its quote has."""
_OPTIONAL = "co company mbh se sa sas ab as mr mrs ms dr prof the and of state commonwealth"
"""Further forms, titles and small words, which a name may have or not."""
_MAY_BE_MISSING = frozenset((*_FORMS, *_OPTIONAL.split()))
_FEWEST_LETTERS, _LONGEST_ENDING = 4, 2
_MAX_IDEOGRAPHS = 8
_SHORTEST_CODE = 5
_FREE = re.compile(
    r"(?<![a-z])(?:summar|descri|expla|reason|why|overview|opinion|assess|categor|classif|type|kind"
    r"|sentiment|topic|translat|paraphras|infer|in your own words)",
    re.IGNORECASE,
)
_LOSS = re.compile(
    r"(?<![a-z])(?:loss|lost|deficit|credit|debit|refund|discount|deduct|decreas|declin|less|minus"
    r"|negative|fell|drop|down|below)",
    re.IGNORECASE,
)
_COMPUTED = re.compile(
    r"(?<![a-z])(?:calculat|comput|conver|count|how many|average|score|rating|rank)", re.IGNORECASE
)


def stands_in(value: JsonValue, quote: str, said: str = "") -> bool | None:
    """Tell whether a value occurs in a quote; `None` where it cannot be judged.

    `said` is what was asked for: a summary, a category or a calculation occurs nowhere.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if _COMPUTED.search(said) else _has_number(value, quote)
    text = json_values.text(value).strip()
    is_free = not text or len(text.split()) > _MAX_WORDS or _FREE.search(said) is not None
    if is_free or text.casefold() in _UNNAMED.split():
        return None
    if dates := dates_in(text):
        return bool(dates & dates_in(quote)) or _has_words(text, quote) is True
    if typed(text).number is not None:
        return numbers_in(text) & numbers_in(quote) != set() or _has_words(text, quote) is True
    return _has_words(text, quote)


def _has_number(value: float, quote: str) -> bool:
    """Tell whether a number occurs; that of a loss may stand without its sign."""
    number = typed(value).number
    accepted = {number, abs(number)} if number and _LOSS.search(quote) else {number}
    return number is not None and bool(accepted & numbers_in(quote))


def _has_words(text: str, quote: str) -> bool | None:
    """Tell whether the numbers and names in a text occur; `None` where it has neither."""
    plain, other = _plain(text), _plain(quote)
    if _has_no_case(plain):
        squeezed, within = _PUNCTUATION.sub("", plain), _PUNCTUATION.sub("", other)
        return squeezed in within if len(squeezed) <= _MAX_IDEOGRAPHS else None
    tokens = list(_names_and_numbers(plain))
    if not tokens:
        return None
    words = {word.casefold() for word in _TOKEN.findall(other)}
    forms = {_FORMS[each] for each in map(str.casefold, tokens) if each in _FORMS}
    others = {_FORMS[each] for each in words if each in _FORMS}
    if forms and others and not forms & others:
        return False
    numbers = numbers_in(other)
    wanted = [token for token in tokens if token.casefold() not in _MAY_BE_MISSING] or tokens
    if all(_is_among(token, words) or numbers_in(token) & numbers for token in wanted):
        return True
    return any(token[0].isdigit() for token in tokens) and _has_code(plain, other)


def _has_code(text: str, quote: str) -> bool:
    """Tell whether a code occurs, whatever parts it: AB-12-34 is AB1234, and not in AB12345."""
    code, within = (_PUNCTUATION.sub("", each).casefold() for each in (text, quote))
    place = within.find(code)
    is_cut = code[-1].isdigit() and within[place + len(code) :][:1].isdigit()
    return place >= 0 and len(code) >= _SHORTEST_CODE and not is_cut


def _names_and_numbers(text: str) -> Iterator[str]:
    """Yield the words that begin with a capital, and the numbers.

    A single capital at the beginning of several words in lower case is that of a sentence.
    """
    tokens = _TOKEN.findall(text)
    begins_sentence = any(each.islower() and each not in _MAY_BE_MISSING for each in tokens[1:])
    for number, token in enumerate(tokens):
        if token[0].isdigit() or (token[0].isupper() and (number or not begins_sentence)):
            yield token


def _is_among(token: str, words: Collection[str]) -> bool:
    """Tell whether a word occurs, with an ending perhaps, or as the initial of another."""
    word = token.casefold()
    if word in words:
        return True
    if len(word) == 1:
        return not word.isdigit() and any(each.startswith(word) for each in words)
    longest = len(word) + _LONGEST_ENDING if len(word) >= _FEWEST_LETTERS else 0
    return any(each.startswith(word) and len(each) <= longest for each in words)


def _plain(text: str) -> str:
    """Return a text without accents, and without marks inside of words."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _has_no_case(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return bool(letters) and all(char.lower() == char.upper() for char in letters)


# Marks in answers


def outside(output: JsonObject) -> list[str]:
    """Return the names of the items, or the paths, whose values do not stand in their quotes."""
    found: list[str] = []
    for entry in grounding.quotes(output):
        name = json_values.text(entry.get("item")) or json_values.text(entry.get("path"))
        found += [f"{name}{path}" for path, stands in _judged(entry).items() if not stands]
    return list(dict.fromkeys(found))


def share(entry: JsonObject) -> float:
    """Return which share of the values that were judged stands in the quote of their evidence."""
    judged = _judged(entry)
    return sum(judged.values()) / len(judged) if judged else 1.0


def mark_at(entry: JsonObject, path: str) -> bool | None:
    """Return what the evidence says of one value; `path` leads there from what it is about."""
    return _judged(entry).get(path)


def _judged(entry: JsonObject) -> Mapping[str, bool]:
    mark = entry.get(MARK)
    marks = mark if isinstance(mark, dict) else {"": mark}
    return {path: stands for path, stands in marks.items() if isinstance(stands, bool)}
