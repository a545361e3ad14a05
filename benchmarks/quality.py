"""`python -m benchmarks.quality` measures the built-in model and writes benchmarks/quality.md.

A corpus is a folder with a `labels.jsonl`: a JSON object for each document, with its `text` or the
`path` of a file in the folder, and the truth about it. A corpus that is absent is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks import report
from chordwise.domain import dates, json_values, typed_values, words
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.extractive import ranking
from chordwise.domain.extractive.sentences import sentences
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import judgments
from chordwise.domain.learning.statistics import Z, wilson
from chordwise.llm.model import Completion, FinishReason, ModelProfile, Usage
from chordwise.llm.providers.extractive import Encoder, ExtractiveModel
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer

_PAGE = Path(__file__).resolve().parent / "quality.md"
_TABLE_STARTS = "<!-- make quality -->\n"
_TABLE_ENDS = "<!-- end -->\n"
CLAUSES = (
    "Document Name",
    "Parties",
    "Agreement Date",
    "Effective Date",
    "Expiration Date",
    "Governing Law",
)
OUT_OF_SCOPE = "out_of_scope"
_SENTIMENTS = ("negative", "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measurement: `low` and `high` are its 95 % confidence interval, `baselines` are by name.

    `seconds` is the mean CPU time of an answer.
    """

    corpus: str
    measure: str
    count: int
    value: float
    low: float
    high: float
    baselines: Mapping[str, float]
    seconds: float = 0.0

    def cells(self) -> list[str]:
        """Return the cells of a table, without the baselines."""
        interval = f"{self.low:.2f} to {self.high:.2f}"
        return [f"`{self.corpus}`", self.measure, f"{self.count}", f"{self.value:.2f}", interval]


Measure = Callable[[str, Sequence[JsonObject], Path], Iterator[Row]]


@dataclass(slots=True)
class Measured:
    """The model that is being measured, with the number of its answers and their CPU time."""

    model: ExtractiveModel
    seconds: float = 0.0
    answers: int = 0


measuring: ContextVar[Measured] = ContextVar("measuring")


def share(
    corpus: str, measure: str, hits: Sequence[float], baselines: Mapping[str, float] | None = None
) -> Row:
    """Return the row of a share of right answers; an answer that is half right counts 0.5."""
    right = math.fsum(hits)
    low, high = wilson(right, len(hits))
    return Row(
        corpus=corpus,
        measure=measure,
        count=len(hits),
        value=right / max(1, len(hits)),
        low=low,
        high=high,
        baselines=baselines or {},
    )


@cache
def answered(
    analysis_type: AnalysisType, text: str, *, labels: tuple[str, ...] = (), instructions: str = ""
) -> judgments.AnswerWithConfidence:
    """Return the answer of the built-in model about a document, as the pipeline would store it."""
    request = AnalysisRequest(
        text=text,
        analysis_type=analysis_type,
        labels=labels,
        specific_instructions=instructions,
    )
    measured = measuring.get()
    started = time.process_time()
    analysis = DocumentAnalyzer(measured.model).analyze_document(request)
    measured.seconds += time.process_time() - started
    measured.answers += 1
    return judgments.AnswerWithConfidence(
        analysis_type=analysis_type,
        output=analysis.output,
        confidence=analysis.confidence,
        needs_review=analysis.needs_review,
    )


def scripted(content: JsonObject, profile: ModelProfile) -> Completion:
    """Return the completion of a scripted model that answers with this content."""
    return Completion(
        text=json.dumps(content),
        finish_reason=FinishReason.STOP,
        usage=Usage(),
        provider=profile.provider,
        model=profile.model,
    )


def text_of(row: JsonObject, folder: Path) -> str:
    """Return the text of a labelled document."""
    if "text" in row:
        return json_values.text(row["text"])
    return (folder / json_values.text(row["path"])).read_text("utf-8", errors="replace")


# Classification


def by_labels(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the label is right; the model does not learn from the corpus."""
    labelled = [(text_of(row, folder), label_of(row)) for row in rows]
    pairs = [(text, label) for text, label in labelled if label != OUT_OF_SCOPE]
    labels = tuple(sorted({label for _, label in pairs}))
    answers = (answered(AnalysisType.CLASSIFICATION, text, labels=labels) for text, _ in pairs)
    chosen = [json_values.text(answer.output["primary_label"]) for answer in answers]
    truth = [label for _, label in pairs]
    yield share(
        corpus,
        f"right label of {len(labels)}",
        _equal(chosen, truth),
        {
            "majority": max(Counter(truth).values()) / len(truth),
            "TF-IDF": statistics.fmean(
                _equal(_nearest([text for text, _ in pairs], labels), truth)
            ),
        },
    )


def by_scope(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the answer has no label, for texts with a true label and for those without.

    It is repeated with descriptions of the labels, the names of their intents in the corpus.
    """
    intents: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if label_of(row) != OUT_OF_SCOPE:
            intents[label_of(row)].append(json_values.text(row["intent"]).replace("_", " "))
    labels = tuple(sorted(intents))
    lines = (f"{label}: {', '.join(sorted(set(intents[label])))}" for label in labels)
    for suffix, instructions in (("", ""), (", with descriptions", "\n".join(lines))):
        right: list[float] = []
        abstained: dict[bool, list[float]] = {True: [], False: []}
        for row in rows:
            text, analysis_type = text_of(row, folder), AnalysisType.CLASSIFICATION
            answer = answered(analysis_type, text, labels=labels, instructions=instructions)
            label, is_in_scope = answer.output["primary_label"], label_of(row) in labels
            abstained[is_in_scope].append(float(label is None))
            if is_in_scope:
                right.append(float(label == label_of(row)))
        if instructions:
            yield share(corpus, f"right label of {len(labels)}{suffix}", right)
        yield share(corpus, f"no label fits, where one does{suffix}", abstained[True])
        yield share(corpus, f"no label fits, out of scope{suffix}", abstained[False])


def label_of(row: JsonObject) -> str:
    """Return the true label of a document."""
    label = row.get("label") or row.get("contract_type") or row.get("kind")
    return json_values.text(label)


def _equal(answers: Sequence[str], truth: Sequence[str]) -> list[float]:
    return [float(answer == label) for answer, label in zip(answers, truth, strict=True)]


def _nearest(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return for each text the label with the highest cosine, by TF-IDF of the corpus."""
    documents = [words.terms(text) for text in texts]
    spelled = [words.terms(label.replace("_", " ")) for label in labels]
    weights = ranking.inverse_document_frequencies([*documents, *spelled])
    points = [ranking.vector(terms, weights) for terms in spelled]
    nearest = []
    for terms in documents:
        point = ranking.vector(terms, weights)
        scores = [ranking.similarity(point, other) for other in points]
        nearest.append(labels[max(range(len(labels)), key=scores.__getitem__)])
    return nearest


# Sentiment


def by_sign(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the score has the true sign; a score of zero is half right."""
    sources: dict[str, list[JsonObject]] = defaultdict(list)
    for row in rows:
        if label_of(row) in _SENTIMENTS:
            source, _, _ = json_values.text(row.get("source") or "").partition(":")
            sources[source].append(row)
    for source, source_rows in sources.items():
        hits = []
        for row in source_rows:
            answer = answered(AnalysisType.SENTIMENT, text_of(row, folder))
            score = json_values.number(answer.output["score"]) or 0.0
            hits.append(0.5 if score == 0 else float((score > 0) == (label_of(row) == "positive")))
        most = max(Counter(label_of(row) for row in source_rows).values()) / len(source_rows)
        yield share(f"{corpus} {source}".strip(), "right sign", hits, {"majority": most})


# Summary


def by_terms(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure the share of the terms of a human summary that the findings contain."""
    ours, lead = [], []
    for row in rows:
        text = text_of(row, folder)
        references = json_values.strings(row.get("tldrs")) or [json_values.text(row["summary"])]
        output = answered(AnalysisType.SUMMARY, text).output
        findings = json_values.objects(output["key_findings"])
        ours.append(
            _recall([json_values.text(finding["quote"]) for finding in findings], references)
        )
        lead.append(
            _recall([sentence.text for sentence in sentences(text)[: len(findings)]], references)
        )
    mean, reach = statistics.fmean(ours), 0.0
    if len(ours) > 1:
        reach = Z * statistics.stdev(ours) / math.sqrt(len(ours))
    yield Row(
        corpus=corpus,
        measure="terms of a human summary",
        count=len(ours),
        value=mean,
        low=mean - reach,
        high=mean + reach,
        baselines={"lead": statistics.fmean(lead)},
    )


def _recall(selected: Iterable[str], references: Sequence[str]) -> float:
    terms = Counter(words.terms(" ".join(selected)))
    reference_terms = [Counter(words.terms(reference)) for reference in references]
    return max(
        (terms & reference).total() / max(1, reference.total()) for reference in reference_terms
    )


# Extraction


def by_clauses(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure precision and recall of the items that lawyers annotated in contracts."""
    for item in CLAUSES:
        precise: list[float] = []
        recalled: list[float] = []
        for row in rows:
            clause = json_values.as_object(json_values.as_object(row["clauses"])[item])
            answer = answered(AnalysisType.EXTRACTION, text_of(row, folder), instructions=item)
            fields = json_values.objects(answer.output["fields"])
            fields = [field for field in fields if field["value"]]
            hits = [float(meets(json_values.text(field["value"]), clause)) for field in fields]
            precise += hits
            if clause["spans"]:
                recalled.append(max(hits, default=0.0))
        yield share(corpus, f"{item}: precision", precise)
        yield share(corpus, f"{item}: recall", recalled)


def by_fields(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often a field has the right value: the same words, or the same number."""
    items = ", ".join(json_values.texts(rows[0]["fields"]))
    hits: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        answer = answered(AnalysisType.EXTRACTION, text_of(row, folder), instructions=items)
        fields = json_values.objects(answer.output["fields"])
        values = {field["item"]: field["value"] for field in fields}
        for name, right in json_values.texts(row["fields"]).items():
            value = json_values.text(values.get(name))
            number = typed_values.typed(value).number
            is_same = number is not None and number == typed_values.typed(right).number
            hits[name].append(float(is_same or _plain(value) == _plain(right)))
    yield from (
        share(corpus, f"{name}: right value", field_hits) for name, field_hits in hits.items()
    )


def meets(value: str, clause: JsonObject) -> bool:
    """Return whether a value is the annotated date, contains the annotation, or is part of it."""
    answer = json_values.text(clause["answer"])
    when = typed_values.typed(answer, dates.DateOrder.MONTH_FIRST).date
    if when is not None and typed_values.typed(value).date == when:
        return True
    plain = _plain(value)
    spans = [
        _plain(json_values.text(span["text"])) for span in json_values.objects(clause["spans"])
    ]
    return any(span and (plain in span or span in plain) for span in [*spans, _plain(answer)])


def _plain(text: str) -> str:
    return " ".join(words.words(text))


def by_questions(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure the quotes and the values for English questions.

    F1 is the harmonic mean of the shares of common words in a value and in the answer.
    """
    hits, overlaps = [], []
    for row in rows:
        for question in json_values.objects(row["qas"]) if row["lang"] == "en" else ():
            item = json_values.text(question["question"]).replace(",", " ").replace(";", " ")
            answer = answered(AnalysisType.EXTRACTION, text_of(row, folder), instructions=item)
            right = json_values.text(question["answer"])
            fields = json_values.objects(answer.output["fields"])
            hits.append(float(any(right in json_values.text(field["quote"]) for field in fields)))
            answers, value = words.words(right), words.words(json_values.text(fields[0]["value"]))
            common = (Counter(answers) & Counter(value)).total()
            overlaps.append(2 * common / (len(answers) + len(value)))
    yield share(corpus, "quote has the answer", hits)
    yield share(corpus, "value is the answer (F1 of words)", overlaps)


MEASURES: dict[str, tuple[Measure, ...]] = {
    "speeches": (by_labels,),
    "cuad_contracts": (by_labels, by_clauses),
    "clinc_oos": (by_labels, by_scope),
    "movie_reviews": (by_sign,),
    "sentence_sentiment": (by_sign,),
    "scitldr_abstracts": (by_terms,),
    "qmsum_meetings": (by_terms,),
    "xquad": (by_questions,),
    "ag_news": (by_labels,),
    "bbc_news": (by_labels,),
    "receipts": (by_fields,),
}
_WITH_ENCODER = frozenset({by_labels, by_scope, by_sign, by_questions})


def truths_of(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Sequence[JsonObject]]]:
    """Yield the corpora in a folder with their labelled documents."""
    for name in names:
        if rows := truths_in(folder / name):
            yield name, rows


def measured(folder: Path, names: Sequence[str], encoder: Encoder | None = None) -> Iterator[Row]:
    """Yield the rows of the corpora in a folder; some also with the encoder."""
    for name, rows in truths_of(folder, names):
        for measure in MEASURES.get(name, (by_labels,)):
            yield from _timed(ExtractiveModel(), measure(name, rows, folder / name))
            if encoder is not None and measure in _WITH_ENCODER:
                model = ExtractiveModel(encoder=encoder)
                answered.cache_clear()  # its answers are those of another model
                for row in _timed(model, measure(name, rows, folder / name)):
                    yield replace(row, measure=f"{row.measure}, with the encoder", baselines={})
                answered.cache_clear()


def _timed(model: ExtractiveModel, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows of a model with the mean CPU time of its answers."""
    now = Measured(model)
    token = measuring.set(now)
    try:
        for row in rows:
            yield replace(row, seconds=now.seconds / max(1, now.answers))
    finally:
        measuring.reset(token)


def truths_in(folder: Path) -> list[JsonObject]:
    """Return the labelled documents of a corpus; if it is absent, report that and return none."""
    truths = folder / "labels.jsonl"
    if not truths.is_file():
        print(f"corpus {folder.name} is absent", file=sys.stderr)
        return []
    lines = truths.read_text("utf-8").splitlines()
    return [json_values.as_object(json.loads(line)) for line in lines]


def parser(
    module: str, description: str | None, names: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Return a parser with the common arguments; `--only` selects from `names`."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    made.add_argument("corpora", type=Path, help="the folder with a folder for each corpus")
    if names:
        made.add_argument("--only", nargs="+", default=list(names), metavar="NAME")
    made.add_argument("--write", action="store_true", help="write the table into its page")
    return made


def publish(starts: str, markdown: str, *, writes: bool) -> None:
    """Print a table; with `writes`, replace the table after the line `starts` of the page."""
    print(markdown)
    if writes:
        before, _, rest = _PAGE.read_text("utf-8").partition(starts)
        _, _, after = rest.partition(_TABLE_ENDS)
        _PAGE.write_text(f"{before}{starts}\n{markdown}\n\n{_TABLE_ENDS}{after}", "utf-8")


def measure_all(
    module: str,
    description: str | None,
    measures: Mapping[str, Sequence[Measure]],
    starts: str,
    head: Sequence[str] = ("corpus", "measure", "n", "share", "95 %"),
) -> None:
    """Measure corpora, print the table, and write it with `--write` after the line `starts`."""
    options = parser(module, description, list(measures)).parse_args()
    lines = [
        row.cells()
        for name, truths in truths_of(options.corpora, options.only)
        for measure in measures[name]
        for row in measure(name, truths, options.corpora / name)
    ]
    publish(starts, report.table(head, lines), writes=options.write)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ("corpus", "measure", "n", "built-in model", "95 %", "baselines", "CPU")
    lines = []
    for row in rows:
        beside = ", ".join(f"{name} {value:.2f}" for name, value in row.baselines.items())
        lines.append([*row.cells(), beside, f"{row.seconds * 1000:.0f} ms"])
    return report.table(head, lines)


def main() -> None:
    """Measure the selected corpora, print the table, and write it with `--write`."""
    command_parser = parser("quality", __doc__, list(MEASURES))
    command_parser.add_argument(
        "--encoder", action="store_true", help="measure with the encoder as well"
    )
    options = command_parser.parse_args()
    encoder = Encoder() if options.encoder else None
    markdown = table(measured(options.corpora, options.only, encoder))
    publish(_TABLE_STARTS, markdown, writes=options.write)


if __name__ == "__main__":
    main()
