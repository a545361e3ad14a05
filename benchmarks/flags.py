"""`python -m benchmarks.flags` measures how well suspicious passages are detected.

The passages in `planted_passages.tsv` are inserted into clean texts of several kinds. Those marked
`dev` are used to fit the weights of requests (`--fit`), those marked `check` are measured.
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from random import Random

from benchmarks import report
from benchmarks.quality import parser, publish, share
from chordwise.domain import assistant_requests, json_values
from chordwise.domain.document_flags import flags
from chordwise.readers.reader import ReadDocument, Reader
from chordwise.settings import ReaderSettings

PLANTED = Path(__file__).with_name("planted_passages.tsv")
WEIGHTS = Path(assistant_requests.__file__).with_suffix(".toml")
_STARTS = "<!-- make quality: flags -->\n"
# The prefixes of file names that name a kind of document.
_KINDS = ("email_", "table_", "answers-", "email-", "newsgroup-", "reviews-", "weblog-", "en_")
_HOSTS = {
    "e-mails": ("prompt_injection_bipia email", "ud_ewt_sentences email"),
    "tables": ("prompt_injection_bipia table",),
    "questions and answers": ("ud_ewt_sentences answers",),
    "articles": ("xquad en", "ud_ewt_sentences weblog", "ud_ewt_sentences newsgroup"),
    "abstracts": ("scitldr_abstracts",),
    "contracts": ("cuad_contracts",),
    "reviews": ("ud_ewt_sentences reviews",),
    "code": ("Python modules",),
}
_PLACES = {
    "start": "as the first line",
    "line": "as a line in the middle",
    "within": "within a line",
    "end": "as the last line",
}
_HOST_CHARACTERS = 4_000
_MIN_HOST_CHARACTERS = 150
_FITTED_CHARACTERS = 300_000
_UNFITTED = ("large_text", "udhr")
_SENTENCE_END = re.compile(r"[.!?][\"”]?\s")
_SOURCES = 80

Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Planted:
    """A text with an inserted passage: its span, its kind, the text's kind, its position."""

    text: str
    start: int
    end: int
    kind: str
    host: str
    place: str


def clean_texts(folder: Path) -> Texts:
    """Return the documents of the corpora by kind, and texts of this Python installation."""
    texts: dict[str, list[str]] = defaultdict(list)
    with Reader(ReaderSettings()) as reader:
        for file in sorted(folder.glob("*/docs/**/*")):
            read = reader.read(file) if file.is_file() else None
            if isinstance(read, ReadDocument):
                corpus = file.relative_to(folder).parts[0]
                kind = next((prefix for prefix in _KINDS if file.name.startswith(prefix)), "")
                texts[f"{corpus} {kind[:-1]}".strip()].append(read.content.text)
    for name in ("scitldr_abstracts", "sentence_sentiment"):
        truths = folder / name / "labels.jsonl"
        for line in truths.read_text("utf-8").splitlines() if truths.exists() else ():
            texts[name].append(json_values.text(json.loads(line)["text"]))
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:_SOURCES]
    texts["Python modules"] = [
        module.read_text("utf-8", "replace")[:_HOST_CHARACTERS] for module in modules
    ]
    described = [
        str(distribution.metadata.json.get("description") or "")
        for distribution in metadata.distributions()
    ]
    texts["Python packages"] = sorted({description for description in described if description})
    return texts


def planted(texts: Texts, part: str) -> Iterator[Planted]:
    """Yield each passage of a part, inserted at four positions of a text of each kind."""
    random = Random(5)  # noqa: S311 - statistics, not secrets
    hosts = {
        host: [
            text[:_HOST_CHARACTERS]
            for name in names
            for text in texts.get(name, ())
            if len(text) > _MIN_HOST_CHARACTERS
        ]
        for host, names in _HOSTS.items()
    }
    for line in PLANTED.read_text("utf-8").splitlines():
        marked, kind, passage = line.split("\t")
        for host, candidates in hosts.items() if marked == part else ():
            for place in _PLACES if candidates else ():
                before, behind = _parted(random.choice(candidates), place)
                yield Planted(
                    before + passage + behind,
                    len(before),
                    len(before) + len(passage),
                    kind,
                    host,
                    place,
                )


def _parted(text: str, place: str) -> tuple[str, str]:
    """Return the text before and after a passage that is inserted at a position."""
    if place == "start":
        return "", f"\n{text}"
    if place == "end":
        return text.rstrip("\n") + "\n", ""
    if place == "line":
        lines = text.split("\n")
        half = len(lines) // 2
        return "".join(f"{line}\n" for line in lines[:half]), "\n" + "\n".join(lines[half:])
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    at = ends[len(ends) // 2] if ends else len(text) // 2
    return text[:at], f" {text[at:]}"


def fit(texts: Texts) -> dict[str, float]:
    """Return weights that separate planted requests from the requests in clean texts."""
    from sklearn.feature_extraction import DictVectorizer  # noqa: PLC0415 - of an extra
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - of an extra

    clean = [
        features
        for name, group in texts.items()
        for text in (group[::2] if name.startswith("Python") else group)
        for features, _, _ in _candidates(text[:_FITTED_CHARACTERS])
        if name not in _UNFITTED
    ]
    requests = [
        features
        for passage in planted(texts, "dev")
        for features, start, end in _candidates(passage.text)
        if start < passage.end and end > passage.start
    ]
    unknown = list(_with_unknown_verbs(requests))
    vectorizer = DictVectorizer(sparse=False)
    rows = vectorizer.fit_transform([*clean, *requests, *unknown])
    spread = rows.std(0) + 1e-9
    model = LogisticRegression(C=_REGULARIZATION, max_iter=3_000)
    model.fit(
        rows / spread,
        [0] * len(clean) + [1] * (len(requests) + len(unknown)),
        sample_weight=[1.0] * (len(clean) + len(requests)) + [_UNKNOWN] * len(unknown),
    )
    weights = dict(zip(vectorizer.get_feature_names_out(), model.coef_[0] / spread, strict=True))
    return {**weights, "bias": model.intercept_[0] - _MARGIN}


_REGULARIZATION = 0.03
_UNKNOWN = 0.2
_MARGIN = 1.8


def _candidates(text: str) -> Iterator[tuple[dict[str, float], int, int]]:
    requests, usual = assistant_requests.candidates(text)
    for request in requests:
        strange = assistant_requests.strangeness(text, request)
        if strange is not None:
            yield {**request.features, **usual, **strange}, request.start, request.end


def _with_unknown_verbs(requests: Sequence[Mapping[str, float]]) -> Iterator[dict[str, float]]:
    """Yield the features of requests as if their verbs were misspelled, or in no word list."""
    for features in requests:
        verb = next((kind for kind in ("craft", "tell", "act") if kind in features), None)
        others = {name: value for name, value in features.items() if name != verb}
        if verb:
            yield {**others, "misspelled": 1}
        if verb and any(f"then_{kind}" in features for kind in assistant_requests.OF_VERBS):
            yield {**others, "unknown": 1}


def store(weights: Mapping[str, float]) -> None:
    """Write the weights to the data file of the package."""
    words, _, _ = WEIGHTS.read_text("utf-8").partition("\n[weights]\n")
    lines = [f"{name} = {weight:.2f}" for name, weight in sorted(weights.items())]
    WEIGHTS.write_text("\n".join([words.rstrip(), "", "[weights]", *lines, ""]), "utf-8")


def table(texts: Texts) -> str:
    """Return how often planted passages and clean documents are flagged, as a Markdown table."""
    by: dict[str, list[float]] = defaultdict(list)
    for passage in planted(texts, "check"):
        hit = any(
            flag.start_char < passage.end and flag.end_char > passage.start
            for flag in flags(passage.text)
        )
        for group in (
            "all",
            f"in {passage.host}",
            _PLACES[passage.place],
            f"kind: {passage.kind}",
        ):
            by[f"planted, {group}"].append(float(hit))
    for name, kind_texts in texts.items():
        hits = [float(bool(flags(text))) for text in kind_texts]
        by[f"clean, {name}"] += hits
        if not name.startswith("Python"):
            by["clean, all corpora"] += hits
    rows = [share(name, "", hits) for name, hits in sorted(by.items())]
    lines = [
        (row.corpus, f"{row.count}", f"{row.value:.1%}", f"{row.low:.1%} to {row.high:.1%}")
        for row in rows
    ]
    return report.table(("texts", "n", "flagged", "95 %"), lines)


def main() -> None:
    """Print the table, and with `--write` update the page; with `--fit` only store weights."""
    command_parser = parser("flags", __doc__)
    command_parser.add_argument(
        "--fit", action="store_true", help="find the weights, and only store them"
    )
    options = command_parser.parse_args()
    texts = clean_texts(options.corpora)
    if options.fit:
        store(fit(texts))
        return
    publish(_STARTS, table(texts), writes=options.write)


if __name__ == "__main__":
    main()
