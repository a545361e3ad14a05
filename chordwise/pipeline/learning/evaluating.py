"""Evaluating: stored results are compared with the truth, measured, and that is written down."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain.learning import measures
from chordwise.domain.learning.judging import Part
from chordwise.domain.learning.measures import Measure
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.learning import comparing, scopes
from chordwise.pipeline.learning.comparing import Compared, Comparison, Group
from chordwise.pipeline.learning.gold import Gold
from chordwise.pipeline.learning.scopes import Scope
from chordwise.storage import judgments
from chordwise.storage.database import Database
from chordwise.storage.judgments import Evaluation, JudgedBy

Write: TypeAlias = Callable[[Callable[[Session], int]], int]
"""Runs a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured on all results of a type, or on those of one group."""

    analysis_type: AnalysisType
    group: Group | None
    is_whole: bool
    judged: int
    unjudged: int
    measures: Sequence[Measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The results of one analysis type beside the truth, and what was measured on them."""

    comparison: Comparison
    measured: Sequence[Measured]


def evaluate(
    database: Database, scope: Scope, gold: Gold | None, write: Write
) -> Sequence[Evaluated]:
    """Compare results with a gold file, or without one with feedback, and write down how they are.

    Nothing comes of it where nobody has said anything yet.
    No transaction is open while it is reckoned. The intervals are the same each time.

    Raises:
        UsageError: There is no such run, the gold file is about none of the results, or a label
            may be that of two types.
        ServiceUnavailableError: The database cannot be reached.
    """
    with database.read() as session:
        wanted, run = scopes.wanted(session, scope)
        comparisons = comparing.compare(session, wanted, scope.question, gold)
    random = Random(0)  # noqa: S311 - statistics, not secrets
    found = [Evaluated(comparison=each, measured=measure(each, random)) for each in comparisons]

    def store(session: Session) -> int:
        for evaluated in found:
            _store(session, scope, (wanted.run_id, run), gold, evaluated)
        return len(found)

    write(store)
    return found


def measure(comparison: Comparison, random: Random) -> Sequence[Measured]:
    """Measure all together, and where several models or prompts answered, each of them."""
    groups: dict[Group, list[Compared]] = defaultdict(list)
    for each in comparison.compared:
        groups[each.group].append(each)
    parts = [(group, found) for group, found in sorted(groups.items()) if len(groups) > 1]
    only = next(iter(groups)) if len(groups) == 1 else None
    return [
        Measured(
            analysis_type=comparison.kind,
            group=group,
            is_whole=is_whole,
            judged=len(found),
            unjudged=comparison.unjudged if is_whole else 0,
            measures=list(_measures(found, random)),
        )
        for group, found, is_whole in (
            (only, comparison.compared, True),
            *((group, found, False) for group, found in parts),
        )
    ]


def _store(
    session: Session,
    scope: Scope,
    of: tuple[uuid.UUID | None, str | None],
    gold: Gold | None,
    evaluated: Evaluated,
) -> None:
    """Write down what was measured, and each judgment under the evaluation of the whole."""
    for each in evaluated.measured:
        provider, model, prompt_version = each.group or (None, None, None)
        evaluation = Evaluation(
            run_id=of[0],
            run=of[1],
            profile=scope.profile,
            analysis_type=each.analysis_type,
            is_whole=each.is_whole,
            provider=provider,
            model=model,
            prompt_version=prompt_version,
            gold_file=gold.name if gold else None,
            gold_sha256=gold.sha256 if gold else None,
            judged=each.judged,
            unjudged=each.unjudged,
            missing=len(evaluated.comparison.missing),
        )
        judgments.store_evaluation(session, evaluation, each.measures)
        if each.is_whole:
            judged = [(c.result, c.judged.judgments) for c in evaluated.comparison.compared]
            source = JudgedBy.GOLD if gold else JudgedBy.FEEDBACK
            judgments.store(session, judged, source, evaluation.id)


def _measures(found: Sequence[Compared], random: Random) -> Iterator[Measure]:
    all_judged = [each.judged for each in found]
    whole = [j for judged in all_judged for j in judged.judgments if j.part is Part.RESULT]
    values = [j for judged in all_judged for j in judged.judgments if j.part is Part.FIELD]
    choices = [judged.choice for judged in all_judged if judged.choice]
    yield from measures.of_choices(choices, random)
    if whole and not choices:
        yield measures.share("accuracy", sum(j.is_right for j in whole), len(whole))
    yield from measures.of_fields([s for judged in all_judged for s in judged.scores], random)
    named = {name for each in found for name in each.means}
    means = {n: [each.means[n] for each in found if n in each.means] for n in sorted(named)}
    yield from measures.of_means(means, random)
    yield from measures.of_confidence(whole)
    yield from measures.of_confidence(values, "values")
