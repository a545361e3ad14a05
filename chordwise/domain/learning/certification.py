"""Which answers may be accepted without review: a bound on their errors from random checks.

The answers to one question, a field or a label, are a finite population, and the checks are a
prefix of it in random order. Sets of the answers with the highest scores are tested from the
smallest to the largest, and a set that passes hands its share of the risk to the next (Wiens, “A
fixed sequence Bonferroni procedure for testing multiple endpoints”, 2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from operator import itemgetter
from typing import TypeAlias

from chordwise.domain import json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.facts import DATA, Fact, facts
from chordwise.domain.learning import fields, judgments
from chordwise.domain.learning.judgments import JudgedPart
from chordwise.domain.learning.statistics import further_checks, max_wrong, min_wrong
from chordwise.domain.learning.truths import label_in
from chordwise.domain.number_formats import counted

SETS = 5
"""The number of sets of answers that are tested: the best fifth, the best two fifths, and so on."""

Worth: TypeAlias = Callable[[JudgedPart, float], float]
"""A function that calibrates a claimed confidence."""


class CertificationVerdict(StrEnum):
    """The outcome of certifying a field or label; stored in `certifications.verdict`."""

    CERTIFIED = "certified"
    OPEN = "open"
    IMPOSSIBLE = "impossible"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with its score (higher is better) and the outcome of its check, if it has one."""

    score: float
    is_right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A part of an answer that is certified separately, with its score.

    `name` is a field, the chosen label, or empty for a whole answer; a person judges it at `path`.
    """

    name: str
    path: str
    paths: Sequence[str]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Which of `population` answers may be accepted.

    `accept_from` is the lowest accepted score. At most the share `error_bound` of the `accepted` is
    wrong; without any it is the share of wrong checks. `checks` and `wrong` count the checks up to
    the first missing one: of the accepted answers, else of those from `check_from` on, else of all.
    `more_checks` suffice if all are right; None if no number does. `acceptable` answers, checked
    and unchecked, are accepted then. `must_review` is the share to review if none can be accepted.
    """

    verdict: CertificationVerdict
    population: int
    accepted: int
    acceptable: int
    accept_from: float | None
    max_error: float
    error_bound: float
    checks: int
    wrong: int
    more_checks: int | None
    check_from: float | None
    must_review: float


@dataclass(frozen=True, slots=True)
class _Set:
    """The answers from a score on: their number, and how many are checked and wrong."""

    begins_at: float
    population: int
    checks: int
    wrong: int


def certify(answers: Sequence[ScoredAnswer], max_error: float, risk: float) -> Certificate:
    """Return which of the answers, at least one, in random order, may be accepted.

    The order has to be drawn after everything that the scores depend on. With a probability of at
    least 1 - `risk`, at most the share `max_error` of the accepted answers is wrong.
    """
    sets = list(_sets(answers))
    certified: tuple[_Set, float] | None = None
    open_sets: list[tuple[int, _Set]] = []
    allowance = 0.0
    for tested in sets:
        allowance += risk / SETS
        more = further_checks(tested.population, tested.checks, tested.wrong, max_error, allowance)
        if more == 0:
            certified = tested, allowance
            continue
        if more is not None and not _is_hopeless(tested, max_error, risk):
            open_sets.append((more, tested))
        allowance = 0.0
    nearest = _nearest(open_sets)
    every = sets[-1]
    base = every.wrong / every.checks if every.checks else 0.0
    shown = certified[0] if certified else nearest[1] if nearest else every
    unproven = CertificationVerdict.OPEN if nearest else CertificationVerdict.IMPOSSIBLE
    return Certificate(
        verdict=CertificationVerdict.CERTIFIED if certified else unproven,
        population=every.population,
        accepted=certified[0].population if certified else 0,
        acceptable=shown.population,
        accept_from=certified[0].begins_at if certified else None,
        max_error=max_error,
        error_bound=min(max_error, _bound(*certified)) if certified else base,
        checks=shown.checks,
        wrong=shown.wrong,
        more_checks=nearest[0] if nearest else None,
        check_from=nearest[1].begins_at if nearest else None,
        must_review=max(0.0, (base - max_error) / (1 - max_error)),
    )


def _nearest(open_sets: Sequence[tuple[int, _Set]]) -> tuple[int, _Set] | None:
    """Return the set with the fewest missing checks, among those that leave answers unchecked.

    If no set does, all answers of the largest one have to be checked.
    """
    saving = [
        (more, tested) for more, tested in open_sets if more < tested.population - tested.checks
    ]
    return min(saving, default=open_sets[-1] if open_sets else None, key=itemgetter(0))


def outlook(
    verdict: str, acceptable: int, checks: int, more_checks: int | None, must_review: float
) -> str:
    """Return in words what a certificate spares, or what is missing for it; see `Certificate`."""
    more = more_checks or 0
    unchecked = acceptable - checks - more
    match verdict:
        case CertificationVerdict.CERTIFIED:
            return (
                f"certified, {unchecked:,} without a check" if unchecked > 0 else "all are checked"
            )
        case CertificationVerdict.OPEN if unchecked > 0:
            return f"{counted(more, 'more check')}, then {unchecked:,} others are accepted"
        case CertificationVerdict.OPEN:
            return f"too few to save checks: all {acceptable:,} have to be checked, {more:,} more"
        case CertificationVerdict.IMPOSSIBLE:
            return f"at least {must_review:.1%} must be reviewed"
        case _:
            return "withdrawn: later checks are wrong"


def scored(
    answer: judgments.AnswerWithConfidence,
    agreement: float | None,
    worth: Worth = lambda _part, claim: claim,
) -> Iterator[Scored]:
    """Yield the parts of an answer that are certified: its fields, its label, or the whole.

    A field without its own claim has that of the answer. Three kinds of doubt lower a score: quotes
    not in the document, values not in their quotes, and an answer that needs review.
    """
    kind, output = answer.analysis_type, answer.output
    listed = list(facts(output, analysis_for(kind)))
    whole = worth(JudgedPart.RESULT, answer.confidence)
    if kind != AnalysisType.EXTRACTION:
        path = analysis_for(kind).label_path
        name = label_in(kind, output) if path else ""
        score = trust(whole, agreement, _doubts(answer, listed))
        yield Scored(name=name, path=path, paths=[fact.path for fact in listed], score=score)
        return
    for name in fields.names(output):
        entries = fields.entries(output, name)
        field_facts = _at([entry.path for entry in entries], listed)
        claims = [entry.confidence for entry in entries if entry.confidence is not None]
        claim = worth(JudgedPart.FIELD, min(claims)) if claims else whole
        yield Scored(
            name=name,
            path=f"{DATA.path}{name}" if name.startswith("/") else entries[0].path,
            paths=[fact.path for fact in field_facts],
            score=trust(claim, agreement, _doubts(answer, field_facts)),
        )


def trust(claim: float, agreement: float | None, doubts: int) -> float:
    """Return the score of an answer: its claim or the agreement of its votes, whichever is lower.

    Each of the `doubts` subtracts 2, so answers with fewer doubts rank before all others.
    """
    return min(claim, 1.0 if agreement is None else agreement) - 2 * doubts


def _at(paths: Sequence[str], listed: Sequence[Fact]) -> list[Fact]:
    return [
        fact for fact in listed if any(json_values.is_within(fact.path, path) for path in paths)
    ]


def _doubts(answer: judgments.AnswerWithConfidence, listed: Sequence[Fact]) -> int:
    refuted = (fact.grounded is False or fact.value_in_quote is False for fact in listed)
    return answer.needs_review + sum(refuted)


def _sets(answers: Sequence[ScoredAnswer]) -> Iterator[_Set]:
    ranked = sorted((answer.score for answer in answers), reverse=True)
    edges = {ranked[math.ceil(len(ranked) * part / SETS) - 1] for part in range(1, SETS + 1)}
    for edge in sorted(edges, reverse=True):
        members = [answer.is_right for answer in answers if answer.score >= edge]
        checked = list(takewhile(lambda is_right: is_right is not None, members))
        yield _Set(edge, len(members), len(checked), checked.count(False))


def _bound(tested: _Set, risk: float) -> float:
    return max_wrong(tested.population, tested.checks, tested.wrong, risk) / tested.population


def _is_hopeless(tested: _Set, max_error: float, risk: float) -> bool:
    least = min_wrong(tested.population, tested.checks, tested.wrong, risk)
    return least > max_error * tested.population
