"""Which answers may be accepted without review: a bound on their errors from random checks.

The answers to one question, a field or a label, are a finite population, and the checks are a
prefix of it in random order. Sets of the answers with the highest scores are tested from the
smallest to the largest, and a set that passes hands its share of the risk to the next (Wiens, “A
fixed sequence Bonferroni procedure for testing multiple endpoints”, 2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from chordwise.domain.learning.statistics import (
    expected_checks,
    further_checks,
    max_wrong,
    min_wrong,
)
from chordwise.domain.learning.truths import label_in
from chordwise.domain.number_formats import counted

NOT_MENTIONED = ", not mentioned"
_LEAST_SPARED = 0.2
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A part of an answer that is certified separately, with its score.

    `name` is a field, the chosen label, or empty for a whole answer; a person judges it at `path`.
    `unit` is what it is certified with: that a field is not mentioned is a claim of its own.
    """

    name: str
    unit: str
    path: str
    paths: Sequence[str]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Which of `population` answers may be accepted, with scores of at least `accept_from`.

    At most the share `error_bound` of the `accepted` is wrong; without any it is the share of wrong
    checks. `checks` and `wrong` count the checks up to the first missing one: of the accepted
    answers, else of those from `check_from` on, else of all. If all are right, `more_checks` (None:
    no number) accept `acceptable` answers; with the errors found so far, `expected_checks` accept
    `expected_free` without a check. `must_review` is the share to review if none is accepted.
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
    expected_checks: int = 0
    expected_free: int = 0


@dataclass(frozen=True, slots=True)
class _Set:
    """The answers from a score on: their number, and how many are checked and wrong."""

    begins_at: float
    population: int
    checks: int
    wrong: int


def certify(
    answers: Sequence[tuple[float, bool | None]], max_error: float, risk: float
) -> Certificate:
    """Return which of the answers, at least one, in random order, may be accepted.

    An answer is its score (higher is better) and the outcome of its check, `None` without one. The
    order has to be drawn after everything that the scores depend on. With a probability of at least
    1 - `risk`, at most the share `max_error` of the accepted answers is wrong.
    """
    sets = list(_sets(answers))
    certified: _Set | None = None
    error_bound = 0.0
    open_sets: list[tuple[int, _Set]] = []
    expected_free, expected = 0, 0
    allowance = 0.0
    for tested in sets:
        counts = tested.population, tested.checks, tested.wrong
        allowance += risk / SETS
        more = further_checks(*counts, max_error, allowance)
        if more == 0:
            certified, error_bound = tested, max_wrong(*counts, allowance) / tested.population
            continue
        if more is not None and min_wrong(*counts, risk) <= max_error * tested.population:
            open_sets.append((more, tested))
            checks = expected_checks(*counts, max_error, allowance)
            gain = tested.population - tested.checks - checks, checks
            expected_free, expected = max((expected_free, expected), gain)
        allowance = 0.0
    # The set with the fewest missing checks, among those that are larger than the certified one and
    # leave answers unchecked; if no set does, all answers of the largest one have to be checked.
    if certified:
        open_sets = [pair for pair in open_sets if pair[1].population > certified.population]
    saving = [(more, one) for more, one in open_sets if more < one.population - one.checks]
    nearest = min(saving, default=open_sets[-1] if open_sets else None, key=itemgetter(0))
    every = sets[-1]
    base = every.wrong / every.checks if every.checks else 0.0
    shown = certified or (nearest[1] if nearest else every)
    unproven = CertificationVerdict.OPEN if nearest else CertificationVerdict.IMPOSSIBLE
    return Certificate(
        verdict=CertificationVerdict.CERTIFIED if certified else unproven,
        population=every.population,
        accepted=certified.population if certified else 0,
        acceptable=shown.population,
        accept_from=certified.begins_at if certified else None,
        max_error=max_error,
        error_bound=min(max_error, error_bound) if certified else base,
        checks=shown.checks,
        wrong=shown.wrong,
        more_checks=nearest[0] if nearest else None,
        check_from=nearest[1].begins_at if nearest else None,
        must_review=max(0.0, (base - max_error) / (1 - max_error)),
        expected_checks=expected,
        expected_free=expected_free,
    )


def outlook(
    *,
    verdict: str,
    population: int,
    acceptable: int,
    checks: int,
    more_checks: int | None,
    must_review: float,
    **_: object,
) -> str:
    """Return in words what a certificate spares, or what is missing for it."""
    more = 0 if verdict == CertificationVerdict.CERTIFIED else more_checks or 0
    unchecked, rest = acceptable - checks - more, population - acceptable
    left = f"; {rest:,} {'is' if rest == 1 else 'are'} left to check" if rest else ""
    match verdict:
        case CertificationVerdict.CERTIFIED if unchecked > 0:
            return f"certified, {unchecked:,} without a check{left}"
        case CertificationVerdict.CERTIFIED:
            return f"all {acceptable:,} accepted are checked{left}"
        case CertificationVerdict.OPEN if unchecked > 0:
            others = "other is" if unchecked == 1 else "others are"
            checks_left = f"{counted(more, 'more check')} without an error"
            return f"{checks_left}, then {unchecked:,} {others} accepted{left}"
        case CertificationVerdict.OPEN:
            every = "the only one has" if acceptable == 1 else f"all {acceptable:,} have"
            further = f", {more:,} more" if checks else ""
            return f"too few to save checks: {every} to be checked{further}"
        case CertificationVerdict.IMPOSSIBLE if checks == population:
            return "the only one is checked" if checks == 1 else f"all {checks:,} are checked"
        case CertificationVerdict.IMPOSSIBLE:
            return f"at least {must_review:.1%} must be reviewed"
        case _:
            return "withdrawn: later checks are wrong"


def advice(verdict: str, expected_checks: int, expected_free: int) -> str:
    """Return in words what more checks are expected to spare; empty unless checks are missing.

    The gain is small if less than a fifth of the reviews is spared.
    """
    if verdict != CertificationVerdict.OPEN:
        return ""
    if not expected_free:
        return "stop here: more checks are not expected to free answers"
    checks = f"about {counted(expected_checks, 'more check')}"
    if not is_worthwhile(expected_checks, expected_free):
        return f"stop here: {checks} are expected to free only {expected_free:,}"
    return f"{checks} are expected to free {expected_free:,}"


def is_worthwhile(expected_checks: int, expected_free: int) -> bool:
    """Return whether more checks are advised."""
    return expected_free > 0 and expected_free >= _LEAST_SPARED * (expected_free + expected_checks)


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
        paths = [fact.path for fact in listed]
        yield Scored(name=name, unit=name, path=path, paths=paths, score=score)
        return
    for name in fields.names(output):
        entries = fields.entries(output, name)
        field_facts = [
            fact
            for fact in listed
            if any(json_values.is_within(fact.path, entry.path) for entry in entries)
        ]
        claims = [entry.confidence for entry in entries if entry.confidence is not None]
        claim = worth(JudgedPart.FIELD, min(claims)) if claims else whole
        is_mentioned = any(entry.key for entry in entries)
        yield Scored(
            name=name,
            unit=name if is_mentioned else f"{name}{NOT_MENTIONED}",
            path=f"{DATA.path}{name}" if name.startswith("/") else entries[0].path,
            paths=[fact.path for fact in field_facts],
            score=trust(claim, agreement, _doubts(answer, field_facts)),
        )


def part_of(unit: str) -> str:
    """Return the field or label of a unit: the values of a field and its absences are two units."""
    return unit.removesuffix(NOT_MENTIONED)


def trust(claim: float, agreement: float | None, doubts: int) -> float:
    """Return the score of an answer: its claim or the agreement of its votes, whichever is lower.

    Each of the `doubts` subtracts 2, so answers with fewer doubts rank before all others.
    """
    return min(claim, 1.0 if agreement is None else agreement) - 2 * doubts


def _doubts(answer: judgments.AnswerWithConfidence, listed: Sequence[Fact]) -> int:
    refuted = (fact.grounded is False or fact.value_in_quote is False for fact in listed)
    return answer.needs_review + sum(refuted)


def _sets(answers: Sequence[tuple[float, bool | None]]) -> Iterator[_Set]:
    ranked = sorted((score for score, _ in answers), reverse=True)
    edges = {ranked[math.ceil(len(ranked) * part / SETS) - 1] for part in range(1, SETS + 1)}
    for edge in sorted(edges, reverse=True):
        members = [is_right for score, is_right in answers if score >= edge]
        yield _Set(edge, len(members), *counted_checks(members))


def counted_checks(outcomes: Iterable[bool | None]) -> tuple[int, int]:
    """Return how many answers precede the first unchecked one, and how many of them are wrong."""
    checked = list(takewhile(lambda is_right: is_right is not None, outcomes))
    return len(checked), checked.count(False)
