"""`python -m benchmarks.public CORPORA` measures a model on published corpora (public.md).

Without `--model` the gold itself is answered through a scripted model, with the line in which each
value occurs as its quote: what is lost then is the limit of the pipeline, not of a model.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import lzma
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from itertools import combinations, islice
from pathlib import Path
from random import Random
from threading import Lock

import jsonschema_rs

from benchmarks import quality, report
from chordwise import settings as settings_module
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.facts import Fact
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import judgments, measures
from chordwise.domain.learning.judgments import AnswerWithConfidence, Judged
from chordwise.domain.learning.truths import Truth
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import ChordwiseError
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.prices import price_of
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer
from chordwise.pipeline.learning import suite
from chordwise.pipeline.models.model_client import Models

PUBLISHED = Path(__file__).with_name("published.tsv")
_GOLD = ModelProfile(
    provider="scripted", model="gold", context_tokens=1_000_000, max_output_tokens=400_000
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A document with the question about it and the right values, by member of the schema.

    `evidence` are the passages that show a value. `about` is the subject of a review.
    """

    name: str
    schema: JsonObject
    truth: Mapping[str, JsonValue]
    text: str = ""
    path: Path | None = None
    evidence: Mapping[str, Sequence[str]] = field(default_factory=dict)
    about: str = ""


# Corpora


def extract_bench(folder: Path) -> Iterator[Case]:
    """Yield the documents of ContextualAI's extract-bench."""
    for part in suite.read(settings_module.load(), folder):
        for document in part.documents:
            schema, truth = part.options.analysis.schema, part.gold.truths.get(document.name)
            if schema is not None and truth is not None:
                values = {name.removeprefix("/"): value for name, value in truth.fields.items()}
                yield Case(name=document.name, schema=schema, truth=values, path=document.path)


def kleister_nda(folder: Path, part: str = "dev-0") -> Iterator[Case]:
    """Yield the agreements of a part of Kleister-NDA: their PDF files, else their texts."""
    members: dict[str, JsonValue] = {
        "effective_date": _text("The date from which the agreement binds, as YYYY-MM-DD."),
        "jurisdiction": _text("The state or country whose law governs the agreement."),
        "party": {"type": "array", "items": {"type": "string"}, "description": "The parties."},
        "term": _text("The length of the agreement: a number and a unit, such as 11 months."),
    }
    schema: JsonObject = {"type": "object", "properties": members}
    truths = (folder / part / "expected.tsv").read_text("utf-8").splitlines()
    with lzma.open(folder / part / "in.tsv.xz", "rt", encoding="utf-8", newline="\n") as lines:
        for line, expected in zip(lines, truths, strict=True):
            name, _, *texts = line.rstrip("\n").split("\t")
            truth: dict[str, JsonValue] = {"party": []}
            for pair in expected.split():
                key, _, value = pair.partition("=")
                said = value.replace("_", " ")
                truth[key] = [*json_values.listed(truth["party"]), said] if key == "party" else said
            path = folder / "documents" / name
            is_there = path.is_file() and path.read_bytes()[:5] == b"%PDF-"
            yield Case(
                name=name,
                schema=schema,
                truth=truth,
                path=path if is_there else None,
                text=re.sub(r"\\([fnt\\])", lambda escape: _ESCAPES[escape[1]], texts[-1]),
            )


_ESCAPES = {"f": "\f", "n": "\n", "t": "\t", "\\": "\\"}


def contract_nli(folder: Path, part: str = "test") -> Iterator[Case]:
    """Yield the agreements of a part of ContractNLI; what is not mentioned has no value."""
    corpus = json.loads((folder / f"{part}.json").read_text("utf-8"))
    choices: list[JsonValue] = ["Entailment", "Contradiction", None]
    schema: JsonObject = {
        "type": "object",
        "properties": {
            key: {"enum": choices, "description": f"{label['hypothesis']} null: not mentioned."}
            for key, label in corpus["labels"].items()
        },
    }
    for document in corpus["documents"]:
        annotations = document["annotation_sets"][0]["annotations"]
        mentioned = {
            key: said for key, said in annotations.items() if said["choice"] != "NotMentioned"
        }
        spans = document["spans"]
        yield Case(
            name=document["file_name"],
            schema=schema,
            truth={key: said["choice"] for key, said in mentioned.items()},
            text=document["text"],
            evidence={
                key: [document["text"][slice(*spans[number])] for number in said["spans"]]
                for key, said in mentioned.items()
            },
        )


def sembench_movies(folder: Path) -> Iterator[Case]:
    """Yield the reviews of the scenario “movie” of SemBench."""
    score = "How much the reviewer liked the movie, from 1 to 5."
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "sentiment": {"enum": ["POSITIVE", "NEGATIVE"]},
            "score": {"type": "number", "minimum": 1, "maximum": 5, "description": score},
        },
    }
    (path,) = folder.glob("Reviews*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Case(
                name=row["reviewId"],
                schema=schema,
                truth={"sentiment": row["scoreSentiment"]},
                text=row["reviewText"],
                about=row["id"],
            )


def _text(description: str) -> JsonObject:
    return {"type": ["string", "null"], "description": description}


CORPORA: Mapping[str, Callable[[Path], Iterator[Case]]] = {
    "extract-bench": extract_bench,
    "kleister-nda": kleister_nda,
    "contract-nli": contract_nli,
    "sembench-movies": sembench_movies,
}


# Models


@dataclass(slots=True)
class Priced:
    """A model whose answers are counted with their cost; it is unknown (`None`) if one is."""

    model: ChatModel
    cost: Callable[[Completion], Decimal | None]
    usd: Decimal | None = Decimal(0)
    lock: Lock = field(default_factory=Lock)

    @property
    def profile(self) -> ModelProfile:
        """The profile of the model."""
        return self.model.profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the answer of the model."""
        completion = self.model.complete(request)
        usd = self.cost(completion)
        with self.lock:
            self.usd = None if self.usd is None or usd is None else self.usd + usd
        return completion


@dataclass(frozen=True, slots=True)
class Replayed:
    """A model that answers with the gold of a case."""

    case: Case
    profile: ModelProfile = _GOLD

    def complete(self, request: CompletionRequest) -> Completion:
        """Answer with all values, each with a line that contains it and the rest of its row.

        Values of null are left out if the schema does not allow them.
        """
        data: JsonValue = dict(self.case.truth)
        if not jsonschema_rs.is_valid(self.case.schema, data):
            data = _without_null(data)
        if schema := request.task.options.schema:
            data = _asked_for(data, SchemaNode.root_of(schema))
        values = {path: _forms(value) for path, value in json_values.scalars(data)}
        rows: dict[str, list[str]] = defaultdict(list)
        for path, forms in values.items():
            rows[_row(path)] += forms
        evidence: list[JsonValue] = []
        for path, forms in values.items():
            beside = rows[_row(path)] if _row(path) else ()
            passages = self.case.evidence.get(path.removeprefix("/"), ())
            quote = next(iter(passages), "") or _line(request.task.text, forms, beside)
            if quote:
                evidence.append({"path": path, "quote": quote, "confidence": 9})
        return quality.scripted({"data": data, "evidence": evidence}, self.profile)


def _asked_for(value: JsonValue, node: SchemaNode) -> JsonValue:
    """Return the members that the schema of a group of fields has."""
    if isinstance(value, dict) and node.properties:
        names = [name for name in value if name in node.properties]
        return {name: _asked_for(value[name], node.member(name)) for name in names}
    if isinstance(value, list):
        return [_asked_for(element, node.items) for element in value]
    return value


def _without_null(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {name: _without_null(member) for name, member in value.items() if member is not None}
    return [_without_null(element) for element in value] if isinstance(value, list) else value


def _row(path: str) -> str:
    """Return the path of the innermost list element that contains a value; empty without one."""
    match = re.match(r".*/\d+(?=/|$)", path)
    return match[0] if match else ""


def _forms(value: JsonValue) -> list[str]:
    if value is None or isinstance(value, bool) or not str(value).strip():
        return []
    return [str(value), f"{value:,}"] if isinstance(value, int | float) else [str(value)]


def _line(text: str, forms: Sequence[str], beside: Sequence[str]) -> str:
    """Return the line that has a value and the most of the values beside it; else the value."""
    lines: dict[str, str] = {}
    for form in forms:
        for place in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text, re.IGNORECASE):
            start, end = text.rfind("\n", 0, place.start()) + 1, text.find("\n", place.end())
            line = text[start : end if end >= 0 else len(text)].strip()
            lines.setdefault(line, place[0])
    best = max(lines, key=lambda line: sum(other in line for other in beside), default="")
    return best if len(best) <= _LONGEST_QUOTE else lines[best]


_LONGEST_QUOTE = 300


# Measuring


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer about a case, or the error."""

    case: Case
    output: JsonObject | None = None
    facts: Sequence[Fact] = ()
    is_partial: bool = False
    error: str = ""

    @functools.cached_property
    def judged(self) -> Judged:
        """The comparison of the answer with the right values."""
        members = json_values.as_object(self.case.schema["properties"])
        fields = {
            json_values.pointer("", name): self.case.truth.get(name)
            for name in members
            if name != "score"
        }
        truth = Truth(fields=fields)
        if self.output is None:
            return judgments.unanswered(AnalysisType.EXTRACTION, truth)
        kind = AnalysisType.EXTRACTION
        answer = AnswerWithConfidence(analysis_type=kind, output=self.output, confidence=0.0)
        return judgments.judge(answer, truth)


def answers(cases: Sequence[Case], model: ChatModel | None, workers: int) -> list[Answered]:
    """Ask about all cases, several at a time; without a model, their gold is the answer."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda case: _answered(case, model), cases))


def _answered(case: Case, model: ChatModel | None) -> Answered:
    request = AnalysisRequest(
        text="" if case.path else case.text,
        path=case.path,
        analysis_type=AnalysisType.EXTRACTION,
        schema=case.schema,
    )
    analyzer = DocumentAnalyzer(
        model or Replayed(case), chunk_tokens=None if model else _GOLD.context_tokens
    )
    try:
        analysis = analyzer.analyze_document(request)
    except ChordwiseError as error:
        return Answered(case=case, error=str(error))
    return Answered(
        case=case,
        output=analysis.output,
        facts=analysis.facts,
        is_partial=analysis.is_partial,
    )


def row(corpus: str, name: str, answered: Sequence[Answered]) -> list[str]:
    """Return the measures of a model on a corpus."""
    scores = [score for answer in answered for score in answer.judged.scores]
    by_metric = {
        measure.metric: measure.value
        for measure in measures.measure_fields(scores, Random(0))  # noqa: S311 - statistics
        if not measure.label
    }
    quoted = [fact for answer in answered for fact in answer.facts if fact.quote]
    grounded = [fact for fact in quoted if fact.grounded]
    on_paper = [fact for answer in answered if answer.case.path for fact in answer.facts]
    paged = [fact for fact in on_paper if fact.quote and fact.grounded]
    absent = [
        (score.shared + score.only_expected == 0, score.shared + score.only_found == 0)
        for score in scores
        if score.is_answered
    ]
    return [
        corpus,
        name,
        f"{len(answered)}",
        _share(sum(not answer.error for answer in answered), len(answered)),
        _share(sum(not (answer.error or answer.is_partial) for answer in answered), len(answered)),
        _number(by_metric.get("f1")),
        _number(by_metric.get("leaf_f1")),
        _number(_f1(*_evidence(answered))),
        _number(
            _f1(
                sum(right and said for right, said in absent),
                sum(said for _, said in absent),
                sum(score.shared + score.only_expected == 0 for score in scores),
            )
        ),
        _share(len(grounded), len(quoted)),
        _share(sum(fact.page is not None for fact in paged), len(paged)),
    ]


def _evidence(answered: Sequence[Answered]) -> tuple[int, int, int]:
    """Return how many quotes and passages match, and how many of each there are."""
    matched, quotes, passages = 0, 0, 0
    for answer in answered:
        if not answer.case.evidence:
            continue
        quoted: dict[str, set[str]] = defaultdict(set)
        for fact in answer.facts:
            if fact.quote:
                quoted[fact.path.removeprefix("/data/")].add(_plain(fact.quote))
        right = {
            key: {_plain(said) for said in listed} for key, listed in answer.case.evidence.items()
        }
        quotes += sum(map(len, quoted.values()))
        passages += sum(map(len, right.values()))
        matched += sum(
            any(quote in passage or passage in quote for quote in quoted[key])
            for key, listed in right.items()
            for passage in listed
        )
    return matched, quotes, passages


def _plain(text: str) -> str:
    return " ".join(text.split())


def _f1(shared: int, predicted: int, expected: int) -> float | None:
    return 2 * shared / (predicted + expected) if predicted + expected else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(part: int, whole: int) -> str:
    return _number(part / whole if whole else None)


# SemBench's questions, answered from the reviews


def movie_questions(answered: Sequence[Answered], folder: Path) -> Mapping[str, float | None]:
    """Return the measure of SemBench for each of its ten questions about movies."""
    said = {answer.case.name: _values(answer) for answer in answered}
    right = {answer.case.name: answer.case.truth["sentiment"] for answer in answered}
    positive = [name for name in said if said[name][0] == "POSITIVE"]
    positive.sort(key=lambda name: -said[name][1])
    few, many = (
        [answer.case.name for answer in answered if answer.case.about == movie]
        for movie in ("taken_3", "ant_man_and_the_wasp_quantumania")
    )
    of_few = [name for name in positive if name in set(few)]

    def error(label: str) -> float | None:
        expected = sum(right[name] == label for name in few)
        return abs(sum(said[name][0] == label for name in few) - expected) / max(1, expected)

    def precise(names: Sequence[str]) -> float | None:
        return sum(right[name] == "POSITIVE" for name in names) / len(names) if names else None

    def pairs(labels: Mapping[str, JsonValue], *, alike: bool) -> set[tuple[str, str]]:
        return {(a, b) for a, b in combinations(many, 2) if (labels[a] == labels[b]) is alike}

    labels = {name: label for name, (label, _) in said.items()}
    same, different = pairs(labels, alike=True), pairs(labels, alike=False)
    truly_same, truly_different = pairs(right, alike=True), pairs(right, alike=False)
    by_movie: dict[str, list[float]] = defaultdict(list)
    for answer in answered:
        by_movie[answer.case.about].append(said[answer.case.name][1])
    means = {movie: statistics.fmean(scores) for movie, scores in by_movie.items()}
    scores, liked = _true_scores(folder)
    return {
        "Q1 precision": precise(positive[:5]),
        "Q2 precision": precise(of_few[:5]),
        "Q3 relative error": error("POSITIVE"),
        "Q4 relative error": error("POSITIVE"),
        "Q5 precision": _part(same, truly_same, 10),
        "Q6 precision": _part(different, truly_different, 10),
        "Q7 F1": _f1(len(different & truly_different), len(different), len(truly_different)),
        "Q8 relative error": statistics.fmean(
            value for label in ("POSITIVE", "NEGATIVE") if (value := error(label)) is not None
        ),
        "Q9 Spearman": _spearman({name: said[name][1] for name in many}, scores),
        "Q10 Spearman": _spearman(means, liked),
    }


def _values(answer: Answered) -> tuple[str, float]:
    data = json_values.as_object((answer.output or {}).get("data") or {})
    label = json_values.text(data.get("sentiment"))
    score = json_values.number(data.get("score"))
    return label, score if score is not None else {"POSITIVE": 5.0, "NEGATIVE": 1.0}.get(label, 3.0)


def _part(chosen: set[tuple[str, str]], right: set[tuple[str, str]], most: int) -> float | None:
    first = sorted(chosen)[:most]
    return sum(pair in right for pair in first) / len(first) if first else None


def _true_scores(folder: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return the critics' scores by review and the audience's by movie, where they are numbers."""
    scores: dict[str, float] = {}
    (reviews,) = folder.glob("Reviews*.csv")
    with reviews.open(encoding="utf-8", newline="") as file:
        for review in csv.DictReader(file):
            if number := re.match(r"\d+(\.\d+)?(?=/)", review.get("originalScore") or ""):
                scores[review["reviewId"]] = float(number[0])
    liked: dict[str, float] = {}
    for movies in folder.glob("Movies*.csv"):
        with movies.open(encoding="utf-8", newline="") as file:
            for movie in csv.DictReader(file):
                if movie["audienceScore"]:
                    liked[movie["id"]] = float(movie["audienceScore"])
    return scores, liked


def _spearman(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    names = sorted(one.keys() & other.keys())
    if len({one[name] for name in names}) < 2 or len({other[name] for name in names}) < 2:
        return None
    ranks = [_ranks([values[name] for name in names]) for values in (one, other)]
    return statistics.correlation(*ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


# The table


HEAD = (
    "corpus",
    "model",
    "documents",
    "valid",
    "complete",
    "values F1",
    "single values F1",
    "evidence F1",
    "absence F1",
    "grounded",
    "with page",
    "USD",
    "seconds",
)


def tables(folder: Path, names: Sequence[str], model: str, workers: int, limit: int) -> str:
    """Return the measures of a model on the corpora in a folder, and figures of others."""
    rows: list[list[str]] = []
    compared: list[str] = []
    for name in names:
        if not (folder / name).is_dir():
            print(f"{name} is absent; benchmarks/public.md says where to get it")
            continue
        cases = sorted(
            CORPORA[name](folder / name), key=lambda case: sha256(case.name.encode()).digest()
        )
        made = _model(model) if model else None
        started = time.monotonic()
        chosen = list(islice(cases, limit or None))
        answered = answers(chosen, made, workers)
        seconds = time.monotonic() - started
        usd = "–" if made is None or made.usd is None else f"{made.usd:.4f}"
        rows.append([*row(name, model or "gold", answered), usd, f"{seconds:.1f}"])
        for answer in answered:
            if answer.error:
                print(f"{name}, {answer.case.name}: {answer.error}")
        measured = {}
        if name == "sembench-movies":
            questions = movie_questions(answered, folder / name)
            measured = {question: _number(value) for question, value in questions.items()}
            measured["all questions"] = f"{usd if usd == '–' else f'${usd}'}, {seconds:.1f} s"
        compared.append(published(name, model or "gold", measured))
    return "\n\n".join((report.table(HEAD, rows), *compared))


def published(corpus: str, model: str, ours: Mapping[str, str]) -> str:
    """Return the measures of this run beside those that others published, with their sources."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        figures = [row for row in csv.DictReader(file, delimiter="\t") if row["corpus"] == corpus]
    if not figures:
        return f"{corpus}: no published figures are known here."
    cells: dict[str, dict[str, str]] = {name: {model: value} for name, value in ours.items()}
    for figure in figures:
        spent = f"${figure['USD']}, {figure['seconds']} s" if figure["USD"] else ""
        of_measure = cells.setdefault(figure["measure"], {})
        of_measure[figure["system"]] = ", ".join(filter(None, (figure["value"], spent)))
    systems = [*([model] if ours else ()), *dict.fromkeys(figure["system"] for figure in figures)]
    lines = [
        [measure, *(said.get(system, "–") for system in systems)] for measure, said in cells.items()
    ]
    sources = dict.fromkeys(f"{figure['system']}: {figure['source']}" for figure in figures)
    return "\n\n".join((report.table((corpus, *systems), lines), *sources))


def _model(name: str) -> Priced:
    settings = settings_module.load()
    return Priced(Models(settings).open(name), price_of(settings.model_named(name)).cost_usd)


def main() -> None:
    """Measure the corpora and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public", description=__doc__)
    parser.add_argument("corpora", type=Path, help="the folder with a folder for each corpus")
    parser.add_argument("--only", nargs="+", default=list(CORPORA), metavar="NAME")
    parser.add_argument("--model", default="", help="a model of the settings; default: the gold")
    parser.add_argument("--workers", type=int, default=4, help="documents at a time")
    parser.add_argument("--limit", type=int, default=0, help="documents of each corpus, by hash")
    options = parser.parse_args()
    print(tables(options.corpora, options.only, options.model, options.workers, options.limit))


if __name__ == "__main__":
    main()
