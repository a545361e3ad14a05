"""`python -m benchmarks.certification` measures how many answers certification accepts unchecked.

The answers are those of the built-in model about the corpora of `benchmarks.quality`; the checks of
a person are read from the truth.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import quality, report
from benchmarks.quality import CLAUSES, OUT_OF_SCOPE, Measured, answered, label_of, meets, text_of
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import certification, judgments
from chordwise.domain.learning.certification import CertificationVerdict
from chordwise.llm.providers.extractive import ExtractiveModel

_TABLE_STARTS = "<!-- make quality: certified -->\n"
MAX_ERROR, RISK = 0.1, 0.05
_SURE = 0.5
_SEEDS = 100
_DRAWN = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An answer to certify: its field or label, its score and claim, and whether it is right."""

    unit: str
    score: float
    claim: float
    is_right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The numbers of checked and accepted answers; `unseen` are those accepted without a check."""

    checks: int
    unseen: int
    unseen_wrong: int
    is_broken: bool


def labels_known(rows: Sequence[JsonObject], folder: Path) -> Iterator[Known]:
    """Yield the chosen labels; each label is certified separately."""
    pairs = [(text_of(row, folder), label_of(row)) for row in rows if label_of(row) != OUT_OF_SCOPE]
    labels = tuple(sorted({label for _, label in pairs}))
    for text, label in pairs:
        answer = answered(AnalysisType.CLASSIFICATION, text, labels=labels)
        yield from _known(answer, label)


def signs_known(rows: Sequence[JsonObject], folder: Path) -> Iterator[Known]:
    """Yield the detected sentiments; any other than the true one is wrong."""
    for row in rows:
        answer = answered(AnalysisType.SENTIMENT, text_of(row, folder))
        yield from _known(answer, label_of(row))


def clauses_known(rows: Sequence[JsonObject], folder: Path) -> Iterator[Known]:
    """Yield the items of contracts; right if all values are, or if none is found or annotated."""
    for item in CLAUSES:
        for row in rows:
            clause = json_values.as_object(json_values.as_object(row["clauses"])[item])
            text = text_of(row, folder)
            answer = answered(AnalysisType.EXTRACTION, text, instructions=item)
            fields = json_values.objects(answer.output["fields"])
            values = [json_values.text(field["value"]) for field in fields if field["value"]]
            is_right = all(meets(value, clause) for value in values)
            if not values:
                is_right = not clause["spans"]
            yield from _known(answer, item if is_right else "")


def _known(answer: judgments.AnswerWithConfidence, right: str) -> Iterator[Known]:
    """Yield the units of an answer; only the unit with the name `right` is right."""
    for unit in certification.scored(answer, None):
        yield Known(
            unit=unit.name,
            score=unit.score,
            claim=answer.confidence,
            is_right=unit.name == right,
        )


def accepted(answers: Sequence[Known], random: Random) -> Accepted:
    """Certify answers with checks in random order, for as long as further checks pay off."""
    units: dict[str, list[Known]] = defaultdict(list)
    for answer in random.sample(answers, len(answers)):
        units[answer.unit].append(answer)
    parts = [_accepted_of(group, RISK / len(units)) for group in units.values()]
    return Accepted(
        checks=sum(part.checks for part in parts),
        unseen=sum(part.unseen for part in parts),
        unseen_wrong=sum(part.unseen_wrong for part in parts),
        is_broken=any(part.is_broken for part in parts),
    )


def _accepted_of(ordered: Sequence[Known], risk: float) -> Accepted:
    is_checked = [False] * len(ordered)
    while True:
        certificate = certification.certify(
            [
                (answer.score, answer.is_right if checked else None)
                for answer, checked in zip(ordered, is_checked, strict=True)
            ],
            MAX_ERROR,
            risk,
        )
        start = certificate.check_from
        if start is None or certificate.more_checks is None:
            break
        lowest = math.inf if certificate.accept_from is None else certificate.accept_from
        missing = [
            place
            for place, answer in enumerate(ordered)
            if answer.score >= start and not is_checked[place]
        ]
        gained = sum(ordered[place].score < lowest for place in missing)
        pays = gained > 2 * certificate.more_checks
        if certificate.verdict is CertificationVerdict.CERTIFIED and not pays:
            break
        for place in missing[: certificate.more_checks]:
            is_checked[place] = True
    lowest = math.inf if certificate.accept_from is None else certificate.accept_from
    outcomes = [
        (answer.is_right, checked)
        for answer, checked in zip(ordered, is_checked, strict=True)
        if answer.score >= lowest
    ]
    unseen = [is_right for is_right, checked in outcomes if not checked]
    wrong = sum(not is_right for is_right, _ in outcomes)
    return Accepted(
        checks=sum(is_checked),
        unseen=len(unseen),
        unseen_wrong=unseen.count(False),
        is_broken=wrong > MAX_ERROR * len(outcomes),
    )


def certified(corpus: str, answers: Sequence[Known]) -> Iterator[Sequence[str]]:
    """Yield rows of the second table: for the answers, and for 5,000 drawn from them."""
    sure = [answer.is_right for answer in answers if answer.claim >= _SURE]
    everything = [answer.is_right for answer in answers]
    for drawn in (0, _DRAWN):
        draws = []
        for seed in range(_SEEDS):
            random = Random(seed)  # noqa: S311 - statistics, not secrets
            draws.append(accepted(random.choices(answers, k=drawn) if drawn else answers, random))
        count = drawn or len(answers)
        checks, unseen = (
            statistics.fmean(getattr(draw, name) for draw in draws) / count
            for name in ("checks", "unseen")
        )
        wrong = sum(draw.unseen_wrong for draw in draws) / max(
            1, sum(draw.unseen for draw in draws)
        )
        broken = sum(draw.is_broken for draw in draws)
        yield (
            *(f"`{corpus}`", f"{count:,}", f"{checks:.0%}", f"{unseen:.0%}", f"{wrong:.1%}"),
            f"{broken} of {_SEEDS}",
            f"{everything.count(False) / len(everything):.0%}",
            f"{len(sure) / len(answers):.0%}, {sure.count(False) / max(1, len(sure)):.0%} wrong",
        )


CERTIFIED: dict[str, Callable[[Sequence[JsonObject], Path], Iterator[Known]]] = {
    "clinc_oos": labels_known,
    "movie_reviews": signs_known,
    "cuad_contracts": clauses_known,
}


_HEAD = (
    *("corpus", "answers", "checked", "accepted unchecked", "wrong of these", "bound exceeded"),
    *("wrong of all", f"claim ≥ {_SURE}"),
)


def table(folder: Path, names: Sequence[str]) -> str:
    """Return the numbers of checked and accepted answers as a Markdown table."""
    quality.measuring.set(Measured(ExtractiveModel()))
    lines = [
        line
        for name, rows in quality.truths_of(folder, names)
        for line in certified(name, list(CERTIFIED[name](rows, folder / name)))
    ]
    return report.table(_HEAD, lines)


def main() -> None:
    """Measure the selected corpora, print the table, and write it with `--write`."""
    options = quality.parser("certification", __doc__, list(CERTIFIED)).parse_args()
    quality.publish(_TABLE_STARTS, table(options.corpora, options.only), writes=options.write)


if __name__ == "__main__":
    main()
