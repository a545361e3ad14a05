"""Parsing of numbers in a text, with their currencies, units and scales."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation


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
        name = _SYMBOLS.get(self.currency or "", self.currency)
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


# Currencies and scales

_SPACES = " \u00a0\u2009\u202f"
_CODES = """
AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW
KZT LKR MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND
ZAR
"""
_NAMES_OF_CURRENCIES = {
    "USD": "$ US$ U.S.$ dollar dollars Dollar Dollars",
    "EUR": "€ euro euros Euro Euros",
    "AUD": "A$ AU$",
    "BRL": "R$ reais",
    "CAD": "C$ CA$",
    "CHF": "Fr. SFr. Franken",
    "CNY": "RMB yuan 元",
    "CZK": "Kč",
    "GBP": "£",
    "HKD": "HK$",
    "ILS": "₪",
    "INR": "₹ Rs. Rs rupees Rupees",
    "JPY": "¥ yen Yen 円",
    "KRW": "₩ 원",
    "MYR": "RM",
    "NZD": "NZ$",
    "PLN": "zł złotych",
    "RUB": "₽ \u0440\u0443\u0431. \u0440\u0443\u0431 рублей рубля рубль",
    "SGD": "S$",
    "TRY": "₺ TL",
    "TWD": "NT$",
    "UAH": "₴ грн. грн гривень",
}
_SYMBOLS = {name: code for code, names in _NAMES_OF_CURRENCIES.items() for name in names.split()}
_SHARED = {
    "AUD CAD HKD MXN NZD SGD TWD USD": "$ dollar dollars Dollar Dollars",
    "INR LKR PKR": "Rs. Rs rupees Rupees",
    "CNY JPY": "¥ 元",
    "DKK ISK NOK SEK": "kr kr. Kr kronor kroner",
}
_SHARED_BY = {
    name: frozenset(codes.split()) for codes, names in _SHARED.items() for name in names.split()
}
_CURRENCY = "|".join(
    (r"(?<![^\W\d_])" if name[0].isascii() and name[0].isalpha() else "")
    + re.escape(name)
    + (r"(?![^\W\d_])" if name[-1].isascii() and name[-1].isalpha() else "")
    for name in sorted({*_SYMBOLS, *_SHARED_BY, *_CODES.split()}, key=len, reverse=True)
)
_FIRST = "".join(sorted({re.escape(name[0]) for name in (*_SYMBOLS, *_SHARED_BY, *_CODES.split())}))
CURRENCY = f"(?=[{_FIRST}])(?:{_CURRENCY})"
"""The pattern of a symbol, code or name of a currency."""
_CURRENCIES = re.compile(CURRENCY)
_NAMES_OF_SCALES = {
    2: "hundred",
    3: "k thousand thousands tsd tausend mille mil mila duizend tys bin тыс тис тысяч тысячи 千",
    4: "万 萬 만",
    5: "lakh lakhs lac lacs",
    6: (
        "m mm mn mio mln million millions millionen millones milioni milhões miljoen miljoner "
        "millioner milionów milionu milyon млн миллион миллиона миллионов мільйонів"
    ),
    7: "crore crores",
    8: "億 亿 억",
    9: (
        "b bn bil bln billion billions mrd milliarde milliarden milliard milliards miliardi "
        "miljard miljarder milliarder mld miliardów milyar млрд миллиард миллиарда миллиардов"
    ),
    12: "t tn trn trillion trillions трлн 兆 조",
}
_SCALES = {name: power for power, names in _NAMES_OF_SCALES.items() for name in names.split()}
_UNSURE_SCALES = ("b", "k", "m", "mm", "t")
"""Scales that are units, or letters of codes, unless a currency is beside them."""
_HOMONYMS = ("bin", "mil")
"""Scales of some languages that have another meaning in English, and beside a dollar sign."""


def _pattern(names: Iterable[str]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    joined = "|".join(rf"{name}\b(?!&)" if name.islower() else name for name in longest_first)
    return f"(?i:{joined})"


SCALE = _pattern(_SCALES.keys() - {*_UNSURE_SCALES, *_HOMONYMS})
"""The pattern of a scale that any number may have: “million”, “bn”."""
_GAP_OF_SCALE = rf"(?:[{_SPACES}-]?|\n(?={SCALE}))"
_SCALE_OF_MONEY = _pattern(_SCALES)
SCALED_MONEY = rf"{_GAP_OF_SCALE}{_SCALE_OF_MONEY}"
"""The pattern of a scale after an amount of money, with the gap: “m”, “bn”, “-million”."""


def currencies_in(text: str) -> set[str]:
    """Return the codes of all currencies that a text names; $ stands for several."""
    return {code for name in _CURRENCIES.findall(text) for code in _codes(name)}


def currencies_of(text: str) -> frozenset[str]:
    """Return the codes of a text that consists of the name of a currency; empty otherwise."""
    return _codes(text) if _CURRENCIES.fullmatch(text) else frozenset()


def _codes(name: str) -> frozenset[str]:
    return _SHARED_BY.get(name) or frozenset((_SYMBOLS.get(name, name),))


# Units

_NAMES_OF_UNITS = {
    ("second", "1"): "sec secs second seconds sekunde sekunden seconde secondes segundos secondi",
    ("second", "60"): "min mins minute minutes minuten minutos minuti",
    ("second", "3600"): "h hr hrs hour hours std stunde stunden heure heures hora horas ore uur",
    ("day", "1"): (
        "day days tag tage tagen jour jours día días dia dias giorno giorni dag dagen dni 日 天 일"
    ),
    ("day", "7"): (
        "week weeks wk wks woche wochen semaine semaines semana semanas settimana settimane weken"
    ),
    ("month", "1"): (
        "mo mos month months monat monate monaten mois mes meses mês mese mesi maand maanden "
        "miesiąc miesięcy"
    ),
    ("month", "12"): (
        "yr yrs year years jahr jahre jahren an ans année années año años ano anos anno anni jaar "
        "lat 年 년"
    ),
    ("%", "1"): "% percent pct prozent procent percentage",
    ("%", "0.1"): "‰",
    ("%", "0.01"): "bp bps",
    ("gram", "0.001"): "mg",
    ("gram", "1"): "g gram grams gramm",
    ("gram", "1000"): "kg kilogram kilograms kilogramm",
    ("gram", "1000000"): "t tonne tonnes",
    ("pound", "1"): "lb lbs pound pounds",
    ("metre", "0.001"): "mm",
    ("metre", "0.01"): "cm",
    ("metre", "1"): "m metre metres meter meters",
    ("metre", "1000"): "km kilometre kilometres kilometer kilometers",
    ("foot", "1"): "ft foot feet",
    ("mile", "1"): "mi mile miles",
    ("m²", "1"): "m² sqm qm",
    ("m³", "1"): "m³",
    ("litre", "1"): "l litre litres liter liters",
    ("litre", "0.001"): "ml",
    ("°C", "1"): "°c celsius",
    ("°F", "1"): "°f fahrenheit",
}
_UNITS = {
    name: (base, Decimal(factor))
    for (base, factor), names in _NAMES_OF_UNITS.items()
    for name in names.split()
}
_PERCENT = "per cent|per cento|pour cent|por ciento|por cento|percentage point|percentage points"
_UNITS |= dict.fromkeys(_PERCENT.split("|"), _UNITS["%"])
_UNITS |= dict.fromkeys(("basis point", "basis points"), _UNITS["bps"])
_QUALIFIERS = (
    "banking|basis|business|calendar|consecutive|further|full|percentage|successive|trading|working"
)
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
    return {_SCALES[word] for word in words if word in _SCALES and word not in _UNSURE_SCALES}


def _unit(name: str) -> tuple[str, Decimal] | None:
    """Return the base unit and factor of a unit; “calendar days” are days, and so is 日以内."""
    lowered = name.lower()
    last = lowered.replace("-", " ").rpartition(" ")[2]
    return _UNITS.get(lowered) or _UNITS.get(lowered[0] if lowered[:1] >= _SPACELESS else last)


# Numbers

_DIGITS = rf"\d+(?:[.,'’{_SPACES}]\d+)*"
_BLANKS = re.compile(f"['’{_SPACES}]")
_MARKS = re.compile("[.,]")
_GAP = f"[{_SPACES}]{{0,8}}+"
_AMOUNT = re.compile(
    # A fast exit if no number follows soon.
    rf"(?=[{_FIRST}\d(−–+mn-])(?=\D{{0,60}}+\d)"
    rf"(?P<open>\()?(?:(?P<before>{_CURRENCY}){_GAP})?"
    rf"(?:(?P<sign>[-−–+]|\b(?:minus|negative)(?=[ ])){_GAP})?"
    rf"(?:(?P<inside>{_CURRENCY}){_GAP})?(?P<inner>\()?(?P<digits>{_DIGITS})(?P<closed>\))?"
    rf"(?:{_GAP_OF_SCALE}(?P<scale>{_SCALE_OF_MONEY}\.?))?(?:,?[-–—])?(?P<close>\))?"
    rf"{_GAP}(?:(?:US[ ])?(?P<after>{_CURRENCY})|(?P<unit>{_UNIT}))?"
)
_ENGLISH = "b bn k m mm mn t thousand tn million billion trillion"
_BEFORE_MINUS = re.compile(r"\b(?:a|at|by|from|is|of|to|was|were)$")
_LAST_WORD = re.compile(r"\s[^\W\d_]+\.?\s*$")
_NEAR = 80
_MINUS = ("-", "−", "–", "minus", "negative")
# A number in words before its figures: "thirty (30) days".
_IN_WORDS = re.compile(r"^[A-Za-z-]+(?: [A-Za-z-]+)? \(")
_WIDE = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_WIDE |= str.maketrans("\u066b\u066c\u3000", "., ")
# A number with East Asian scales: 1億2000万, 1万2345.
_SCALED = re.compile(r"(?<![\d,.])(?:\d[\d,.]*+[千万萬만億亿억兆조]){1,6}+(?:\d[\d,]*+)?")
_PART = re.compile(r"(\d[\d,.]*+)([^\d\s])?")
_GROUP = 3
_FEWEST_CELLS = 3


def parse_single(text: str) -> Quantity | None:
    """Parse a text that is one number, sum of money or percentage; `None` for any other text."""
    text = " ".join(_straightened(text).split())
    matches = list(_AMOUNT.finditer(text))
    if len(matches) != 1:
        return None
    match = matches[0]
    currency, scale, unit = _currency_of(match), _scale_of(match), match["unit"]
    is_marked = currency is not None or unit in ("%", "‰")
    number = _number(match["digits"], is_money=currency is not None, scale=scale)
    if number is None or not (is_marked or match.start() == 0 or _IN_WORDS.match(text)):
        return None
    is_letter = scale in _UNSURE_SCALES and currency is None
    if (scale in _HOMONYMS and currency in _SHARED_BY) or (is_letter and not _unit(scale)):
        return None
    if is_letter:
        scale, unit = "", match["scale"]
    is_negative = match["sign"] in _MINUS or _is_in_brackets(match, text)
    power = _SCALES.get(scale, 0)
    number = (-number if is_negative else number) * 10**power
    return Quantity(number=number, currency=currency, unit=unit, power=power)


def quantities(text: str) -> Iterator[tuple[Quantity, ...]]:
    """Yield the readings of each number in a text: 1.500 has two, 1500 and 1.5, and 1.2.3 none."""
    text = _NUMBER_WORDS.sub(_figures, _FRACTION.sub(_decimal_fraction, _straightened(text)))
    for match in _AMOUNT.finditer(text):
        yield from _quantities(match, text)


def cells_in(text: str) -> Iterator[str]:
    """Yield the cells of CSV records with at least three cells, none beginning with a blank."""
    for record in csv.reader(text.splitlines()):
        if len(record) >= _FEWEST_CELLS and not any(cell[:1].isspace() for cell in record):
            yield from record


def _quantities(match: re.Match[str], text: str) -> Iterator[tuple[Quantity, ...]]:
    currency, scale = _currency_of(match), _scale_of(match)
    powers = {_SCALES.get(scale, 0): match["unit"]}
    if scale in _UNSURE_SCALES and currency is None:
        powers[0] = scale
    for numbers in _readings(match["digits"]):
        yield tuple(
            Quantity(number=signed * 10**power, currency=currency, unit=unit, power=power)
            for number in numbers
            for signed in _signed(match, text, number)
            for power, unit in powers.items()
        )


def _currency_of(match: re.Match[str]) -> str | None:
    return match["before"] or match["inside"] or match["after"]


def _scale_of(match: re.Match[str]) -> str:
    return (match["scale"] or "").lower().rstrip(".")


def _straightened(text: str) -> str:
    """A number with several East Asian scales is replaced by figures."""
    return text if text.isascii() else _SCALED.sub(_sum, text.translate(_WIDE))


def _sum(match: re.Match[str]) -> str:
    parts = [(_decimal(part.replace(",", "")), scale) for part, scale in _PART.findall(match[0])]
    if len(parts) == 1 or any(number is None for number, _ in parts):
        return match[0]
    total = sum((number or 0) * 10 ** _SCALES.get(scale, 0) for number, scale in parts)
    return f"{total:f}"


def _is_in_brackets(match: re.Match[str], text: str) -> bool:
    """Return whether an amount is negative in accounting notation: (1,200) or $(1,200)."""
    is_whole = match.start() == 0 and text.endswith(")")
    return bool(match["inner"] and match["closed"]) or (bool(match["open"]) and is_whole)


def _signed(match: re.Match[str], text: str, number: Decimal) -> tuple[Decimal, ...]:
    """Return a number with its sign, or with both signs if it is ambiguous.

    A minus is distinguished from the hyphen of a range and the dash of a list, “minus” from a
    subtraction, and accounting brackets from those around a number that precedes them in words.
    """
    start, end = match.span("sign")
    before = text[:start].rstrip(_SPACES)
    if match["sign"] in _MINUS[-2:]:
        is_sum = before[-1:].isalnum() and not _BEFORE_MINUS.search(before)
        return (number, -number) if is_sum else (-number,)
    if match["sign"] in _MINUS and not text[end].isspace():
        return (number,) if before[-1:].isalnum() and len(before) == start else (-number,)
    end = max(match.end("closed"), match.end("close"))
    is_in_brackets = end > 0 and (match["open"] or match["inner"])
    before = text[max(0, match.start() - _NEAR) : match.start()]
    preceding = _LAST_WORD.sub("", before)  # five thousand dollars ($5,000)
    if not is_in_brackets or preceding.rstrip().endswith(f"{number.normalize():f}"):
        return (number,)
    if match["open"] and match["before"] and not match["inner"]:
        return _signed_in_brackets(number, before, text[end : end + _NEAR])
    is_amount = _MARKS.search(match["digits"]) or _currency_of(match) or match["scale"]
    return (-number,) if is_amount or match["unit"] in ("%", "‰") else (number, -number)


def _signed_in_brackets(number: Decimal, before: str, after: str) -> tuple[Decimal, ...]:
    if before.rstrip(_SPACES)[-1:].isalpha() and after.lstrip(_SPACES)[:1].isalpha():
        return (number,)
    is_alone = not (before.rstrip()[-1:].isalpha() or after.lstrip()[:1].isalpha())
    return (-number,) if is_alone else (-number, number)


def _number(digits: str, *, is_money: bool, scale: str) -> Decimal | None:
    plain = _BLANKS.sub("", digits)
    marks = [mark for mark in plain if mark in ".,"]
    if not marks:
        return _decimal(plain)
    last = marks[-1]
    whole, _, rest = plain.rpartition(last)
    if len(set(marks)) > 1:
        return _decimal(f"{_MARKS.sub('', whole)}.{rest}")
    if len(marks) > 1:
        return _decimal(plain.replace(last, "")) if _is_grouped(plain, last) else None
    divides_thousands = len(rest) == _GROUP and whole != "0"
    if last == "." and divides_thousands:
        divides_thousands = scale not in _ENGLISH.split()  # 1.234 Mio., 1.234 million
        if divides_thousands and not is_money:
            return None  # 1.500 is 1500 in German, and 1.5 in English
    return _decimal(whole + rest if divides_thousands else f"{whole}.{rest}")


def _is_grouped(plain: str, mark: str) -> bool:
    """Return whether marks separate groups of three, or of two as in India: 12,34,567."""
    first, *groups = plain.split(mark)
    is_whole = len(groups[-1]) == _GROUP and all(len(group) in (2, _GROUP) for group in groups)
    return is_whole and first != "0"


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _readings(digits: str) -> Iterator[set[Decimal]]:
    pieces = _BLANKS.split(digits)
    groups = [_MARKS.split(piece)[0] for piece in pieces[1:]]
    is_grouped = len(pieces[0]) <= _GROUP and all(len(group) == _GROUP for group in groups)
    if groups and is_grouped:
        yield from _whole_or_parts("".join(pieces))
    if not groups or not is_grouped or " " in digits:
        for piece in pieces:
            yield from _whole_or_parts(piece)


def _whole_or_parts(piece: str) -> Iterator[set[Decimal]]:
    """Yield the readings of digits with marks; of a list of numbers, or a date, each part."""
    whole = {text for text in (_read_as(piece, ",", "."), _read_as(piece, ".", ",")) if text}
    parts = _MARKS.split(piece)
    if whole:
        yield set(map(Decimal, whole))
    elif "." not in piece or any(len(part) > _GROUP for part in parts):
        yield from ({Decimal(part)} for part in parts)


def _read_as(piece: str, mark: str, point: str) -> str:
    whole, _, decimals = piece.partition(point)
    is_number = not _MARKS.search(decimals) and (mark not in whole or _is_grouped(whole, mark))
    return f"{whole.replace(mark, '')}.{decimals or 0}" if is_number else ""


# Numbers in words

_ONES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDERED = """
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_CARDINALS = {name: number for number, name in enumerate(_ONES.split())}
_CARDINALS |= {name: 10 * number for number, name in enumerate(_TENS.split(), start=2)}
ORDINALS = {name: number for number, name in enumerate(_ORDERED.split(), start=1)}
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
