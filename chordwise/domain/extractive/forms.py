"""Values found by the layout of a document: its title, its issuer, and its total."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from chordwise.domain import words
from chordwise.domain.extractive.proper_names import FORMS
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence
from chordwise.domain.quantities import CURRENCY

Found = tuple[str, str]  # a value and its quote

_TOP = 12


def find(layout: str, text: str, sentences: Sequence[Sentence]) -> Found | None:
    """Return the value of a layout; `None` if the text has none or the layout is unknown."""
    if layout == "title":
        return title(sentences)
    finder = {"total": total, "issuer": issuer, "address": address}.get(layout)
    return finder(text) if finder else None


_FORM = (
    r"(?:AGREEMENT|Agreement|CONTRACT|Contract|REPORT|Report|ADDENDUM|Addendum|PLAN|Plan|POLICY"
    r"|Policy|MEMORANDUM|Memorandum|LEASE|Lease|INVOICE|Invoice|STATEMENT|Statement|ADDRESS|Address)"
)
_HEADING_WORD = r"(?:[A-Z0-9]\S*+|(?:of|and|the|for|in|to|a)(?!\S))"
_HEADING = re.compile(
    r"(?=.{4,120}$)(?!.*[.:;,]$)(?!(?i:exhibit|ex-|source|page|confidential|appendix|execution)\b)"
    rf"(?:[^a-z]+|{_HEADING_WORD}(?:\s++{_HEADING_WORD})*+)$"
)
_NAMES_FORM = re.compile(_FORM)
_NAMED = re.compile(rf"(?:[A-Z][\w&/-]*,?\s+(?:and\s+|of\s+|for\s+)?){{1,8}}{_FORM}\b")
_ARTICLE = re.compile(r"^(?:This|THIS|The|THE|Exhibit\s+\S+|EXHIBIT\s+\S+)\s+")


def title(sentences: Sequence[Sentence]) -> Found | None:
    """Return a heading with the name of a form, such a name, or any heading; else `None`."""
    top = sentences[:_TOP]
    headings = [(sentence.text, sentence.text) for sentence in top if _HEADING.match(sentence.text)]
    formal = [heading for heading in headings if _NAMES_FORM.search(heading[0])]
    matches = ((_NAMED.search(sentence.text), sentence.text) for sentence in top)
    inside = [(_ARTICLE.sub("", match.group()), text) for match, text in matches if match]
    return next(iter([*formal, *inside, *headings]), None)


# Receipts and invoices: short lines of labels and amounts, which may be in separate columns.
_AMOUNT = (
    rf"(?<![\w.,])(?:{CURRENCY} ?){{0,2}}-?(?:\d{{1,3}}(?:[.,]\d{{3}})*+|\d++)?[.,]\d\d"
    rf"(?: ?{CURRENCY})?"
)
_LINE = re.compile(
    rf"^[^\S\n]*+(?P<label>[^\n]{{0,60}}?)(?:(?P<amount>{_AMOUNT})(?: ?[A-Z]{{1,3}})?)?[^\S\n]*$",
    re.MULTILINE,
)
_TOTAL = re.compile(
    r"\b(?:total|(?:amount|balance)\s+(?:due|payable))\b|^\W*due\W*$", re.IGNORECASE
)
_PART = re.compile(
    r"\b(?:sub|excl\w*|before|without|qty|quantity|items?|disc\w*|sav\w+|rounding|change|points?"
    r"|accepted|tender\w*)\b",
    re.IGNORECASE,
)
_TAX = re.compile(r"\b(?:tax|gst|vat)\b", re.IGNORECASE)
_WHOLE = re.compile(r"\b(?:incl\w*|with|rounded|payable|due)\b", re.IGNORECASE)
_PAID = re.compile(
    r"\b(?:cash|paid|pay|payment|tender\w*|accepted|credit|visa|card)\b", re.IGNORECASE
)
_CHANGE = re.compile(r"\bchange\b", re.IGNORECASE)
_LABELLED = re.compile(r"[^:\n(]{1,60}:")
_REGISTRATION = re.compile(
    r"(?<!\s)(?:\s++\d{5,}+[\w-]*+(?:\s*+\([^()]*+\)?)?|\s*+\([\w.,:/\s-]*+\)?)$"
)
_GREETING = re.compile(r"\b(?:thank|welcome|again|goods|receipt|invoice)\b", re.IGNORECASE)
_CONTINUES = re.compile(r"(?i:co|company|corp|enterprise|sdn|bhd|ltd|limited|inc)\b|[^(]*\)")
_COMPANY_NUMBER = re.compile(
    r"\(.*\)?$|[a-z-]{0,4}\d\S{0,20}$|[^:]{0,30}\b(?:reg|roc|gst|vat|tax|id)\b[^:]{0,20}:",
    re.IGNORECASE,
)
_NO_ADDRESS = re.compile(
    r"[:@*=]|www\.|\b(?:tel|fax|phone|gst|vat|tax|reg|invoice|receipt|bill|cash|date|order)\b"
    r"|^(?:\([^)]*\)?|[^\w(].*|[\d\s()+./-]+)$",
    re.IGNORECASE,
)
_ARITHMETIC_WEIGHT = 1.5
_MAX_LABELS = 12
_SHORT_LINE = 30
_TOP_LINES, _ADDRESS_LINES = 6, 5


def total(text: str) -> Found | None:
    """Return the total of a receipt or an invoice; `None` if no total line has an amount."""
    pairs = list(_pairs(text))
    totals = [(label, line) for label, line in pairs if _is_total(label["label"])]
    paid = [(label, line) for label, line in pairs if _PAID.search(label["label"])]
    change = [_cents(line) for label, line in pairs if _CHANGE.search(label["label"])][:1]
    votes: dict[int, float] = defaultdict(float)
    for _, line in totals:
        votes[_cents(line)] += 1
    for _, line in paid if change else ():
        votes[_cents(line) - change[0]] += _ARITHMETIC_WEIGHT
    candidates = [*totals, *paid] if totals else []
    best = max(candidates, key=lambda p: (votes[_cents(p[1])], _cents(p[1])), default=None)
    if best is None:
        return None
    quote, amount = text[best[0].start("label") : best[1].end("amount")], best[1]["amount"]
    return amount.strip(), quote if len(quote) <= MAX_QUOTE_CHARACTERS else amount


def _pairs(text: str) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """A column with fewer amounts than labels belongs to the last, unless a total precedes them."""
    labels: list[re.Match[str]] = []
    amounts: list[re.Match[str]] = []
    for line in _LINE.finditer(f"{text}\nend"):
        is_label = any(letter.isalpha() for letter in line["label"])
        if line["amount"] and not is_label:
            amounts.append(line)
            continue
        if amounts:
            surplus = max(0, len(labels) - len(amounts))
            is_above = not any(_is_total(label["label"]) for label in labels[surplus:])
            yield from zip(labels[0 if is_above else surplus :], amounts, strict=False)
            labels, amounts = [], []
        if line["amount"]:
            yield line, line
        if line["label"]:
            labels = [*labels[-_MAX_LABELS:], line] if is_label and not line["amount"] else []


def _is_total(label: str) -> bool:
    if not _TOTAL.search(label) or _PART.search(label):
        return False
    return _WHOLE.search(label) is not None or not _TAX.search(label)


def _cents(line: re.Match[str]) -> int:
    return int("".join(sign for sign in line["amount"] if sign.isdecimal()) or 0)


def issuer(text: str) -> Found | None:
    """Return the issuer of a receipt or an invoice: the name at its top; `None` for other texts."""
    name = " ".join(_issuer(text)[0])
    value = _REGISTRATION.sub("", name).lstrip("# ")
    return (value or name, name) if name else None


def address(text: str) -> Found | None:
    """Return the address below the name of the issuer; `None` if there is none."""
    below = itertools.dropwhile(_COMPANY_NUMBER.match, _issuer(text)[1])
    block = itertools.takewhile(lambda line: not _NO_ADDRESS.search(line), below)
    joined = " ".join(itertools.islice(block, _ADDRESS_LINES))
    return (joined, joined) if any(map(str.isdecimal, joined)) else None


def _issuer(text: str) -> tuple[list[str], list[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    top = list(itertools.takewhile(lambda line: not _LABELLED.match(line), lines[:_TOP_LINES]))
    places = [
        place
        for place, line in enumerate(top)
        if sum(map(str.isalpha, line)) > 1 and not _GREETING.search(line)
    ]
    if not places or sorted(map(len, lines))[len(lines) // 2] > _SHORT_LINE:
        return [], []
    start = end = places[0]
    for place in places:
        spoken = words.words(_REGISTRATION.sub("", top[place]))
        if FORMS.issuperset(spoken[-1:]) and not FORMS.issuperset(spoken):
            start = end = place
            while start and _CONTINUES.match(top[start]):
                start -= 1
            break
    if FORMS.issuperset(words.words(" ".join(top[end + 1 : end + 2])) or [""]):
        end += 1
    return lines[start : end + 1], lines[end + 1 :]
