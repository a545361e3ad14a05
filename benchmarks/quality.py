"""`python -m benchmarks.quality` measures the built-in model and writes docs/quality.md.

The corpora are folders with a `labels.jsonl`: a JSON object per document, with its `text`, or the
`path` of a file in the folder, and what people say of it. A corpus that is absent is skipped.
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
from pathlib import Path

from chordwise.domain import json_values, typed_values
from chordwise.domain.extractive import ranking, words
from chordwise.domain.extractive.sentences import sentences
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisType
from chordwise.llm.providers.encoder import Encoder
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer

PAGE = Path(__file__).resolve().parent.parent / "docs" / "quality.md"
_TABLE_STARTS = "<!-- make quality -->\n"
_TABLE_ENDS = "<!-- end -->\n"
_DEVIATIONS = 1.96
_CLAUSES = (
    "Document Name",
    "Parties",
    "Agreement Date",
    "Effective Date",
    "Expiration Date",
    "Governing Law",
)
_SENTIMENTS = ("negative", "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measurement: `low` and `high` bound it with 95 % confidence, `baselines` by their name.

    `seconds` is the processor's time for an answer, on average.
    """

    corpus: str
    measure: str
    count: int
    value: float
    low: float
    high: float
    baselines: Mapping[str, float]
    seconds: float = 0.0


Measure = Callable[[str, Sequence[JsonObject], Path], Iterator[Row]]


@dataclass(slots=True)
class Measured:
    """The model that is measured now, and what its answers have taken."""

    model: ExtractiveModel
    seconds: float = 0.0
    answers: int = 0


_measured: ContextVar[Measured] = ContextVar("measured")


def wilson(right: float, count: int) -> tuple[float, float]:
    """Return the interval of a share by Wilson's score, at 95 % confidence."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, _DEVIATIONS**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    reach = _DEVIATIONS * spread / (1 + square / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def share(
    corpus: str, measure: str, hits: Sequence[float], baselines: Mapping[str, float] | None = None
) -> Row:
    """Return the row of a share of right answers, a half one counting half."""
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


def analyze(
    analysis_type: AnalysisType, text: str, *, labels: tuple[str, ...] = (), instructions: str = ""
) -> JsonObject:
    """Return what the built-in model says of a document, as the pipeline would store it."""
    request = AnalysisRequest(
        text=text,
        analysis_type=analysis_type,
        labels=labels,
        specific_instructions=instructions,
    )
    measured = _measured.get()
    started = time.process_time()
    output = DocumentAnalyzer(measured.model).analyze_document(request).output
    measured.seconds += time.process_time() - started
    measured.answers += 1
    return output


def text_of(row: JsonObject, folder: Path) -> str:
    """Return the document of a truth."""
    if "text" in row:
        return json_values.text(row["text"])
    return (folder / json_values.text(row["path"])).read_text("utf-8", errors="replace")


# Classification


def by_labels(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the label is right; nothing is learned from the corpus."""
    named = [(text_of(row, folder), _label(row)) for row in rows if _label(row) != "out_of_scope"]
    labels = tuple(sorted({label for _, label in named}))
    chosen = [
        json_values.text(analyze(AnalysisType.CLASSIFICATION, text, labels=labels)["primary_label"])
        for text, _ in named
    ]
    truth = [label for _, label in named]
    yield share(
        corpus,
        f"right label of {len(labels)}",
        _equal(chosen, truth),
        {
            "majority": max(Counter(truth).values()) / len(truth),
            "TF-IDF": statistics.fmean(
                _equal(_nearest([text for text, _ in named], labels), truth)
            ),
        },
    )


def _label(row: JsonObject) -> str:
    found = row.get("label") or row.get("contract_type") or row.get("kind")
    return json_values.text(found)


def _equal(found: Sequence[str], truth: Sequence[str]) -> list[float]:
    return [float(one == other) for one, other in zip(found, truth, strict=True)]


def _nearest(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the label whose words have the highest cosine with a text, by TF-IDF of the corpus."""
    documents = [words.terms(text) for text in texts]
    spelled = [words.terms(label.replace("_", " ")) for label in labels]
    weights = ranking.inverse_frequencies([*documents, *spelled])
    points = [ranking.vector(terms, weights) for terms in spelled]
    nearest = []
    for terms in documents:
        point = ranking.vector(terms, weights)
        scores = [ranking.similarity(point, other) for other in points]
        nearest.append(labels[max(range(len(labels)), key=scores.__getitem__)])
    return nearest


# Sentiment


def by_sign(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the score has the sign of the truth; a score of zero is half right."""
    sources: dict[str, list[JsonObject]] = defaultdict(list)
    for row in rows:
        if _label(row) in _SENTIMENTS:
            source, _, _ = json_values.text(row.get("source") or "").partition(":")
            sources[source].append(row)
    for source, own in sources.items():
        hits = []
        for row in own:
            answer = analyze(AnalysisType.SENTIMENT, text_of(row, folder))
            score = json_values.number(answer["score"]) or 0.0
            hits.append(0.5 if score == 0 else float((score > 0) == (_label(row) == "positive")))
        most = max(Counter(_label(row) for row in own).values()) / len(own)
        yield share(f"{corpus} {source}".strip(), "right sign", hits, {"majority": most})


# Summary


def by_terms(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure the share of a human summary's terms that the findings have."""
    ours, lead = [], []
    for row in rows:
        text = text_of(row, folder)
        references = json_values.strings(row.get("tldrs")) or [json_values.text(row["summary"])]
        found = json_values.objects(analyze(AnalysisType.SUMMARY, text)["key_findings"])
        ours.append(_recall([json_values.text(each["quote"]) for each in found], references))
        lead.append(_recall([one.text for one in sentences(text)[: len(found)]], references))
    mean, reach = statistics.fmean(ours), 0.0
    if len(ours) > 1:
        reach = _DEVIATIONS * statistics.stdev(ours) / math.sqrt(len(ours))
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
    found = Counter(words.terms(" ".join(selected)))
    wanted = [Counter(words.terms(reference)) for reference in references]
    return max((found & each).total() / max(1, each.total()) for each in wanted)


# Extraction


def by_clauses(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure the precision and the recall of the items that lawyers marked in contracts."""
    for item in _CLAUSES:
        precise: list[float] = []
        recalled: list[float] = []
        for row in rows:
            clause = json_values.as_object(json_values.as_object(row["clauses"])[item])
            answer = analyze(AnalysisType.EXTRACTION, text_of(row, folder), instructions=item)
            fields = [each for each in json_values.objects(answer["fields"]) if each["value"]]
            hits = [float(_meets(json_values.text(each["value"]), clause)) for each in fields]
            precise += hits
            if clause["spans"]:
                recalled.append(max(hits, default=0.0))
        yield share(corpus, f"{item}: precision", precise)
        yield share(corpus, f"{item}: recall", recalled)


def _meets(value: str, clause: JsonObject) -> bool:
    """Tell whether a value is the lawyers' date, or their words hold it, or it holds theirs."""
    wanted = json_values.text(clause["answer"])
    when = typed_values.typed(wanted, typed_values.DateOrder.MONTH_FIRST).date
    if when is not None and typed_values.typed(value).date == when:
        return True
    own = _plain(value)
    spans = [
        _plain(json_values.text(each["text"])) for each in json_values.objects(clause["spans"])
    ]
    return any(span and (own in span or span in own) for span in [*spans, _plain(wanted)])


def _plain(text: str) -> str:
    return " ".join(words.words(text))


def by_questions(corpus: str, rows: Sequence[JsonObject], folder: Path) -> Iterator[Row]:
    """Measure how often the quote for an English question has the answer."""
    hits = []
    for row in rows:
        for question in json_values.objects(row["qas"]) if row["lang"] == "en" else ():
            asked = json_values.text(question["question"]).replace(",", " ").replace(";", " ")
            answer = analyze(AnalysisType.EXTRACTION, text_of(row, folder), instructions=asked)
            quotes = [
                json_values.text(each["quote"]) for each in json_values.objects(answer["fields"])
            ]
            hits.append(float(any(json_values.text(question["answer"]) in each for each in quotes)))
    yield share(corpus, "quote has the answer", hits)


MEASURES: dict[str, tuple[Measure, ...]] = {
    "speeches": (by_labels,),
    "cuad_contracts": (by_labels, by_clauses),
    "clinc_oos": (by_labels,),
    "movie_reviews": (by_sign,),
    "sentence_sentiment": (by_sign,),
    "scitldr_abstracts": (by_terms,),
    "qmsum_meetings": (by_terms,),
    "xquad": (by_questions,),
}
_WITH_ENCODER = frozenset({by_labels, by_sign, by_questions})


def measured(folder: Path, names: Sequence[str], encoder: Encoder | None = None) -> Iterator[Row]:
    """Yield the rows of the corpora that are in a folder; some also with an encoder."""
    for name in names:
        truths = folder / name / "labels.jsonl"
        if not truths.is_file():
            print(f"{name} is absent", file=sys.stderr)
            continue
        lines = truths.read_text("utf-8").splitlines()
        rows = [json_values.as_object(json.loads(line)) for line in lines]
        for measure in MEASURES.get(name, (by_labels,)):
            yield from _timed(ExtractiveModel(), measure(name, rows, folder / name))
            if encoder is not None and measure in _WITH_ENCODER:
                model = ExtractiveModel(encoder=encoder)
                for row in _timed(model, measure(name, rows, folder / name)):
                    yield replace(row, measure=f"{row.measure}, with the encoder", baselines={})


def _timed(model: ExtractiveModel, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows of a model with what its answers have taken."""
    now = Measured(model)
    token = _measured.set(now)
    try:
        for row in rows:
            yield replace(row, seconds=now.seconds / max(1, now.answers))
    finally:
        _measured.reset(token)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| corpus | measure | n | built-in model | 95 % | baselines | CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        beside = ", ".join(f"{name} {value:.2f}" for name, value in row.baselines.items())
        lines.append(
            f"| `{row.corpus}` | {row.measure} | {row.count} | {row.value:.2f} "
            f"| {row.low:.2f} to {row.high:.2f} | {beside} | {row.seconds * 1000:.0f} ms |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is asked for, print the table, and write it into the page where that is said."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("corpora", type=Path, help="the folder with a folder for each corpus")
    parser.add_argument("--only", nargs="+", default=list(MEASURES), metavar="NAME")
    parser.add_argument("--encoder", action="store_true", help="measure with the encoder as well")
    parser.add_argument("--write", action="store_true", help="write the table into docs/quality.md")
    options = parser.parse_args()
    encoder = Encoder() if options.encoder else None
    found = table(measured(options.corpora, options.only, encoder))
    print(found, end="")
    if options.write:
        before, _, rest = PAGE.read_text("utf-8").partition(_TABLE_STARTS)
        _, _, after = rest.partition(_TABLE_ENDS)
        PAGE.write_text(f"{before}{_TABLE_STARTS}\n{found}\n{_TABLE_ENDS}{after}", "utf-8")


if __name__ == "__main__":
    main()
