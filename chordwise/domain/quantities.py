"""Numbers in texts, with their currencies, units and scales, by the words of `values.toml`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from chordwise.domain.words import word_lists

VALUE_WORDS = word_lists("values.toml")
"""The words of values in the languages of documents, by table and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number in a text, with the names of its currency and its unit as in the text.

    `power` is the power of ten by which a word beside the number multiplies it.
    """

    number: Decimal
    currency: str | None = None
    unit: str | None = None
    power: int = 0

    @property
    def code(self) -> str | None:
        """The ISO 4217 code of the currency; $ is that of the United States, kr has none."""
        name = _CODE_OF.get(self.currency or "", self.currency)
        return None if name in _SHARED_BY else name

    @property
    def currencies(self) -> frozenset[str]:
        """The codes of all currencies that the name may mean; empty if none is named."""
        return _codes(self.currency) if self.currency else frozenset()

    @property
    def measure(self) -> tuple[Decimal, str]:
        """The number in its base unit, such as days for weeks; `""` if the unit is unknown."""
        base, factor = _unit(self.unit or "") or ("", Decimal(1))
        return (self.number if factor == 1 else self.number * factor), base


def pattern_of(names: Iterable[str]) -> str:
    """Return the pattern of one of several names, of which the longest takes precedence."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


# Currencies and scales

_SPACES = " \u00a0\u2009\u202f"
_CODE_OF = {name: code for code, names in VALUE_WORDS["currencies"].items() for name in names}
_SHARED_BY = {
    name: frozenset(codes.split())
    for codes, names in VALUE_WORDS["shared_currencies"].items()
    for name in names
}
_NAMES_OF_CURRENCIES = {*_CODE_OF, *_SHARED_BY, *VALUE_WORDS["codes"]["currencies"]}
_OF_POINTS = VALUE_WORDS["codes"]["of_points"]
_FIRST = "".join(sorted({re.escape(name[0]) for name in _NAMES_OF_CURRENCIES}))
_CURRENCY = "|".join(
    (r"(?<![^\W\d_])" if name[0].isascii() and name[0].isalpha() else "")
    + re.escape(name)
    + (r"(?![^\W\d_])" if name[-1].isascii() and name[-1].isalpha() else "")
    for name in sorted(_NAMES_OF_CURRENCIES, key=len, reverse=True)
)
CURRENCY = f"(?=[{_FIRST}])(?:{_CURRENCY})"
"""The pattern of a symbol, code or name of a currency."""
_CURRENCIES = re.compile(CURRENCY)
POWER_OF = {name: int(power) for power, names in VALUE_WORDS["scales"].items() for name in names}
"""The powers of ten by the names of scales in lower case."""
UNSURE_SCALES, _HOMONYMS, _ENGLISH_SCALES = (
    VALUE_WORDS["kinds_of_scales"][kind] for kind in ("unsure", "homonyms", "english")
)


def _scale_pattern(names: Iterable[str]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    joined = "|".join(rf"{name}\b(?!&)" if name.islower() else name for name in longest_first)
    return f"(?i:{joined})"


SCALE = _scale_pattern(POWER_OF.keys() - {*UNSURE_SCALES, *_HOMONYMS})
"""The pattern of a scale that any number may have: “million”, “bn”."""
_GAP_OF_SCALE = rf"(?:[{_SPACES}-]?|\n(?={SCALE}))"
_SCALE_OF_MONEY = _scale_pattern(POWER_OF)


def currencies_in(text: str) -> set[str]:
    """Return the codes of all currencies that a text names; $ stands for several."""
    return {code for name in _CURRENCIES.findall(text) for code in _codes(name)}


def currencies_of(text: str) -> frozenset[str]:
    """Return the codes of a text that consists of the name of a currency; empty otherwise."""
    return _codes(text) if _CURRENCIES.fullmatch(text) else frozenset()


def _codes(name: str) -> frozenset[str]:
    return _SHARED_BY.get(name) or frozenset((_CODE_OF.get(name, name),))


# Units

_UNITS = {
    name: (unit.partition(" ")[2], Decimal(unit.partition(" ")[0]))
    for unit, names in VALUE_WORDS["units"].items()
    for name in names
}
_QUALIFIERS = pattern_of(VALUE_WORDS["words_of_units"]["qualifiers"])
_UNIT = rf"%|‰|°[CF]\b|(?:(?:{_QUALIFIERS})[ -])*+(?:p(?:e|ou?)r )?[^\W\d_]+[²³]?"
_UNIT_WORD = re.compile(r"[^\W\d_]+[²³]?|[%‰]")
_SPACELESS = "\u2e80"
TIMES = frozenset(("second", "day", "month"))
"""The base units of time in `Quantity.measure`."""


def units_in(text: str) -> dict[tuple[str, Decimal], str]:
    """Return the names of the units in a text, by base unit and factor."""
    words = _UNIT_WORD.findall(text.replace("_", " "))
    return {unit: word for word in words if (unit := _unit(word))}


def powers_in(text: str) -> set[int]:
    """Return the powers of ten that a text names: 6 for “in millions”."""
    words = _UNIT_WORD.findall(text.replace("_", " ").lower())
    return {POWER_OF[word] for word in words if word in POWER_OF and word not in UNSURE_SCALES}


@lru_cache(maxsize=1_000)
def _unit(name: str) -> tuple[str, Decimal] | None:
    """Return the base unit and factor of a unit; “calendar days” are days, and so is 日以内."""
    lowered = name.lower()
    last = lowered.replace("-", " ").rpartition(" ")[2]
    return _UNITS.get(lowered) or _UNITS.get(lowered[0] if lowered[:1] >= _SPACELESS else last)


# Numbers

_DIGITS = rf"\d+(?:[.,'’{_SPACES}]\d+)*"
_BLANKS = re.compile(f"['’{_SPACES}]")
_DIGIT = re.compile(r"\d")
_MARKS = re.compile("[.,]")
_GAP = f"[{_SPACES}]{{0,8}}+"
_AMOUNT = re.compile(
    # A fast exit if no number follows soon.
    rf"(?=[{_FIRST}\d(−–+mn-])(?=\D{{0,60}}+\d)"
    rf"(?P<open>\()?(?:(?P<before>{_CURRENCY}){_GAP})?"
    rf"(?:(?P<sign>[-−–+]|\b(?:minus|negative)(?=[ ])){_GAP})?"
    rf"(?:(?P<inside>{_CURRENCY}){_GAP})?(?P<inner>\()?(?P<digits>{_DIGITS})(?P<closed>\))?"
    rf"(?:{_GAP_OF_SCALE}(?P<scale>{_SCALE_OF_MONEY}\.?))?(?:,?[-–—])?(?P<close>\))?"
    rf"{_GAP}(?:(?:US[ ]|de[ ]|d['’])?(?P<after>{_CURRENCY})|(?P<unit>{_UNIT}))?"
)
_BEFORE_MINUS = re.compile(r"\b(?:a|at|by|from|is|of|to|was|were)$")
_REST_OF_SENTENCE = re.compile(rf"[{_SPACES}]*+(?:[^\W\d_]|[.;]|,\s)")
_NEAR = 80
_MINUS = ("-", "−", "–", "minus", "negative")
# A number in words before its figures: "thirty (30) days".
_IN_WORDS = re.compile(r"^[A-Za-z-]+(?: [A-Za-z-]+)? \(")
_RATE = re.compile(r"per\b|/\s*[^\W\d_]")
_is_year_in_brackets = re.compile(r"\((?:19|20)\d\d\)").fullmatch
_WIDE = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_WIDE |= str.maketrans("\u066b\u066c\u3000", "., ")
# A number with East Asian scales: 1億2000万, 1万2345.
_SCALED = re.compile(r"(?<![\d,.])(?:\d[\d,]*+(?:\.\d++)?[千万萬만億亿억兆조]){1,6}+(?:\d[\d,]*+)?")
_PART = re.compile(r"(\d[\d,]*+(?:\.\d++)?)([^\d\s])?")
_GROUP = 3


def parse_single(text: str) -> Quantity | None:
    """Parse a text that is one number, sum of money or percentage; `None` for any other text.

    Figures that contradict the number in words before them, thirty (45), are not parsed, and
    neither is (2020), which may be a year or negative.
    """
    text = " ".join(_straightened(text).split())
    figures = text if _DIGIT.search(text) else _in_figures(text)[0]
    matches = list(_AMOUNT.finditer(figures))
    match = matches[0] if len(matches) == 1 else None
    if match is None or (figures != text and not _is_whole(match)):
        return None
    currency, scale, unit = _currency_of(match), _scale_of(match), match["unit"]
    is_marked = currency is not None or unit in ("%", "‰")
    is_english = scale in _ENGLISH_SCALES or _is_rate(match)
    is_grouped = currency is not None and _codes(currency).isdisjoint(_OF_POINTS)
    number = _likeliest(match["digits"], is_grouped=is_grouped, is_english=is_english)
    if number is None or not (is_marked or match.start() == 0 or _IN_WORDS.match(text)):
        return None
    is_letter = scale in UNSURE_SCALES and currency is None
    if is_letter and (not _unit(scale) or _unit(unit or "")):
        return None
    if scale in _HOMONYMS and currency in _SHARED_BY:
        return None
    if is_letter:
        scale, unit = "", match["scale"]
    # In accounting notation: (1,200) or $(1,200).
    is_in_brackets = (match["inner"] and match["closed"]) or (
        match["open"] and match.start() == 0 and text.endswith(")")
    )
    is_negative = match["sign"] in _MINUS or is_in_brackets
    power = POWER_OF.get(scale, 0)
    number *= 10**power
    is_repeated = match["open"] or match["inner"]
    if is_repeated and _contradicts(number, text[: match.start()].rstrip(" (")):
        return None
    if _is_year_in_brackets(match[0]):
        return None
    number = -number if is_negative else number
    return Quantity(number=number, currency=currency, unit=unit, power=power)


def quantities(text: str) -> Iterator[tuple[Quantity, ...]]:
    """Yield the readings of each number in a text: 1.500 has two, 1500 and 1.5, and 1.2.3 none."""
    text, in_words = _in_figures(_FRACTION.sub(_decimal_fraction, _straightened(text)))
    for match in _AMOUNT.finditer(text):
        yield from _quantities(match, text, in_words)


def _quantities(
    match: re.Match[str], text: str, in_words: Container[Decimal]
) -> Iterator[tuple[Quantity, ...]]:
    """Figures in brackets may repeat a number in words: five thousand (5,000) is not 5."""
    currency, scale = _currency_of(match), _scale_of(match)
    powers = {POWER_OF.get(scale, 0): match["unit"]}
    if scale in UNSURE_SCALES and currency is None:
        powers[0] = scale
    is_in_brackets = (match["open"] or match["inner"]) and (match["closed"] or match["close"])
    for numbers in _readings(match["digits"]):
        repeated = {
            number
            for number in numbers
            if is_in_brackets and any(number * 10**power in in_words for power in powers)
        }
        yield tuple(
            Quantity(number=signed * 10**power, currency=currency, unit=unit, power=power)
            for number in repeated or numbers
            for signed in ((number,) if repeated else _signed(match, text, number))
            for power, unit in powers.items()
        )


def _currency_of(match: re.Match[str]) -> str | None:
    return match["before"] or match["inside"] or match["after"]


def _is_rate(match: re.Match[str]) -> bool:
    """Return whether an amount is one per unit, in English: $3.459 per gallon."""
    return _RATE.match(match["unit"] or match.string[match.end() :].lstrip()) is not None


def _contradicts(number: Decimal, before: str) -> bool:
    """Return whether a text is another number in words, with or without a currency or unit."""
    words = _NUMBER_WORDS.match(before)
    name = before[words.end() :] if words else ""
    if words is None or (name and not (_unit(name.strip()) or _CURRENCIES.fullmatch(name, 1))):
        return False
    in_words = _in_figures(words[0])[1]
    return bool(in_words) and number not in in_words


def _is_whole(match: re.Match[str]) -> bool:
    """Return whether a text is an amount of money or of a known unit, and nothing else."""
    is_measured = _currency_of(match) or _unit(match["unit"] or "")
    return bool(is_measured) and match.span() == (0, len(match.string))


def _scale_of(match: re.Match[str]) -> str:
    return (match["scale"] or "").lower().rstrip(".")


def _straightened(text: str) -> str:
    """A number with several East Asian scales is replaced by figures."""
    return text if text.isascii() else _SCALED.sub(_sum, text.translate(_WIDE))


def _sum(match: re.Match[str]) -> str:
    parts = _PART.findall(match[0])
    total = sum(
        Decimal(part.replace(",", "")) * 10 ** POWER_OF.get(scale, 0) for part, scale in parts
    )
    return match[0] if len(parts) == 1 else f"{total:f}"


def _signed(match: re.Match[str], text: str, number: Decimal) -> tuple[Decimal, ...]:
    """Return a number with its sign, or with both signs if it is ambiguous.

    A minus is distinguished from the hyphen of a range and the dash of a list, “minus” from a
    subtraction, and accounting brackets of a table from those of a sentence.
    """
    start, end = match.span("sign")
    before = text[:start].rstrip(_SPACES)
    if match["sign"] in _MINUS[-2:]:
        is_sum = before[-1:].isalnum() and not _BEFORE_MINUS.search(before)
        return (number, -number) if is_sum else (-number,)
    if match["sign"] in _MINUS and not text[end].isspace():
        return (number,) if before[-1:].isalnum() and len(before) == start else (-number,)
    end = max(match.end("closed"), match.end("close"))
    if end < 0 or not (match["open"] or match["inner"]):
        return (number,)
    if match["open"] and match["before"] and not match["inner"]:
        before = text[max(0, match.start() - _NEAR) : match.start()]
        return _signed_in_brackets(number, before, text[end : end + _NEAR])
    is_amount = _MARKS.search(match["digits"]) or _currency_of(match) or match["scale"]
    return (-number,) if is_amount or match["unit"] in ("%", "‰") else (number, -number)


def _signed_in_brackets(number: Decimal, before: str, after: str) -> tuple[Decimal, ...]:
    if before.rstrip(_SPACES)[-1:].isalpha() and _REST_OF_SENTENCE.match(after):
        return (number,)
    is_alone = not (before.rstrip()[-1:].isalpha() or after.lstrip()[:1].isalpha())
    return (-number,) if is_alone else (-number, number)


def _likeliest(digits: str, *, is_grouped: bool, is_english: bool) -> Decimal | None:
    """Return the reading of digits with marks; `None` for several numbers, or if it is open.

    1.500 is 1500 in German, and so is €1.500, and 1.5 in English; 1,500 is 1500 everywhere.
    """
    readings = list(_whole_or_parts(_joined(digits)))
    if len(readings) != 1:
        return None
    fewest, most = min(readings[0]), max(readings[0])
    if "." not in digits or fewest == most:
        return most
    return fewest if is_english else most if is_grouped else None


def _readings(digits: str) -> Iterator[set[Decimal]]:
    joined = _joined(digits)
    yield from _whole_or_parts(joined)
    if not joined or " " in digits:
        for piece in _BLANKS.split(digits):
            yield from _whole_or_parts(piece)


def _joined(digits: str) -> str:
    """Return digits without the blanks between groups of three; empty for several numbers."""
    first, *others = _BLANKS.split(digits)
    groups = [_MARKS.split(piece)[0] for piece in others]
    is_grouped = len(first) <= _GROUP and all(len(group) == _GROUP for group in groups)
    return "".join((first, *others)) if is_grouped or not groups else ""


def _whole_or_parts(piece: str) -> Iterator[set[Decimal]]:
    """Yield the readings of digits with marks; of a list of numbers, or a date, each part."""
    whole = {text for text in (_read_as(piece, ",", "."), _read_as(piece, ".", ",")) if text}
    parts = _MARKS.split(piece)
    if whole:
        yield set(map(Decimal, whole))
    elif piece and ("." not in piece or any(len(part) > _GROUP for part in parts)):
        yield from ({Decimal(part)} for part in parts)


def _read_as(piece: str, mark: str, point: str) -> str:
    whole, _, decimals = piece.partition(point)
    is_number = not _MARKS.search(decimals) and (mark not in whole or _is_grouped(whole, mark))
    digits = whole.replace(mark, "")
    return "" if not is_number else f"{digits}.{decimals}" if decimals else digits


def _is_grouped(plain: str, mark: str) -> bool:
    """Return whether marks separate groups of three, or of two as in India: 12,34,567."""
    first, *groups = plain.split(mark)
    is_whole = len(groups[-1]) == _GROUP and all(len(group) in (2, _GROUP) for group in groups)
    return is_whole and first != "0"


# Numbers in words

_CARDINALS = {name: number for number, name in enumerate(VALUE_WORDS["numbers"]["ones"])}
_CARDINALS |= {name: 10 * ten for ten, name in enumerate(VALUE_WORDS["numbers"]["tens"], start=2)}
ORDINALS = {name: place for place, name in enumerate(VALUE_WORDS["numbers"]["ordinals"], start=1)}
ORDINALS["thirtieth"] = 30
_PARTS = {f"{name}s": number for name, number in ORDINALS.items() if not name.endswith("nd")}
_MULTIPLES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_NAMES_OF_NUMBERS = {*_CARDINALS, *_MULTIPLES, *ORDINALS, *_PARTS, "half"} - {"second", "firsts"}
_NUMBER_WORD = rf"(?:{'|'.join(sorted(_NAMES_OF_NUMBERS, key=len, reverse=True))})\b"
_NUMBER_WORDS = re.compile(
    rf"\b(?:half )?(?:an? )?{_NUMBER_WORD}(?:(?:(?:(?<=thousand)|(?<=million)|(?<=billion)),"
    rf"(?: and)? | and a (?=half)|[ -](?:and )?){_NUMBER_WORD})*+",
    re.IGNORECASE,
)
_WORD = re.compile("[a-z]+")
_FRACTION = re.compile(
    r"(?:\b(\d+)[ ]?)?([\u00bc-\u00be\u2150-\u215e])|\b(\d+)[ -](\d{1,2})/(\d{1,2})(?![\d/])"
    r"|^(\d{1,3})/(\d{1,3})$"
)


def _decimal_fraction(match: re.Match[str]) -> str:
    if match[2]:
        return f"{Decimal(match[1] or 0) + Decimal(str(unicodedata.numeric(match[2]))):f}"
    upper, lower = Decimal(match[4] or match[6]), Decimal(match[5] or match[7])
    return f"{Decimal(match[3] or 0) + upper / lower:f}" if lower else match[0]


def _in_figures(text: str) -> tuple[str, set[Decimal]]:
    """Return a text with figures for its numbers in words, and these numbers."""
    numbers: set[Decimal] = set()

    def figures(match: re.Match[str]) -> str:
        written = _figures(match)
        numbers.update([Decimal(written)] if written != match[0] else [])
        return written

    return _NUMBER_WORDS.sub(figures, text), numbers


def _figures(match: re.Match[str]) -> str:
    words = _WORD.findall(match[0].lower())
    if words[0] in _MULTIPLES:
        return match[0]
    total = current = Decimal(0)
    for index, word in enumerate(words):
        if word in ("thousand", "million", "billion"):
            total, current = total + (current or Decimal(1)) * _MULTIPLES[word], Decimal(0)
        elif word in _MULTIPLES:
            current = (current or Decimal(1)) * _MULTIPLES[word]
        elif word == "half":
            adds = not current or words[index - 1] == "a"
            current = current + Decimal("0.5") if adds else current / 2
        elif word in _PARTS or (word in ORDINALS and current == 1):
            current = (current or Decimal(1)) / (_PARTS.get(word) or ORDINALS[word])
        else:
            current += _CARDINALS.get(word, ORDINALS.get(word, 0))
    return f"{total + current:f}"


# Written forms

_SCALED_MONEY = rf"{_GAP_OF_SCALE}{_SCALE_OF_MONEY}"
_FIGURES = r"(?:\d+(?:[.,'’]\d+)*+|\.\d\d)"
_UPPER_END = rf"(?:\s?(?:[-–—]|to)\s?(?:{CURRENCY})?{_FIGURES}(?={_SCALED_MONEY}))?"  # 1-2 million
_SUM = rf"{_FIGURES}{_UPPER_END}(?:{_SCALED_MONEY})?"
MONEY = re.compile(
    rf"(?=\D{{0,10}}+\d)(?:\b(?:US|CA|AU|HK)\s)?(?!\w?[a-z]{{2}}){CURRENCY}\s?{_SUM}"
    rf"|(?<![\d.,]){_SUM}\.?[\s-]?(?:(?:US\s|de\s|d['’])?{CURRENCY}|(?:pounds|cents)\b)"
)
_UNITS_OF_TIME = [
    name for name, (base, _) in _UNITS.items() if base in TIMES and len(name) > _GROUP
]
_SHARES = [name for name, (base, _) in _UNITS.items() if base == "%" and len(name) > _GROUP]
PERCENT = re.compile(rf"\d[\d.,]*+\s?(?:[%‰]|(?:{pattern_of(_SHARES)})\b)", re.IGNORECASE)
_CARDINAL = rf"(?:{pattern_of(_CARDINALS)})"
DURATION = re.compile(
    rf"\b(?:\d+|{_CARDINAL}(?:[ -](?:and )?(?:{_CARDINAL}|hundred|thousand|million))*+)"
    r"(?:\s*\(\s*\d+\s*\))?[\s-]+"
    rf"(?:(?:{_QUALIFIERS})\s+)?(?:day|{pattern_of(_UNITS_OF_TIME)})\b",
    re.IGNORECASE,
)
NUMBER = re.compile(rf"(?<![\w.])-?\d++(?:,\d++)*+(?:\.\d++)?+(?:[\s-]{SCALE})?(?![\d%])")
