"""`python -m benchmarks.trust` measures which wrong values are marked to be checked.

A scripted model answers with the labels of lawyers, as they are or with one kind of error.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from benchmarks import quality
from benchmarks.evidence import Entry, Quoting
from benchmarks.quality import Row
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.dates import DateOrder, dates_in
from chordwise.domain.extractive.sentences import sentences
from chordwise.domain.json_values import JsonObject
from chordwise.domain.typed_values import typed
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer

_LONGEST_TEXT = 200_000
_DATES = {"Agreement Date", "Effective Date", "Expiration Date"}
_FIELDS = ("Document Name", *sorted(_DATES), "Governing Law")
_STATES = re.compile(
    r"\b(?:Delaware|New York|California|Texas|Florida|Nevada|New Jersey|Illinois|Massachusetts"
    r"|Ohio|Washington|Colorado|Georgia|Pennsylvania|Virginia|England|Israel|Canada)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A contract with the right values, each with the sentence around the lawyers' span."""

    text: str
    entries: Sequence[Entry]
    sentences: Sequence[str]


def contracts(rows: Sequence[JsonObject], folder: Path) -> Iterator[Contract]:
    """Yield the contracts with a value whose place is known."""
    for row in rows:
        text = quality.text_of(row, folder)
        if len(text) > _LONGEST_TEXT:
            continue
        clauses = json_values.as_object(row["clauses"])
        entries = [
            Entry(item=field.lower(), value=value, quote=quote)
            for field in _FIELDS
            for value, quote in _answer(field, json_values.as_object(clauses[field]))
        ]
        if entries:
            parts = [part.text for part in sentences(text)]
            yield Contract(text=text, entries=entries, sentences=parts)


def _answer(field: str, clause: JsonObject) -> Iterator[tuple[str, str]]:
    answer, spans = json_values.text(clause["answer"]), json_values.objects(clause["spans"])
    located = [json_values.text(span["text"]) for span in spans if span["start"] is not None]
    if not answer or not located:
        return
    if field not in _DATES:
        value = located[0] if field == "Document Name" else answer
        yield value, located[0]
    elif (parsed := typed(answer, DateOrder.MONTH_FIRST).date) is not None:
        yield f"{parsed:%B} {parsed.day}, {parsed.year}", located[0]


Falsify = Callable[[Entry, Contract, Sequence[Contract], Random], Entry | None]


def _of_another_contract(
    entry: Entry, contract: Contract, others: Sequence[Contract], random: Random
) -> Entry | None:
    values = {
        other.value
        for one in others
        for other in one.entries
        if other.item == entry.item and other.value not in contract.text
    }
    values -= {entry.value}
    return replace(entry, value=random.choice(sorted(values)))


def _another_value(
    entry: Entry, contract: Contract, _others: Sequence[Contract], random: Random
) -> Entry | None:
    """Return another date or state of the contract, with its own sentence."""
    candidates: list[Entry] = []
    for sentence in contract.sentences:
        if entry.item.title() in _DATES:
            values = {f"{day:%B} {day.day}, {day.year}" for day in dates_in(sentence)}
        elif entry.item == "governing law":
            values = set(_STATES.findall(sentence))
        else:
            values = set()
        values = {value for value in values if value.lower() not in entry.value.lower()}
        candidates += [replace(entry, value=v, quote=sentence) for v in sorted(values)]
    return random.choice(candidates) if candidates else None


def _wrong_date(
    entry: Entry, _contract: Contract, _others: Sequence[Contract], random: Random
) -> Entry | None:
    parsed = typed(entry.value).date
    if parsed is None:
        return None
    year = parsed.year + random.choice((-1, 1))
    return replace(entry, value=f"{parsed:%B} {parsed.day}, {year}")


def _other_quote(
    entry: Entry, contract: Contract, _others: Sequence[Contract], random: Random
) -> Entry | None:
    return replace(entry, quote=random.choice(contract.sentences))


def _merged(
    entry: Entry, contract: Contract, _others: Sequence[Contract], _random: Random
) -> Entry | None:
    """Return the value of an entry joined with that of the next one, and its quote."""
    following = [other for other in contract.entries if other.value not in entry.quote]
    if not following:
        return None
    return replace(entry, value=f"{entry.value}, {following[0].value}")


_ERRORS: Mapping[str, Falsify] = {
    "a value of another contract, with the right quote": _of_another_contract,
    "another value of its kind, with its own quote": _another_value,
    "a wrong year, with the right quote": _wrong_date,
    "the right value, with the quote of something else": _other_quote,
    "two values in one, with the quote of the first": _merged,
}


def is_stated(entry: Entry) -> bool:
    """Return whether a quote has the value, so that a reader finds it there."""
    if (parsed := typed(entry.value).date) is not None:
        return parsed in dates_in(entry.quote)
    return " ".join(entry.value.split()).lower() in " ".join(entry.quote.split()).lower()


def checks(contract: Contract, entries: Sequence[Entry]) -> list[float]:
    """Return for each entry whether its value is marked to be checked."""
    if not entries:
        return []
    request = AnalysisRequest(
        text=contract.text,
        analysis_type=AnalysisType.EXTRACTION,
        specific_instructions="\n".join(entry.item for entry in entries),
    )
    analysis = DocumentAnalyzer(Quoting(entries)).analyze_document(request)
    doubted = {fact.item for fact in analysis.facts if fact.doubts}
    stated = {fact.item for fact in analysis.facts if fact.value is not None}
    return [float(entry.item in doubted) for entry in entries if entry.item in stated]


def measured(name: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Yield the share of marked values: of right ones, and of each kind of wrong ones."""
    read = list(contracts(rows, folder))
    for kind, is_in_quote in (("right", True), ("right, but computed from the quote", False)):
        right = (
            checks(contract, [one for one in contract.entries if is_stated(one) is is_in_quote])
            for contract in read
        )
        yield quality.share(name, kind, list(itertools.chain(*right)))
    for kind, falsify in _ERRORS.items():
        random, marked = Random(kind), list[float]()  # noqa: S311 - a reproducible choice
        for contract in read:
            wrong = [falsify(entry, contract, read, random) for entry in contract.entries]
            marked += checks(contract, [entry for entry in wrong if entry is not None])
        yield quality.share(name, kind, marked)


if __name__ == "__main__":
    head = ("corpus", "values", "n", "to check", "95 %")
    measures = {"cuad_contracts": (measured,)}
    quality.measure_all("trust", __doc__, measures, "<!-- make quality: trust -->\n", head)
