"""Certification: which answers may be accepted without review, from checks in random order."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from itertools import takewhile

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import calibration, certification, fields, statistics, truths
from chordwise.domain.learning.calibration import Points
from chordwise.domain.learning.certification import (
    Certificate,
    CertificationVerdict,
    ScoredAnswer,
    Worth,
)
from chordwise.domain.learning.judgments import JudgedPart, correct_by_field, is_refuted
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import RegressionError, UsageError
from chordwise.pipeline.learning import judgeable
from chordwise.pipeline.learning.scope import Scope
from chordwise.pipeline.runtime.occurrence import Occurrence
from chordwise.relations.certificates import FIRST, IN_FORCE, SEEDS
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.storage import calibrations, certifications, clock, jobs
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.calibrations import Key
from chordwise.storage.certifications import AcceptanceMark, Certification
from chordwise.storage.database import Database, driver
from chordwise.storage.feedback import Feedback
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

_MAX_TO_CHECK = 500
_APPROVED = truths.Verdict.APPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The highest allowed share of wrong accepted answers, and the risk of exceeding it."""

    max_error: float = 0.02
    risk: float = 0.05


@dataclass(frozen=True, slots=True, order=True)
class CertificationUnit:
    """The unit of certification: a field, a chosen label, or whole answers with an empty name."""

    analysis_type: AnalysisType
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer of a unit about one document.

    `path` is where a person judges it, and `paths` are its facts in the job's output. The random
    order of the checks depends on `about`: the document, the question and the unit. An answer that
    `is_refuted` is not accepted, whatever its score. One that `is_replaced` is right, and an
    earlier answer to the same question was wrong.
    """

    unit: CertificationUnit
    job_id: uuid.UUID
    result_id: uuid.UUID
    source: str
    path: str
    paths: Sequence[str]
    created_at: datetime
    about: str
    answer: ScoredAnswer
    is_refuted: bool
    is_replaced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The certificate of a unit, and the answers to check next, in order.

    `further` and `further_wrong` count the checks of answers that were created after the first
    certification, so that renewing a certificate loses none of them. `is_kept` is set if an earlier
    certificate stays in force because only such answers lack checks.
    """

    unit: CertificationUnit
    certificate: Certificate
    is_kept: bool
    further: int
    further_wrong: int
    to_check: Sequence[Candidate]


def certify(
    database: Database,
    scope: Scope,
    bounds: Bounds,
    occurrence: Occurrence | None = None,
) -> Sequence[Certified]:
    """Certify each field and label of a scope, store the certificates and mark accepted answers.

    One transaction stores the certificates and, once, the outcome of an `occurrence`, and unmarks
    the answers that are no longer accepted. Newly accepted answers are marked afterwards, as long
    as the certificates are in force: a process that is killed in between leaves too few marks,
    never too many, and the next call sets them. If another process has certified the scope
    meanwhile, everything is computed again, so the result is that of two successive certifications.

    The risk holds for all units together: each gets an equal part of it (Bonferroni), including
    labels that were not chosen yet, so that a newly chosen label does not weaken earlier
    certificates. Later answers of a certified unit are accepted from the same score on until checks
    show that more of them are wrong than allowed; then the certificate is withdrawn.

    Raises:
        UsageError: The scope names neither a run nor a profile.
        RegressionError: An `occurrence` has withdrawn a certificate.
    """
    commit = occurrence.write if occurrence else database.commit
    recorded = occurrence if occurrence and occurrence.outcome() is None else None
    while True:
        with database.read() as session:
            basis = _read(session, scope, bounds.risk)
        certified = _round(basis, bounds)
        if commit(partial(_store, certified=certified, recorded=recorded)):
            break
    for mark in certified.marks:
        commit(partial(_mark, certified=certified, mark=mark))
    if occurrence is not None:
        _require_none_withdrawn(occurrence)
    return certified.done


def _record(occurrence: Occurrence, session: Session, certified: _Round) -> None:
    verdicts = Counter(decision.certificate.verdict for decision in certified.done)
    outcome: JsonObject = {verdict: verdicts[verdict] for verdict in CertificationVerdict}
    withdrawn = [
        decision.unit.name or decision.unit.analysis_type
        for decision in certified.done
        if decision.certificate.verdict is CertificationVerdict.WITHDRAWN
    ]
    if withdrawn:
        outcome = {
            "profile": certified.basis.scope.profile,
            "withdrawn": list[JsonValue](withdrawn),
        }
    occurrence.record_in(session, outcome, DeliveryEvent.ANSWERS_REGRESSED if withdrawn else "")


def _require_none_withdrawn(occurrence: Occurrence) -> None:
    if withdrawn := json_values.strings((occurrence.outcome() or {}).get("withdrawn")):
        raise RegressionError(
            f"Certificates withdrawn after later checks: {', '.join(withdrawn)}.",
            "Their answers are no longer accepted; `chordwise certify` shows the checks.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """The answers of a scope in the order of their checks, and the certifications in force.

    `parts` is the number of units that share the risk, including those of other analysis types.
    `before` are the certifications in force that have the same order of checks, and `since` the
    first certificates in this order. `in_force` are the ids of all certifications in force.
    `questions` are those of a profile that were answered, as in `jobs.options_hash`. New
    certifications have the other columns in common.
    """

    units: Mapping[CertificationUnit, Sequence[Candidate]]
    parts: int
    before: Mapping[CertificationUnit, Row]
    since: Mapping[CertificationUnit, Row]
    in_force: Mapping[CertificationUnit, uuid.UUID]
    questions: Mapping[AnalysisType, str]
    scope: Scope
    seed: str
    risk: float
    certified_at: datetime


def _read(session: Session, scope: Scope, risk: float) -> _Basis:
    scope.require_name(session)
    # First, so that `_Round.is_current` notices what is stored while the rest is read.
    in_force = _by_unit(IN_FORCE.read(driver(session), scope.names))
    certified_at = clock.read(session)
    every = replace(scope.selection, types=tuple(scope.identities))
    listed = judgeable.listed(session, every, scope.questions)
    hashes = {} if scope.run else _asked(listed, scope.identities)
    questions = set(hashes.values()) or {""}
    listed = [row for row in listed if not hashes or row["options_hash"] in questions]
    draw = _Draw.of(session, scope, questions)
    units = _in_order(_candidates(session, listed, draw), draw.seed)
    return _Basis(
        units={
            unit: candidates
            for unit, candidates in units.items()
            if not scope.types or unit.analysis_type in scope.types
        },
        parts=len(units.keys() | set(_labels(listed))),
        before={
            unit: row
            for unit, row in in_force.items()
            if row["seed"] == draw.seed and row["question"] in questions
        },
        since=_by_unit(
            FIRST.read(driver(session), {"seed": draw.seed, "questions": list(questions)})
        ),
        in_force={unit: row["id"] for unit, row in in_force.items()},
        questions=hashes,
        scope=scope,
        seed=draw.seed,
        risk=risk,
        certified_at=certified_at,
    )


def _by_unit(certificates: Sequence[Row]) -> Mapping[CertificationUnit, Row]:
    return {_unit_of(certificate): certificate for certificate in certificates}


def _unit_of(certificate: Row) -> CertificationUnit:
    return CertificationUnit(AnalysisType(certificate["analysis_type"]), certificate["name"])


def _asked(listed: Sequence[Row], today: Mapping[AnalysisType, str]) -> Mapping[AnalysisType, str]:
    """Return today's question of each type, or the last one if today's has no answers.

    Answers of another model, prompt or version are certified separately: their errors and scores
    say nothing about these.
    """
    last = {row["analysis_type"]: row["options_hash"] for row in listed}
    answered = {row["options_hash"] for row in listed}
    return {
        kind: question if question in answered else last.get(kind, question)
        for kind, question in today.items()
    }


def _in_order(
    candidates: Sequence[Candidate], seed: str
) -> Mapping[CertificationUnit, Sequence[Candidate]]:
    """Return the answers of each unit in the random order of their checks.

    The order changes when right answers have replaced wrong ones: as only checked answers are known
    to be wrong, the checks in the old order would no longer be a random sample.
    """
    units: dict[CertificationUnit, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        units[candidate.unit].append(candidate)
    for group in units.values():
        drawn = " ".join(
            [seed, *sorted(candidate.about for candidate in group if candidate.is_replaced)]
        )
        group.sort(key=partial(_place, drawn))
    return units


def _place(drawn: str, candidate: Candidate) -> bytes:
    return hashlib.sha256(f"{drawn} {candidate.about}".encode()).digest()


def _labels(listed: Sequence[Row]) -> Iterator[CertificationUnit]:
    """Yield the labels that the classifications could choose from."""
    kind = AnalysisType.CLASSIFICATION
    for row in listed:
        if row["analysis_type"] == kind and (
            labels := json_values.strings(row["question"].get("labels"))
        ):
            yield from (CertificationUnit(kind, label) for label in (*labels, NO_LABEL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The answers of a field or label to check next, in order, to certify it within `bounds`.

    `places` are the positions in the queue at the last certification, by job.
    """

    unit: CertificationUnit
    bounds: Bounds
    places: Mapping[uuid.UUID, int]
    candidates: Sequence[Candidate]


def queue(session: Session, scope: Scope, name: str) -> Queue:
    """Return the answers to check next before a field or label of a scope can be certified.

    `name` is that of the field or label, or the analysis type of answers judged as a whole.

    Raises:
        UsageError: The scope names neither a run nor a profile, or not exactly one unit of this
            name was certified.
    """
    scope.require_name(session)
    in_force = IN_FORCE.read(driver(session), scope.names)
    matching = [
        certificate
        for certificate in in_force
        if name == (certificate["name"] or certificate["analysis_type"])
        and (not scope.types or certificate["analysis_type"] in scope.types)
    ]
    if len(matching) != 1:
        raise _no_queue(name, in_force, is_ambiguous=bool(matching))
    (certificate,) = matching
    unit, draw = _unit_of(certificate), _Draw(seed=certificate["seed"], curves={})
    job_ids = [uuid.UUID(job_id) for job_id in certificate["to_check"]]
    places = {job_id: index for index, job_id in enumerate(job_ids)}
    run_id = scope.run.id if scope.run else None
    listed = judgeable.listed(session, ResultSelection(run_id=run_id, job_ids=tuple(job_ids)))
    candidates = [
        candidate
        for candidate in _candidates(session, listed, draw)
        if candidate.unit == unit and not _is_checked(candidate)
    ]
    return Queue(
        unit=unit,
        bounds=Bounds(max_error=certificate["max_error"], risk=certificate["risk"]),
        places=places,
        candidates=sorted(candidates, key=lambda candidate: places[candidate.job_id]),
    )


def _no_queue(name: str, in_force: Sequence[Row], *, is_ambiguous: bool) -> UsageError:
    if is_ambiguous:
        return UsageError(f"“{name}” belongs to several analysis types.", "Choose one with --type.")
    known = ", ".join(one["name"] or one["analysis_type"] for one in in_force)
    return UsageError(
        f"There is no queue of checks for “{name}” yet.",
        f"There are queues for {known}." if known else "Run `chordwise certify RUN|PROFILE` first.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The random order of a scope, and the calibrations that were in force when it was drawn.

    Calibrations that are learned later, from these checks, change neither the scores nor the order.
    """

    seed: str
    curves: Mapping[Key, Points]

    @classmethod
    def of(cls, session: Session, scope: Scope, questions: Collection[str]) -> _Draw:
        """Return the last draw for answers to these questions, or a new one."""
        values = {**scope.names, "questions": list(questions)}
        for last in SEEDS.read(driver(session), values, limit=1):
            return cls(seed=last["seed"], curves=calibrations.curves(session, last["drawn_at"]))
        drawn_at = clock.read(session)
        return cls(seed=secrets.token_hex(16), curves=calibrations.curves(session, drawn_at))

    def worth(self, result: Row) -> Worth:
        """Return a function that calibrates the confidences of a result."""

        def worth(part: JudgedPart, claim: float) -> float:
            columns = {name: result[name] for name in ("analysis_type", "provider", "model")}
            points = self.curves.get(Key(part=part, **columns))
            return claim if points is None else calibration.calibrate(points, claim)

        return worth


def _candidates(session: Session, listed: Sequence[Row], draw: _Draw) -> list[Candidate]:
    """Return all answers with the feedback on them."""
    feedback = stored_feedback.by_document(session, (row["document_id"] for row in listed))
    remarks = [remark for group in feedback.values() for remark in group]
    disputed = [remark.job_id for remark in remarks if remark.verdict != _APPROVED]
    hashes = jobs.hashes(session, disputed)
    return [
        candidate
        for result in judgeable.read(session, listed)
        for candidate in _of_result(result, feedback[result["document_id"]], draw, hashes)
    ]


def _of_result(
    result: Row, feedback: Sequence[Feedback], draw: _Draw, hashes: Mapping[uuid.UUID, str]
) -> Iterator[Candidate]:
    """Yield the parts of an answer; `hashes` are the identities of the questions of some jobs."""
    kind, answer = result["analysis_type"], result["answer"]
    about_it = stored_feedback.applicable(feedback, kind, result["question"])
    truth = judgeable.truth_of(kind, about_it)
    is_right = correct_by_field(answer, truth) if about_it else {}
    is_of_fields = kind == AnalysisType.EXTRACTION
    were_wrong = {
        fields.top(remark.field or "") if is_of_fields else ""
        for remark in about_it
        if hashes.get(remark.job_id) == result["options_hash"]
        and remark.verdict != _APPROVED
        and remark.judged != remark.corrected
        and remark.result_id != result["result_id"]
    }
    for part in certification.scored(answer, result["agreement"], draw.worth(result)):
        judged = is_right.get(part.name if is_of_fields else "")
        yield Candidate(
            unit=CertificationUnit(kind, part.name),
            job_id=result["job_id"],
            result_id=result["result_id"],
            source=result["source"],
            path=part.path,
            paths=part.paths,
            created_at=result["created_at"],
            about=f"{result['document_id']} {result['options_hash']} {part.name}",
            answer=ScoredAnswer(part.score, judged),
            is_refuted=is_refuted(answer, truth, part.name if is_of_fields else ""),
            is_replaced=judged is True and not were_wrong.isdisjoint({"", part.name}),
        )


def _certified(unit: CertificationUnit, basis: _Basis, bounds: Bounds, risk: float) -> Certified:
    """Certify a unit again, or keep its certificate if only later answers lack checks.

    What the checks of later answers have refuted is not certified again, although the rate of
    errors among all answers may be within the bound. `risk` is the part of the total risk that the
    unit gets.
    """
    candidates, before = basis.units[unit], basis.before.get(unit)
    answers = [candidate.answer for candidate in candidates]
    certificate = certification.certify(answers, bounds.max_error, risk)
    is_certified = before is not None and before["verdict"] == CertificationVerdict.CERTIFIED
    accept_from = before["accept_from"] if before and is_certified else certificate.accept_from
    later = _later(candidates, basis.since.get(unit), accept_from)
    further, wrong = _checks(later)
    if statistics.is_above(further, wrong, bounds.max_error, risk):
        certificate = replace(
            certificate, verdict=CertificationVerdict.WITHDRAWN, accepted=0, accept_from=None
        )
    is_open = is_certified and bool(later) and certificate.verdict is CertificationVerdict.OPEN
    is_kept = before is not None and is_open and _holds(candidates, before, bounds, risk)
    if before is not None and is_kept:
        accepted = sum(
            candidate.answer.score >= (before["accept_from"] or 0) for candidate in candidates
        )
        certificate = replace(
            certificate,
            verdict=CertificationVerdict.CERTIFIED,
            accepted=accepted,
            acceptable=accepted,
            accept_from=before["accept_from"],
            error_bound=before["error_bound"],
        )
    return Certified(
        unit=unit,
        certificate=certificate,
        is_kept=is_kept,
        further=further,
        further_wrong=wrong,
        to_check=_to_check(candidates, certificate, later)[:_MAX_TO_CHECK],
    )


def _to_check(
    candidates: Sequence[Candidate], certificate: Certificate, later: Sequence[Candidate]
) -> Sequence[Candidate]:
    """Return the answers that lack checks, in order; of a certified unit, later ones come first."""
    start = certificate.check_from
    unchecked = [candidate for candidate in candidates if not _is_checked(candidate)]
    to_check = [
        candidate for candidate in unchecked if start is None or candidate.answer.score >= start
    ]
    if certificate.verdict in {CertificationVerdict.CERTIFIED, CertificationVerdict.WITHDRAWN}:
        of_later = {candidate.about for candidate in later}
        to_check.sort(key=lambda candidate: candidate.about not in of_later)
    return to_check


def _holds(candidates: Sequence[Candidate], before: Row, bounds: Bounds, risk: float) -> bool:
    """Return whether the checks of the certified answers still support the earlier certificate.

    They do not if the bounds are narrower now, or if so many answers became wrong that they would
    not be certified again.
    """
    if before["error_bound"] > bounds.max_error or before["risk"] > bounds.risk:
        return False
    accept_from = before["accept_from"] or 0
    certified = [
        candidate
        for candidate in candidates
        if candidate.created_at <= before["certified_at"] and candidate.answer.score >= accept_from
    ]
    checks, wrong = _checks(certified)
    population, checks = max(len(certified), before["accepted"]), max(checks, before["checks"])
    further = statistics.further_checks(population, checks, wrong, bounds.max_error, risk)
    return bool(wrong <= before["wrong"] or further == 0)


def _later(
    candidates: Sequence[Candidate], since: Row | None, accept_from: float | None
) -> list[Candidate]:
    """Return the answers from a score on that were created after their unit was first certified."""
    if since is None or accept_from is None:
        return []
    return [
        candidate
        for candidate in candidates
        if candidate.created_at > since["certified_at"] and candidate.answer.score >= accept_from
    ]


def _checks(candidates: Sequence[Candidate]) -> tuple[int, int]:
    """Return how many answers precede the first unchecked one, and how many of them are wrong."""
    checked = list(takewhile(_is_checked, candidates))
    return len(checked), sum(candidate.answer.is_right is False for candidate in checked)


def _is_checked(candidate: Candidate) -> bool:
    return candidate.answer.is_right is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """The computed certificates, and the `ids` of the certifications that will be in force.

    Both methods lock the certifications.
    """

    basis: _Basis
    done: Sequence[Certified]
    marks: Sequence[AcceptanceMark]
    ids: Mapping[CertificationUnit, uuid.UUID]

    def is_current(self, session: Session) -> bool:
        """Return whether no certification was stored and no run pruned since the basis was read."""
        if run := self.basis.scope.run:
            hold = {"read": True, "key_share": True}
            if session.get(Run, run.id, with_for_update=hold) is None:
                return False
        return self._in_force(session) == set(self.basis.in_force.values())

    def is_in_force(self, session: Session) -> bool:
        """Return whether the certifications of this round are the newest."""
        return self._in_force(session) == set({**self.basis.in_force, **self.ids}.values())

    def _in_force(self, session: Session) -> set[uuid.UUID]:
        certifications.lock(session)
        in_force = IN_FORCE.read(driver(session), self.basis.scope.names)
        return {certificate["id"] for certificate in in_force}


def _round(basis: _Basis, bounds: Bounds) -> _Round:
    risk = bounds.risk / max(1, basis.parts)
    done = [_certified(unit, basis, bounds, risk) for unit in sorted(basis.units)]
    ids = {one.unit: basis.before[one.unit]["id"] if one.is_kept else new_id() for one in done}
    return _Round(basis=basis, done=done, marks=list(_marks(done, basis)), ids=ids)


def _store(session: Session, certified: _Round, recorded: Occurrence | None) -> int:
    """Store the certificates and unmark answers that are no longer accepted.

    Of a kept certificate only the answers to check are stored. Returns 0 if another process has
    certified the scope meanwhile. A repeated transaction whose first commit succeeded finds its own
    certificates in force.
    """
    if not certified.is_current(session):
        return int(certified.is_in_force(session))
    for mark in certified.marks:
        certifications.accept(session, mark, may_add=False)
    for decision in certified.done:
        to_check: JsonValue = [str(candidate.job_id) for candidate in decision.to_check]
        if decision.is_kept:
            session.get_one(Certification, certified.ids[decision.unit]).to_check = to_check
        else:
            session.add(_row(decision, certified, to_check))
    session.flush()
    if recorded is not None:
        _record(recorded, session, certified)
    return 1


def _mark(session: Session, certified: _Round, mark: AcceptanceMark) -> int:
    """Mark newly accepted answers, unless another process has certified the scope meanwhile."""
    if not certified.is_in_force(session):
        return 0
    return certifications.accept(session, mark, may_add=True)


def _marks(done: Sequence[Certified], basis: _Basis) -> Iterator[AcceptanceMark]:
    """Yield the accepted and refused answers in batches of jobs."""
    paths: dict[uuid.UUID, list[str]] = defaultdict(list)
    results: dict[uuid.UUID, uuid.UUID] = {}
    refused: set[uuid.UUID] = set()
    for decision in done:
        accept_from = decision.certificate.accept_from
        for candidate in basis.units[decision.unit]:
            results[candidate.job_id] = candidate.result_id
            is_low = accept_from is None or candidate.answer.score < accept_from
            if is_low or candidate.is_refuted:
                refused.add(candidate.job_id)
            else:
                paths[candidate.job_id] += candidate.paths
    for batch in judgeable.batches(sorted(results, key=results.__getitem__)):
        yield AcceptanceMark(
            results={job_id: results[job_id] for job_id in batch},
            values=[(job_id, path) for job_id in batch for path in paths[job_id]],
            whole=set(batch) - refused,
            are_newest=not basis.scope.run,
        )


def _row(decision: Certified, certified: _Round, to_check: JsonValue) -> Certification:
    basis, kind = certified.basis, decision.unit.analysis_type
    return Certification(
        id=certified.ids[decision.unit],
        run_id=basis.scope.run.id if basis.scope.run else None,
        run=basis.scope.run_name,
        profile=basis.scope.profile,
        analysis_type=kind,
        name=decision.unit.name,
        question=basis.questions.get(kind, ""),
        seed=basis.seed,
        risk=basis.risk,
        to_check=to_check,
        certified_at=basis.certified_at,
        **asdict(decision.certificate),
    )
