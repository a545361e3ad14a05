"""`python -m benchmarks.quotes` measures how reliably quotes, and values in quotes, are found.

Sentences of real documents are written in the variants that file formats produce (pages with
headers, hyphens, footnotes, tables, entities), quoted as a model quotes them, and falsified by one
word.
"""

from __future__ import annotations

import html
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from random import Random

from benchmarks import quality, report
from chordwise.domain import value_in_quote
from chordwise.domain.extractive.sentences import sentences
from chordwise.domain.grounding import Grounding, Source
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.statistics import wilson

CORPORA = ("cuad_contracts", "sec_filings", "qmsum_meetings", "xquad")
_TABLE_STARTS = "<!-- make quality: quotes -->\n"
_MAX_DOCUMENTS = 10
_MAX_CHARACTERS = 60_000
_SENTENCES = 12
_NOTES = 0.1
_WORDS = range(9, 41)
Words = list[str]
Hits = dict[str, list[float]]

# Forms


def _as_pages(sample: Sequence[Words], random: Random) -> str:
    """Return short pages with a header and a footer; a hyphen splits the last word of each."""
    pages, lines, line = [], list[str](), list[str]()
    for word in (word for sentence in sample for word in sentence):
        line.append(word)
        if len(lines) >= 6 and re.fullmatch("[a-z]{8,}", word):
            cut = random.randint(3, len(word) - 3)
            pages.append("\n".join([*lines, " ".join([*line[:-1], f"{word[:cut]}-"])]))
            lines, line = [], [word[cut:]]
        elif len(line) > 11:
            lines.append(" ".join(line))
            line = []
    pages.append("\n".join([*lines, " ".join(line)]))
    return "\n\f\n".join(
        f"Master Agreement — Confidential\n\n{page}\n\nPage {number} of {len(pages)}"
        for number, page in enumerate(pages, start=1)
    )


def _with_notes(digits: str) -> Callable[[Sequence[Words], Random], str]:
    """Return a function that adds footnote numbers to some words, but not beside another number."""

    def written(sample: Sequence[Words], random: Random) -> str:
        number, text = 0, list[str]()
        words = [word for sentence in sample for word in sentence]
        for word, following in itertools.pairwise([*words, "end"]):
            is_marked = re.search("[a-z]{4}[,.;]?$", word) and following[0].isalpha()
            if is_marked and random.random() < _NOTES:
                number = number % 99 + 1
                text.append(word + "".join(digits[int(digit)] for digit in str(number)))
            else:
                text.append(word)
        return " ".join(text)

    return written


def _as_table(sample: Sequence[Words], random: Random) -> str:
    """Return a Markdown table with a row for each sentence, split into four cells."""
    rows = []
    for sentence in sample:
        cuts = sorted(random.sample(range(1, len(sentence)), 3))
        cells = [sentence[i:j] for i, j in zip([0, *cuts], [*cuts, len(sentence)], strict=True)]
        rows.append("| " + " | ".join(" ".join(cell) for cell in cells) + " |")
    return "\n".join(["| A | B | C | D |", "|---|:--|---|---|", *rows])


def _with_entities(sample: Sequence[Words], random: Random) -> str:
    words = [html.escape(word).replace("’", "&rsquo;") for sentence in sample for word in sentence]
    return "".join(word + random.choice(["&nbsp;", " ", " ", "\n"]) for word in words)


def _as_print(sample: Sequence[Words], _: Random) -> str:
    """Return the text with ligatures, soft hyphens and typographic quotes."""
    text = " ".join(word for sentence in sample for word in sentence)
    text = re.sub(r'"(?=\w)', "“", text).replace('"', "”").replace("'", "’")
    text = re.sub("[a-z]{8,}", lambda word: f"{word[0][:4]}\u00ad{word[0][4:]}", text)
    return text.replace("ffi", "\ufb03").replace("fi", "\ufb01").replace(" - ", " — ")


def _as_mail(sample: Sequence[Words], _: Random) -> str:
    words = [word for sentence in sample for word in sentence]
    lines = [" ".join(words[place : place + 11]) for place in range(0, len(words), 11)]
    return "On Monday they wrote:\n" + "\n".join(f"> {line}" for line in lines)


FORMS: dict[str, Callable[[Sequence[Words], Random], str]] = {
    "pages with hyphenated ends": _as_pages,
    "footnote digits": _with_notes("0123456789"),
    "superscripts": _with_notes("⁰¹²³⁴⁵⁶⁷⁸⁹"),
    "Markdown table": _as_table,
    "HTML entities": _with_entities,
    "ligatures, soft hyphens, quotes": _as_print,
    "quoted mail": _as_mail,
}

# Quotes

_DENYING = re.compile(
    r"\b(?:no|not|nor|none|never|neither|nothing|nobody|cannot|without|unless|except|hardly|lacks?"
    r"|un(?:able|likely|lawful)|illegal|fail\w*|refus\w*|declin\w*|den(?:y|ies|ied|ial)|prohibit\w*"
    r"|forbid\w*|prevent\w*|reject\w*|exclud\w*|other than|instead of|rather than)\b|n['’]t\b",
    re.IGNORECASE,
)


def false_quotes(words: Words, others: Words, random: Random) -> Iterator[tuple[str, Words]]:
    """Yield false quotes of a sentence, each with the kind of its change."""
    place = random.randrange(1, len(words) - 2)
    yield "word swapped", [*words[:place], random.choice(others), *words[place + 1 :]]
    yield "negation added", [*words[:place], "not", *words[place:]]
    yield "words reordered", [*words[:place], words[place + 1], words[place], *words[place + 2 :]]
    if words[place].isalnum() and re.search(r"\w", " ".join(words[:place])):
        yield "word omitted", [*words[:place], *words[place + 1 :]]
    for number, word in enumerate(words):
        if re.search(r"\d", word):
            changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 3) % 10), word, count=1)
            yield "number changed", [*words[:number], changed, *words[number + 1 :]]
        if _DENYING.fullmatch(word.strip(".,;")) and 0 < number < len(words) - 1:
            yield "negation removed", [*words[:number], *words[number + 1 :]]
        if _DENYING.fullmatch(word.strip(".,;")) and 3 <= number < len(words) - 3:
            yield "negation under an ellipsis", [*words[:number], "...", *words[number + 1 :]]


def true_ellipses(words: Words, random: Random) -> Iterator[tuple[str, Words]]:
    """Yield a quote that omits some words, and whether the omitted words contain a negation."""
    if len(words) >= 12:
        start = random.randint(4, len(words) - 7)
        end = random.randint(start + 1, min(start + 12, len(words) - 4))
        omitted = " ".join(words[start:end])
        kind = "that omit a negation" if _DENYING.search(omitted) else "without a negation"
        yield kind, [*words[:start], "...", *words[end:]]


def quotes(texts: Sequence[str]) -> tuple[Hits, Hits, Hits]:
    """Return whether true quotes were found, by variant, and false ones refused, by change.

    The third value counts the tiers of the true quotes without ellipses.
    """
    right, wrong, tiers = (defaultdict[str, list[float]](list) for _ in range(3))
    random = Random(16)  # noqa: S311 - not for secrets
    for text in texts:
        candidates = [sentence.text.split() for sentence in sentences(text[:_MAX_CHARACTERS])]
        candidates = [
            sentence for sentence in candidates if len(sentence) in _WORDS and "|" not in sentence
        ]
        chosen = random.sample(candidates, min(_SENTENCES, len(candidates)))
        others = [word for sentence in candidates for word in sentence if len(word) > 4]
        forms = {"unchanged": text[:_MAX_CHARACTERS]}
        forms |= {name: written(chosen, random) for name, written in FORMS.items()}
        for name, form in forms.items():
            source = Source(form)
            for words in chosen:
                span = source.locate(" ".join(words))
                tier = Grounding.NONE if span is None else span.grounding
                for grounding in Grounding:
                    tiers[grounding].append(float(grounding is tier))
                right[name].append(float(span is not None))
                if name != "unchanged":
                    _refuse(source, words, others, random, wrong)
                for kind, quote in true_ellipses(words, random):
                    is_joined = source.locate(" ".join(quote)) is not None
                    denies = kind == "that omit a negation"
                    (wrong if denies else right)[f"ellipses {kind}"].append(denies ^ is_joined)
    return right, wrong, tiers


def _refuse(source: Source, words: Words, others: Words, random: Random, wrong: Hits) -> None:
    said = " ".join([*source.text.split(), *words]).casefold()
    for kind, quote in false_quotes(words, others, random):
        if " ".join(quote).casefold() not in said:
            wrong[kind].append(float(source.locate(" ".join(quote)) is None))


# Values

_MONEY = re.compile(
    r"(?<!\()\$ ?([1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2})(\.\d\d)?(?![\d,.]*\d| ?[mMbBkK]| thousand)"
)
_SPAN = re.compile(r"(?<![\d.,$-])\(?(\d{1,3})\)? (days|months|years)\b")
_SHARE = re.compile(r"(?<![\d.,(-])(?<!minus )(\d{1,2}(?:\.\d{1,2})?)%")
_DATE = re.compile(
    r"\b(January|February|March|April|May|June|July|August|September|October|November|December)"
    r" (\d{1,2}), (\d{4})\b"
)
_MONTHS = _DATE.pattern[3:].partition(")")[0].split("|")


Value = tuple[bool, JsonValue, str]
"""Whether a value is right, the value, and its quote."""


def _of_money(match: re.Match[str]) -> Iterator[Value]:
    quote, number, cents = match.string, int(match[1].replace(",", "")), match[2] or ".00"
    german = f"{number:,}".replace(",", ".") + cents.replace(".", ",")
    for value in (float(f"{number}{cents}"), f"USD {number:,}{cents}", f"{german} $"):
        yield True, value, quote
    for value in (f"{number:,}{cents} EUR", f"£{number:,}{cents}", f"-{number:,}{cents} $"):
        yield False, value, quote
    yield False, float(f"{number + 1}{cents}") * 1000, quote
    millions = quote.replace(match[0], f"${number} million")
    yield False, number, quote.replace(match[0], f"-{match[0]}")
    yield False, number, millions
    yield True, number * 1_000_000, millions


def _of_duration(match: re.Match[str]) -> Iterator[Value]:
    quote, number, unit = match.string, int(match[1]), match[2]
    yield True, number, quote
    yield True, f"{number} {unit}", quote
    for other in {"days", "months", "years"} - {unit}:
        yield False, f"{number} {other}", quote
    if unit == "years":
        yield True, f"{12 * number} months", quote


def _of_share(match: re.Match[str]) -> Iterator[Value]:
    quote, share = match.string, match[1]
    for value in (float(share), f"{share} %", f"{share} percent", round(float(share) / 100, 6)):
        yield True, value, quote
    negative = quote.replace(match[0], f"-{match[0]}")
    yield False, f"{share} %", negative
    yield True, -float(share), negative
    yield False, f"{share} bps", quote


def _of_date(match: re.Match[str]) -> Iterator[Value]:
    month, day, year = _MONTHS.index(match[1]) + 1, int(match[2]), int(match[3])
    for value in (
        f"{year}-{month:02}-{day:02}",
        f"{day:02}.{month:02}.{year}",
        f"{day} {match[1]} {year}",
        f"{year}-{month:02}",
    ):
        yield True, value, match.string
    other_day, other_month = day % 27 + 1, month % 12 + 1
    for wrong in ((year + 7, month, day), (year, other_month, other_day), (year, month, other_day)):
        yield False, "{}-{:02}-{:02}".format(*wrong), match.string


VALUES = {
    "money": (_MONEY, _of_money),
    "duration": (_SPAN, _of_duration),
    "percentage": (_SHARE, _of_share),
    "date": (_DATE, _of_date),
}


def values(text: str) -> Iterator[tuple[str, Value]]:
    """Yield right and wrong values for sentences with one number, in other formats."""
    for quote in (sentence.text for sentence in sentences(text[:_MAX_CHARACTERS])):
        for kind, (pattern, written) in VALUES.items():
            matches = list(pattern.finditer(quote))
            if len(matches) == 1:
                yield from ((kind, value) for value in written(matches[0]))


def judged(texts: Sequence[str]) -> tuple[Hits, Hits]:
    """Return whether right values were accepted and wrong ones refused, by kind."""
    right, wrong = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for kind, (is_right, value, quote) in (case for text in texts for case in values(text)):
        occurs = value_in_quote.occurs_in(value, quote)
        (right if is_right else wrong)[kind].append(float(occurs is is_right))
    return right, wrong


def table(texts: Sequence[str]) -> str:
    """Return the shares of right outcomes as a Markdown table."""
    lines = []
    (located, refused, tiers), (accepted, rejected) = quotes(texts), judged(texts)
    kinds = {
        "tier of a true quote": tiers,
        "true quote found": located,
        "false quote refused": refused,
        "right value accepted": accepted,
        "wrong value refused": rejected,
    }
    for name, hits in kinds.items():
        whole = {} if hits is tiers else {"all": [hit for group in hits.values() for hit in group]}
        for kind, outcomes in (hits | whole).items():
            low, high = wilson(sum(outcomes), len(outcomes))
            share = sum(outcomes) / max(1, len(outcomes))
            interval = f"{low:.3f} to {high:.3f}"
            lines.append([f"{name}: {kind}", f"{len(outcomes):,}", f"{share:.3f}", interval])
    return report.table(("what", "n", "right", "95 %"), lines)


def main() -> None:
    """Measure the corpora, print the table, and with `--write` update benchmarks/quality.md."""
    options = quality.parser("quotes", __doc__).parse_args()
    texts = [
        quality.text_of(row, options.corpora / name)
        for name, rows in quality.truths_of(options.corpora, CORPORA)
        for row in rows[:_MAX_DOCUMENTS]
    ]
    quality.publish(_TABLE_STARTS, table(texts), writes=options.write)


if __name__ == "__main__":
    main()
