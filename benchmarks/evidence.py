"""`python -m benchmarks.evidence` measures the detection of missing rows and of quotes' pages.

It uses no language model: a script omits rows from answers and quotes lines of pages.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pypdfium2

from benchmarks import quality
from benchmarks.quality import Row
from chordwise.domain import json_values, missing_rows
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import Completion, CompletionRequest, ModelProfile
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer
from tests.fakes.generated_answers import a_field

_ROWS_OF_A_LIST = 40
_LEFT_OUT = 0.4
_LONGEST_TEXT = 400_000
_LEAST_QUOTE = 40
_VALUES = {
    "dates": re.compile(r"\b[A-Z][a-z]{2,8} \d{1,2}, \d{4}|\b\d{1,2}/\d{1,2}/\d{2,4}"),
    "amounts": re.compile(r"[$€£] ?\d[\d,.]*|\b\d[\d,.]* ?%"),
    "names": re.compile(r"\b[A-Z][a-z]+ (?:[A-Z]\. )?[A-Z][a-z]+\b"),
}
_LAYOUTS: tuple[Callable[[str, str, int], str], ...] = (
    lambda text, label, number: f'"{text}",{label},{number}\n',
    lambda text, label, number: f"| {number} | {text} | {label} |\n",
    lambda text, label, number: f"- {text}\n  {label} {number}\n",
    lambda text, label, number: f"Text: {text}\nLabel: {label}\nNumber: {number}\n\n",
)
_ROWS_OF_A_SHORT_LIST = 8
_SHORT_LAYOUTS: tuple[Callable[[str, str], str], ...] = (
    lambda text, label: f"- {label}, {text}\n",
    lambda text, label: f"{label} – {text}\n",
    lambda text, label: f"• {text} ({label})\n",
    lambda text, label: f"{label.split()[0]}: {text}\n",
)
_ANSWERED = {
    "one row of a short list": slice(3, 4),
    "every third row of a short list": slice(0, None, 3),
    "half of a short list": slice(0, 4),
}
_SCHEMA: JsonObject = {"properties": {"rows": {"type": "array", "items": {"type": "string"}}}}
_TASK = AnalysisTask(
    analysis_type=AnalysisType.EXTRACTION,
    stage=Stage.ANALYZE,
    options=AnalysisOptions(schema=_SCHEMA),
)


def is_taken_for_whole(text: str, spans: Sequence[tuple[int, int]]) -> bool:
    """Return whether no row is reported as missing for a list whose rows are at these spans."""
    rows: list[JsonValue] = [text[slice(*span)] for span in spans]
    evidence: list[JsonValue] = [
        {"path": f"/rows/{number}", "quote": text[start:end], "start_char": start, "end_char": end}
        for number, (start, end) in enumerate(spans)
    ]
    output: JsonObject = {"data": {"rows": rows}, "evidence": evidence}
    return not missing_rows.unread(Source(text), output, _TASK)


def by_lists(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often omitted rows of tables, items and blocks are detected.

    The texts of the corpus are the rows; the last 40 % of them, or five consecutive ones, are
    omitted.
    """
    texts = [" ".join(quality.text_of(row, folder).split())[:80] for row in rows]
    labels = [quality.label_of(row) for row in rows]
    told, whole = [], []
    for first in range(0, len(texts) - _ROWS_OF_A_LIST + 1, _ROWS_OF_A_LIST):
        places = range(first, first + _ROWS_OF_A_LIST)
        for layout in _LAYOUTS:
            text, spans = _listed([layout(texts[place], labels[place], place) for place in places])
            kept = round((1 - _LEFT_OUT) * len(spans))
            whole.append(float(is_taken_for_whole(text, spans)))
            told += [
                float(not is_taken_for_whole(text, some))
                for some in (spans[:kept], spans[:15] + spans[20:])
            ]
    yield quality.share(corpus, "omitted rows of a list are detected", told)
    yield quality.share(corpus, "a complete list counts as complete", whole)


def by_short_lists(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often lists of eight lines outside of tables are detected as incomplete."""
    texts = [" ".join(quality.text_of(row, folder).split())[:80] for row in rows]
    labels = [quality.label_of(row).replace("_", " ").title() for row in rows]
    told: dict[str, list[float]] = {name: [] for name in _ANSWERED}
    whole = []
    for first in range(0, len(texts) - _ROWS_OF_A_SHORT_LIST + 1, _ROWS_OF_A_SHORT_LIST):
        places = range(first, first + _ROWS_OF_A_SHORT_LIST)
        for layout in _SHORT_LAYOUTS:
            text, spans = _listed([layout(texts[place], labels[place]) for place in places])
            whole.append(float(is_taken_for_whole(text, spans)))
            for name, kept in _ANSWERED.items():
                told[name].append(float(not is_taken_for_whole(text, spans[kept])))
    for name, hits in told.items():
        yield quality.share(corpus, f"{name} is detected", hits)
    yield quality.share(corpus, "a complete short list counts as complete", whole)


def _listed(records: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return a text of records, and their spans."""
    ends = [0, *itertools.accumulate(map(len, records))]
    return "".join(records), list(itertools.pairwise(ends))


def by_prose(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often a list of all dates, amounts or names of a text counts as complete."""
    hits = []
    for row in rows:
        text = quality.text_of(row, folder)[:_LONGEST_TEXT]
        for pattern in _VALUES.values():
            spans = [match.span() for match in pattern.finditer(text)]
            if len(spans) > 1:
                hits.append(float(is_taken_for_whole(text, spans)))
    yield quality.share(corpus, "a list from prose counts as complete", hits)


_PROFILE = ModelProfile(
    provider="scripted", model="quoting", context_tokens=65_536, max_output_tokens=16_384
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A value of a document with its quote."""

    item: str
    value: str
    quote: str


@dataclass(frozen=True, slots=True)
class Quoting:
    """A model that answers with those of the entries whose quotes the text contains."""

    entries: Sequence[Entry]
    profile: ModelProfile = _PROFILE

    def complete(self, request: CompletionRequest) -> Completion:
        """Answer with these entries; the items of the others are not mentioned."""
        present = [entry for entry in self.entries if entry.quote in request.task.text]
        absent = {entry.item for entry in self.entries} - {entry.item for entry in present}
        fields: list[JsonValue] = [
            a_field(entry.item, entry.value, 9, quote=entry.quote) for entry in present
        ]
        fields += [a_field(item, None, 9) for item in sorted(absent)]
        return quality.scripted({"fields": fields}, self.profile)


def by_pages(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often a fact has the right page if the longest line of a page is quoted."""
    hits = []
    for path in (folder / json_values.text(row["path"]) for row in rows):
        pages = _longest_lines(path)
        if not pages:
            continue
        request = AnalysisRequest(
            path=path, analysis_type=AnalysisType.EXTRACTION, specific_instructions="line"
        )
        entries = [Entry(item="line", value=line, quote=line) for line in pages]
        analysis = DocumentAnalyzer(Quoting(entries)).analyze_document(request)
        page_of = {fact.value: fact.page for fact in analysis.facts}
        read = {line: page for line, page in pages.items() if line in analysis.text}
        hits += [float(page_of.get(line) == page) for line, page in read.items()]
    yield quality.share(corpus, "the page of a quote", hits)


def _longest_lines(path: Path) -> dict[str, int]:
    """Return the longest line of each page, if it is unique; nothing for a broken file."""
    try:
        with pypdfium2.PdfDocument(path) as document:
            texts = [page.get_textpage().get_text_range() for page in document]
    except pypdfium2.PdfiumError:
        return {}
    lines = [max(text.splitlines(), key=len, default="").strip() for text in texts]
    whole = "\n".join(texts)
    return {
        line: number
        for number, line in enumerate(lines, start=1)
        if len(line) >= _LEAST_QUOTE and whole.count(line) == 1
    }


MEASURES: dict[str, tuple[quality.Measure, ...]] = {
    "clinc_oos": (by_lists, by_short_lists),
    "sentence_sentiment": (by_lists, by_short_lists),
    "speeches": (by_prose,),
    "cuad_contracts": (by_prose,),
    "qmsum_meetings": (by_prose,),
    "sec_filings": (by_prose,),
    "court_docs": (by_pages,),
}


if __name__ == "__main__":
    quality.measure_all("evidence", __doc__, MEASURES, "<!-- make quality: evidence -->\n")
