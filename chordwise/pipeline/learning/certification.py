"""Certifying: which answers may be accepted without looking, by checks in random order."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning import calibration, certification, truths
from chordwise.domain.learning.calibration import Points
from chordwise.domain.learning.certification import Answer, Certificate, Verdict, Worth
from chordwise.domain.learning.judging import Part, known
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.pipeline.learning import evaluation, judgeable
from chordwise.pipeline.learning.evaluation import Scope, Write
from chordwise.pipeline.learning.judgeable import Judgeable
from chordwise.storage import calibrations, certifications, clock, judgments
from chordwise.storage.calibrations import Key
from chordwise.storage.certifications import Accepted, Certification
from chordwise.storage.database import Database
from chordwise.storage.judgments import Feedback, JudgedResult

_MAX_TO_CHECK = 500


OnStored: TypeAlias = "Callable[[Session, Sequence[Certified]], None]"
"""What belongs to the transaction that stores certificates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many of the accepted answers may be wrong, and how likely it may be that more are."""

    max_error: float = 0.02
    risk: float = 0.05


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """What is certified: a field, a label that was chosen, or under no name whole answers."""

    analysis_type: AnalysisType
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer of a unit about one document.

    `path` is where a person judges it, and `paths` are its facts in the job's output. `order` is
    its place in the random order of the checks.
    """

    unit: Unit
    job_id: uuid.UUID
    source: str
    path: str
    paths: Sequence[str]
    created_at: datetime
    order: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The certificate of a unit, and the answers that should be checked next, the first first.

    `further` and `further_wrong` count checks of answers that came after it was certified, and
    `is_kept` tells that nothing but such answers speaks against a certificate of before.
    """

    unit: Unit
    certificate: Certificate
    is_kept: bool
    further: int
    further_wrong: int
    to_check: Sequence[Candidate]


def certify(
    database: Database,
    scope: Scope,
    bounds: Bounds,
    write: Write | None = None,
    on_stored: OnStored | None = None,
) -> Sequence[Certified]:
    """Certify each field and label of a scope, store that, and mark what is accepted.

    What is accepted no more loses its mark before the certificates are stored, and what is accepted
    newly gets it after that: a process that is killed in between leaves too few marks, never too
    many, and the next one sets them. `on_stored` belongs to the transaction that stores.

    The risk holds for all of them together: each one has its part of it (Bonferroni).
    The answers of a certified field or label that came later are accepted from the same score on,
    until checks of them show that more of these is wrong than may be; then it is withdrawn.

    Raises:
        UsageError: There is no such run.
    """
    with database.read() as session:
        found, before, of = _read(session, scope, bounds.risk)
    units: dict[Unit, list[Candidate]] = defaultdict(list)
    for each in sorted(found, key=lambda each: each.order):
        units[each.unit].append(each)
    done = [
        _certified(unit, of_unit, before.get(unit), bounds, bounds.risk / len(units))
        for unit, of_unit in sorted(units.items())
    ]
    commit = write or database.commit
    for mark in _marks(done, units, may_add=False):
        commit(mark)
    commit(partial(_store, done=done, of=of, before=before, on_stored=on_stored))
    for mark in _marks(done, units, may_add=True):
        commit(mark)
    return done


def _read(
    session: Session, scope: Scope, risk: float
) -> tuple[Sequence[Candidate], Mapping[Unit, Certification], _Of]:
    """Return the answers of a scope, the certifications in force, and what new ones share."""
    wanted, found_run = evaluation.wanted(session, scope)
    run, profile = found_run or "", scope.profile or ""
    before = certifications.in_force(session, run, profile)
    draw = _Draw.of(session, run, profile, before[0].seed if before else "")
    of = _Of(
        run_id=wanted.run_id,
        run=run,
        profile=profile,
        seed=draw.seed,
        risk=risk,
        certified_at=clock.read(session),
    )
    found = _candidates(session, judgeable.listed(session, wanted, scope.question), draw)
    return found, {Unit(AnalysisType(one.analysis_type), one.name): one for one in before}, of


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The answers of a field or label that should be checked next, the first first.

    `run` and `profile` are the scope that it was certified in, and `stored` is how many the queue
    had when it was.
    """

    unit: Unit
    run: str
    profile: str
    stored: int
    candidates: Sequence[Candidate]


def queue(session: Session, scope: Scope, name: str) -> Queue:
    """Return what certifying a field or label of a scope needs, without what is checked by now.

    `name` is that of the field or label, or the analysis type of answers judged as a whole.

    Raises:
        UsageError: There is no such run, nothing of this name was certified, or several types are.
    """
    wanted, run = evaluation.wanted(session, scope)
    in_force = certifications.in_force(session, run or "", scope.profile or "")
    found = [
        each
        for each in in_force
        if name == (each.name or each.analysis_type)
        and (not scope.types or each.analysis_type in scope.types)
    ]
    if len(found) != 1:
        raise _no_queue(name, in_force, is_ambiguous=bool(found))
    of = found[0]
    unit = Unit(AnalysisType(of.analysis_type), of.name)
    stored = [uuid.UUID(each) for each in json_values.strings(of.to_check)]
    named = judgeable.listed(session, replace(wanted, job_ids=tuple(stored)), scope.question)
    candidates = [
        each
        for each in _candidates(session, named, _Draw.of(session, of.run, of.profile, of.seed))
        if each.unit == unit and not _is_checked(each)
    ]
    return Queue(
        unit=unit,
        run=of.run,
        profile=of.profile,
        stored=len(stored),
        candidates=sorted(candidates, key=lambda each: each.order),
    )


def _no_queue(name: str, in_force: Sequence[Certification], *, is_ambiguous: bool) -> UsageError:
    if is_ambiguous:
        return UsageError(f"“{name}” is of several analysis types.", "Say which one with --type.")
    known = ", ".join(each.name or each.analysis_type for each in in_force)
    return UsageError(
        f"The order in which “{name}” is to be checked was not drawn yet.",
        f"It was for {known}." if known else "`chordwise certify` draws it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The random order of a scope, and the calibrations that were in force when it was drawn.

    What is learnt later, from these very checks, changes neither the scores nor the order.
    """

    seed: str
    curves: Mapping[Key, Points]

    @classmethod
    def of(cls, session: Session, run: str, profile: str, seed: str = "") -> _Draw:
        """Return that of a scope, a new one where it has none."""
        drawn_at = certifications.drawn_at(session, run, profile) or clock.read(session)
        curves = calibrations.curves(session, drawn_at)
        return cls(seed=seed or secrets.token_hex(16), curves=curves)

    def worth(self, result: JudgedResult) -> Worth:
        """Return what the claims of a result are worth."""

        def worth(part: Part, claim: float) -> float:
            key = Key(
                analysis_type=result.analysis_type,
                part=part,
                provider=result.provider,
                model=result.model,
            )
            points = self.curves.get(key)
            return claim if points is None else calibration.worth(points, claim)

        return worth


def _candidates(
    session: Session, listed: Sequence[judgeable.Listed], draw: _Draw
) -> list[Candidate]:
    """Return all answers with what people said of them."""
    said: dict[uuid.UUID, list[Feedback]] = defaultdict(list)
    for each in judgments.of_documents(session, sorted({one.document_id for one in listed})):
        said[each.document_id].append(each)
    return [
        candidate
        for result in judgeable.read(session, listed)
        for candidate in _of_result(result, said.get(result.listed.document_id, ()), draw)
    ]


def _of_result(result: Judgeable, said: Sequence[Feedback], draw: _Draw) -> Iterator[Candidate]:
    kind = result.listed.analysis_type
    about_it = judgments.about(said, kind, result.listed.question)
    remarks = [judgments.remark(each) for each in about_it]
    is_right = known(result.answer, truths.from_remarks(kind, remarks)) if remarks else {}
    is_of_fields = kind is AnalysisType.EXTRACTION
    worth = draw.worth(result.result)
    for each in certification.scored(result.answer, result.agreement, worth):
        about = f"{result.listed.document_id} {result.result.options_hash} {each.name}"
        yield Candidate(
            unit=Unit(kind, each.name),
            job_id=result.listed.job_id,
            source=result.listed.source,
            path=each.path,
            paths=each.paths,
            created_at=result.created_at,
            order=hashlib.sha256(f"{draw.seed} {about}".encode()).hexdigest(),
            answer=Answer(each.score, is_right.get(each.name if is_of_fields else "")),
        )


def _certified(
    unit: Unit,
    candidates: Sequence[Candidate],
    before: Certification | None,
    bounds: Bounds,
    risk: float,
) -> Certified:
    """Certify a unit again, or leave it as it was where only later answers have no checks yet.

    `risk` is its part of that of the bounds.
    """
    answers = [each.answer for each in candidates]
    certificate = certification.certify(answers, bounds.max_error, risk)
    later = _later(candidates, before)
    checked = list(takewhile(_is_checked, later))
    wrong = sum(each.answer.is_right is False for each in checked)
    if certification.is_above(len(checked), wrong, bounds.max_error, risk):
        certificate = replace(certificate, verdict=Verdict.WITHDRAWN, accepted=0, accept_from=None)
    is_open = bool(later) and certificate.verdict is Verdict.OPEN
    is_kept = before is not None and is_open and _holds(candidates, before, bounds, risk)
    if before is not None and is_kept:
        accepted = sum(each.answer.score >= (before.accept_from or 0) for each in candidates)
        certificate = replace(
            certificate,
            verdict=Verdict.CERTIFIED,
            accepted=accepted,
            accept_from=before.accept_from,
            error_bound=before.error_bound,
        )
    start = certificate.check_from
    unchecked = [each for each in candidates if not _is_checked(each)]
    to_check = [each for each in unchecked if start is None or each.answer.score >= start]
    return Certified(
        unit=unit,
        certificate=certificate,
        is_kept=is_kept,
        further=len(checked),
        further_wrong=wrong,
        to_check=to_check[:_MAX_TO_CHECK],
    )


def _holds(
    candidates: Sequence[Candidate], before: Certification, bounds: Bounds, risk: float
) -> bool:
    """Tell whether the checks of the answers that were certified still say what they said.

    They do not for narrower bounds, nor where so many became wrong that these answers would not be
    certified again.
    """
    if before.error_bound > bounds.max_error or before.risk > bounds.risk:
        return False
    accept_from = before.accept_from or 0
    certified = [
        each
        for each in candidates
        if each.created_at <= before.certified_at and each.answer.score >= accept_from
    ]
    checked = list(takewhile(_is_checked, certified))
    wrong = sum(each.answer.is_right is False for each in checked)
    population, checks = max(len(certified), before.accepted), max(len(checked), before.checks)
    further = certification.further_checks(population, checks, wrong, bounds.max_error, risk)
    return wrong <= before.wrong or further == 0


def _later(candidates: Sequence[Candidate], before: Certification | None) -> list[Candidate]:
    """Return the answers that came after a unit was certified, and are accepted by that."""
    if before is None or before.verdict != Verdict.CERTIFIED:
        return []
    accept_from = before.accept_from or 0
    return [
        each
        for each in candidates
        if each.created_at > before.certified_at and each.answer.score >= accept_from
    ]


def _is_checked(candidate: Candidate) -> bool:
    return candidate.answer.is_right is not None


def _store(
    session: Session,
    done: Sequence[Certified],
    of: _Of,
    before: Mapping[Unit, Certification],
    on_stored: OnStored | None,
) -> int:
    """Store the certificates; of one that is kept, what should be checked next."""
    for each in done:
        to_check: JsonValue = [str(one.job_id) for one in each.to_check]
        if each.is_kept:
            session.get_one(Certification, before[each.unit].id).to_check = to_check
        else:
            session.add(_row(each, of, to_check))
    if on_stored:
        on_stored(session, done)
    return len(done)


def _marks(
    done: Sequence[Certified], units: Mapping[Unit, Sequence[Candidate]], *, may_add: bool
) -> Iterator[Callable[[Session], int]]:
    """Yield the transactions that mark what is accepted, some jobs at a time; see `accept`."""
    paths: dict[uuid.UUID, list[str]] = defaultdict(list)
    refused: set[uuid.UUID] = set()
    for each in done:
        accept_from = each.certificate.accept_from
        for candidate in units[each.unit]:
            if accept_from is None or candidate.answer.score < accept_from:
                refused.add(candidate.job_id)
                paths[candidate.job_id] += ()
            else:
                paths[candidate.job_id] += candidate.paths
    for some in judgeable.batches(list(paths)):
        values = [Accepted(job_id, path) for job_id in some for path in paths[job_id]]
        whole = set(some) - refused
        yield partial(
            certifications.accept, job_ids=some, values=values, whole=whole, may_add=may_add
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Of:
    """What the rows of one certification share."""

    run_id: uuid.UUID | None
    run: str
    profile: str
    seed: str
    risk: float
    certified_at: datetime


def _row(each: Certified, of: _Of, to_check: JsonValue) -> Certification:
    shared = {name: getattr(of, name) for name in _Of.__dataclass_fields__}
    own = {name: getattr(each.certificate, name) for name in Certificate.__dataclass_fields__}
    unit = {"analysis_type": each.unit.analysis_type, "name": each.unit.name}
    return Certification(**shared, **own, **unit, to_check=to_check)
