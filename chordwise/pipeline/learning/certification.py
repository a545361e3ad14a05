"""Certification: which answers may be accepted without review, from checks in random order.

One transaction stores the certificates, and unmarks the answers that are no longer accepted. Newly
accepted answers are marked afterwards, as long as the certificates are in force: a process that is
killed in between leaves too few marks, never too many, and the next call sets them. If another
process has certified the scope meanwhile, everything is computed again, so the result is that of
two successive certifications.

The risk holds for all fields and labels together: each gets an equal part of it (Bonferroni),
including labels that were not chosen yet, so that a newly chosen label does not weaken earlier
certificates.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import certification, fields, statistics, truths
from chordwise.domain.learning.certification import Certificate, CertificationVerdict
from chordwise.domain.learning.judgments import JudgedPart, correct_by_field, is_refuted
from chordwise.domain.learning.statistics import Points
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import RegressionError, UsageError
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.learning.scope import Scope
from chordwise.pipeline.runtime.context import Occurrence
from chordwise.relations.judgments import FIRST, IN_FORCE, SEEDS
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
Unit: TypeAlias = tuple[AnalysisType, str]
"""A field, one that is not mentioned, a label, or the whole answers of a type (an empty name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The highest allowed share of wrong accepted answers, and the risk of exceeding it."""

    max_error: float = 0.02
    risk: float = 0.05


def certify(
    database: Database,
    scope: Scope,
    bounds: Bounds,
    occurrence: Occurrence | None = None,
) -> Sequence[Row]:
    """Certify each field and label of a scope, store the certificates and mark accepted answers.

    A row has the `certificate` of a field or label, the answers `to_check` next, and the numbers of
    checks of later answers: those created after the first certification. Later answers are accepted
    from the same score on, until `later_wrong` shows that too many are wrong.

    Raises:
        UsageError: The scope names neither a run nor a profile.
        RegressionError: An `occurrence` has withdrawn a certificate.
    """
    commit = occurrence.write if occurrence else database.commit
    recorded = occurrence if occurrence and occurrence.outcome() is None else None
    while True:
        with database.read() as session:
            certified = _read(session, scope, bounds)
        certified.certify()
        marks = list(certified.marks())
        if commit(partial(_store, certified=certified, marks=marks, recorded=recorded)):
            break
    for mark in marks:
        commit(partial(_mark, certified=certified, mark=mark))
    outcome = occurrence.outcome() if occurrence else None
    if withdrawn := json_values.strings((outcome or {}).get("withdrawn")):
        raise RegressionError(
            f"Certificates withdrawn after later checks: {', '.join(withdrawn)}.",
            "Their answers are no longer accepted; `chordwise certify` shows the checks.",
        )
    return list(certified.rows.values())


def _read(session: Session, scope: Scope, bounds: Bounds) -> _Round:
    scope.require_name(session)
    # First, so that `_Round.is_current` notices what is stored while the rest is read.
    in_force = _by_unit(IN_FORCE.read(driver(session), scope.names))
    certified_at = clock.read(session)
    every = replace(scope.selection, types=tuple(scope.identities))
    listed = scopes.listed(session, every, scope.questions)
    questions = {} if scope.run else _answered(listed, scope.identities)
    hashes = set(questions.values()) or {""}
    listed = [row for row in listed if not questions or row["options_hash"] in hashes]
    # Calibrations that are learned after the draw, from its checks, do not change the order.
    seed, drawn_at = secrets.token_hex(16), certified_at
    for last in SEEDS.read(driver(session), {**scope.names, "questions": list(hashes)}, limit=1):
        seed, drawn_at = last["seed"], last["drawn_at"]
    units: dict[Unit, list[Row]] = defaultdict(list)
    curves = calibrations.curves(session, drawn_at)
    for candidate in _candidates(session, listed, curves):
        units[candidate["unit"]].append(candidate)
    parts = len({(kind, certification.part_of(name)) for kind, name in [*units, *_labels(listed)]})
    first = FIRST.read(driver(session), {"seed": seed, "questions": list(hashes)})
    return _Round(
        scope=scope,
        bounds=bounds,
        part_risk=bounds.risk / max(1, parts),
        seed=seed,
        questions=questions,
        certified_at=certified_at,
        units={
            unit: _in_order(candidates, seed)
            for unit, candidates in sorted(units.items())
            if not scope.types or unit[0] in scope.types
        },
        before={
            unit: row
            for unit, row in in_force.items()
            if row["seed"] == seed and row["question"] in hashes
        },
        first=_by_unit(first),
        ids_before={unit: row["id"] for unit, row in in_force.items()},
    )


def _by_unit(certificates: Sequence[Row]) -> Mapping[Unit, Row]:
    return {(AnalysisType(row["analysis_type"]), row["name"]): row for row in certificates}


def _answered(
    listed: Sequence[Row], today: Mapping[AnalysisType, str]
) -> Mapping[AnalysisType, str]:
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


def _in_order(candidates: Sequence[Row], seed: str) -> Sequence[Row]:
    """Return the answers of a unit in the random order of their checks.

    The order changes when right answers have replaced wrong ones: as only checked answers are known
    to be wrong, the checks in the old order would no longer be a random sample.
    """
    replaced = sorted(one["about"] for one in candidates if one["is_replaced"])
    drawn = " ".join([seed, *replaced])
    return sorted(
        candidates, key=lambda one: hashlib.sha256(f"{drawn} {one['about']}".encode()).digest()
    )


def _labels(listed: Sequence[Row]) -> Iterator[Unit]:
    kind = AnalysisType.CLASSIFICATION
    for row in listed:
        if row["analysis_type"] == kind and (
            labels := json_values.strings(row["question"].get("labels"))
        ):
            yield from ((kind, label) for label in (*labels, NO_LABEL))


def queue(session: Session, scope: Scope, name: str) -> Row:
    """Return the certificate in force of a field or label with the `candidates` to check, in order.

    The `place` of one is its position at the last certification. `name` may be an analysis type.

    Raises:
        UsageError: The scope names neither a run nor a profile, or there is not one certificate.
    """
    scope.require_name(session)
    in_force = IN_FORCE.read(driver(session), scope.names)
    matching = [
        certificate
        for certificate in in_force
        if name == (certificate["name"] or certificate["analysis_type"])
        and (not scope.types or certificate["analysis_type"] in scope.types)
    ]
    if len(matching) > 1:
        raise UsageError(f"“{name}” belongs to several analysis types.", "Choose one with --type.")
    if not matching:
        known = ", ".join(one["name"] or one["analysis_type"] for one in in_force)
        raise UsageError(
            f"There is no queue of checks for “{name}” yet.",
            f"There are queues for {known}."
            if known
            else "Run `chordwise certify RUN|PROFILE` first.",
        )
    (certificate,) = matching
    places = {uuid.UUID(job_id): place for place, job_id in enumerate(certificate["to_check"])}
    selection = ResultSelection(run_id=scope.selection.run_id, job_ids=tuple(places))
    candidates = [
        {**candidate, "place": places[candidate["job_id"]]}
        for candidate in _candidates(session, scopes.listed(session, selection), {})
        if candidate["unit"] == (certificate["analysis_type"], certificate["name"])
        and candidate["is_right"] is None
    ]
    return {**certificate, "candidates": sorted(candidates, key=lambda one: one["place"])}


def _candidates(
    session: Session, listed: Sequence[Row], curves: Mapping[Key, Points]
) -> Iterator[Row]:
    """Yield the parts of all answers that are certified, with their scores and their checks.

    `path` is where a person judges a part, and `paths` are its facts in the job's output. The
    random order of the checks depends on `about`: the document, the question and the unit. A part
    that `is_refuted` is not accepted, whatever its score. One that `is_replaced` is right, and an
    earlier answer to the same question was wrong.
    """
    feedback = stored_feedback.by_document(session, (row["document_id"] for row in listed))
    remarks = [remark for group in feedback.values() for remark in group]
    disputed = [remark.job_id for remark in remarks if remark.verdict != truths.Verdict.APPROVED]
    hashes = jobs.hashes(session, disputed)
    for result in scopes.read(session, listed):
        yield from _parts(result, feedback[result["document_id"]], curves, hashes)


def _parts(
    result: Row,
    feedback: Sequence[Feedback],
    curves: Mapping[Key, Points],
    hashes: Mapping[uuid.UUID, str],
) -> Iterator[Row]:
    """Yield the parts of an answer; `hashes` are the identities of the questions of some jobs."""
    kind, answer = result["analysis_type"], result["answer"]
    about_it = stored_feedback.applicable(feedback, kind, result["question"])
    truth = scopes.truth_of(kind, about_it)
    is_right = correct_by_field(answer, truth) if about_it else {}
    is_of_fields = kind == AnalysisType.EXTRACTION
    were_wrong = {
        fields.top(remark.field or "") if is_of_fields else ""
        for remark in about_it
        if hashes.get(remark.job_id) == result["options_hash"]
        and remark.verdict != truths.Verdict.APPROVED
        and remark.judged != remark.corrected
        and remark.result_id != result["result_id"]
    }

    def worth(part: JudgedPart, claim: float) -> float:
        columns = {name: result[name] for name in ("analysis_type", "provider", "model")}
        points = curves.get(Key(part=part, **columns))
        return claim if points is None else statistics.calibrate(points, claim)

    for part in certification.scored(answer, result["agreement"], worth):
        judged = is_right.get(part.name if is_of_fields else "")
        yield {
            **{name: result[name] for name in ("job_id", "result_id", "source", "created_at")},
            "unit": (kind, part.unit),
            "path": part.path,
            "paths": part.paths,
            "about": f"{result['document_id']} {result['options_hash']} {part.name}",
            "score": part.score,
            "is_right": judged,
            "is_refuted": is_refuted(answer, truth, part.name if is_of_fields else ""),
            "is_replaced": judged is True and not were_wrong.isdisjoint({"", part.name}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """The answers of a scope in the order of their checks, and their new certificates.

    `part_risk` is the part of the risk of each field and label. `before` are the certifications in
    force with the same order of checks, and `first` the first certificates in this order.
    `ids_before` are the ids of all certifications in force, and `ids` those of the new ones.
    `questions` are those of a profile that were answered, as in `jobs.options_hash`.
    """

    scope: Scope
    bounds: Bounds
    part_risk: float
    seed: str
    questions: Mapping[AnalysisType, str]
    certified_at: datetime
    units: Mapping[Unit, Sequence[Row]]
    before: Mapping[Unit, Row]
    first: Mapping[Unit, Row]
    ids_before: Mapping[Unit, uuid.UUID]
    rows: dict[Unit, Row] = field(default_factory=dict)
    ids: dict[Unit, uuid.UUID] = field(default_factory=dict)

    def certify(self) -> None:
        """Certify each unit again, or keep its certificate if only later answers lack checks.

        What the checks of later answers have refuted is not certified again, although the rate of
        errors among all answers may be within the bound.
        """
        for unit, candidates in self.units.items():
            before, max_error = self.before.get(unit), self.bounds.max_error
            risk = self._risk(unit)
            certificate = certification.certify(
                [(one["score"], one["is_right"]) for one in candidates], max_error, risk
            )
            accept_from = certificate.accept_from
            if before and before["verdict"] == CertificationVerdict.CERTIFIED:
                accept_from = before["accept_from"]
            else:
                before = None
            later = self._later(unit, accept_from)
            further, wrong = certification.counted_checks(one["is_right"] for one in later)
            if statistics.is_above(further, wrong, max_error, risk):
                withdrawn = CertificationVerdict.WITHDRAWN
                certificate = replace(certificate, verdict=withdrawn, accepted=0, accept_from=None)
            is_open = bool(later) and certificate.verdict is CertificationVerdict.OPEN
            if before and is_open and self._holds(unit, before):
                accepted = [
                    one["is_right"] for one in candidates if one["score"] >= before["accept_from"]
                ]
                certificate = replace(
                    certificate,
                    verdict=CertificationVerdict.CERTIFIED,
                    accepted=len(accepted),
                    acceptable=len(accepted),
                    accept_from=before["accept_from"],
                    error_bound=before["error_bound"],
                    checks=len(accepted) - accepted.count(None),
                    wrong=accepted.count(False),
                    more_checks=None,
                    check_from=before["accept_from"],
                )
                self.ids[unit] = before["id"]
            else:
                self.ids[unit] = new_id()
            kind, name = unit
            self.rows[unit] = {
                "analysis_type": kind,
                "name": name,
                "certificate": certificate,
                "later_checks": further,
                "later_wrong": wrong,
                "to_check": _to_check(candidates, certificate, later),
            }

    def _later(self, unit: Unit, accept_from: float | None) -> Sequence[Row]:
        first = self.first.get(unit)
        if first is None or accept_from is None:
            return []
        return [
            candidate
            for candidate in self.units[unit]
            if candidate["created_at"] > first["certified_at"] and candidate["score"] >= accept_from
        ]

    def _risk(self, unit: Unit) -> float:
        """Return the part of a unit; values of a field and its absences share that of the field."""
        kind, name = unit
        strata = [
            other
            for other in self.units
            if other[0] == kind and certification.part_of(other[1]) == certification.part_of(name)
        ]
        return self.part_risk / len(strata)

    def _holds(self, unit: Unit, before: Row) -> bool:
        """Return whether the checks of the certified answers still support a certificate.

        They do not if the bounds are narrower now, or if so many answers became wrong that they
        would not be certified again.
        """
        max_error = self.bounds.max_error
        if before["error_bound"] > max_error or before["risk"] > self.bounds.risk:
            return False
        certified = [
            candidate["is_right"]
            for candidate in self.units[unit]
            if candidate["created_at"] <= before["certified_at"]
            and candidate["score"] >= before["accept_from"]
        ]
        checks, wrong = certification.counted_checks(certified)
        population, checks = max(len(certified), before["accepted"]), max(checks, before["checks"])
        further = statistics.further_checks(population, checks, wrong, max_error, self._risk(unit))
        return bool(wrong <= before["wrong"] or further == 0)

    def marks(self) -> Iterator[AcceptanceMark]:
        """Yield the accepted and refused answers in batches of jobs."""
        paths: dict[uuid.UUID, list[str]] = defaultdict(list)
        results: dict[uuid.UUID, uuid.UUID] = {}
        refused: set[uuid.UUID] = set()
        for unit, row in self.rows.items():
            accept_from = row["certificate"].accept_from
            for candidate in self.units[unit]:
                job_id = candidate["job_id"]
                results[job_id] = candidate["result_id"]
                is_low = accept_from is None or candidate["score"] < accept_from
                if is_low or candidate["is_refuted"]:
                    refused.add(job_id)
                else:
                    paths[job_id] += candidate["paths"]
        for batch in scopes.batches(sorted(results, key=results.__getitem__)):
            yield AcceptanceMark(
                results={job_id: results[job_id] for job_id in batch},
                values=[(job_id, path) for job_id in batch for path in paths[job_id]],
                whole=set(batch) - refused,
                are_newest=not self.scope.run,
            )

    def is_current(self, session: Session) -> bool:
        """Lock the certifications; return whether none was stored and no run pruned meanwhile."""
        if run := self.scope.run:
            hold = {"read": True, "key_share": True}
            if session.get(Run, run.id, with_for_update=hold) is None:
                return False
        return self._are_in_force(session, self.ids_before)

    def is_in_force(self, session: Session) -> bool:
        """Lock the certifications; return whether those of this round are the newest."""
        return self._are_in_force(session, {**self.ids_before, **self.ids})

    def _are_in_force(self, session: Session, ids: Mapping[Unit, uuid.UUID]) -> bool:
        certifications.lock(session)
        in_force = IN_FORCE.read(driver(session), self.scope.names)
        return {certificate["id"] for certificate in in_force} == set(ids.values())


def _to_check(
    candidates: Sequence[Row], certificate: Certificate, later: Sequence[Row]
) -> Sequence[Row]:
    """Return the answers that lack checks, in order; of a certified unit, later ones come first."""
    start = certificate.check_from
    to_check = [
        candidate
        for candidate in candidates
        if candidate["is_right"] is None and (start is None or candidate["score"] >= start)
    ]
    if certificate.verdict in {CertificationVerdict.CERTIFIED, CertificationVerdict.WITHDRAWN}:
        of_later = {candidate["about"] for candidate in later}
        to_check.sort(key=lambda candidate: candidate["about"] not in of_later)
    columns = ("source", "job_id", "paths")
    return [{name: row[name] for name in columns} for row in to_check[:_MAX_TO_CHECK]]


def _store(
    session: Session,
    certified: _Round,
    marks: Sequence[AcceptanceMark],
    recorded: Occurrence | None,
) -> int:
    """Store the certificates and unmark answers that are no longer accepted.

    Of a kept certificate only the answers to check are stored. Returns 0 if another process has
    certified the scope meanwhile. A repeated transaction whose first commit succeeded finds its own
    certificates in force.
    """
    if not certified.is_current(session):
        return int(certified.is_in_force(session))
    for mark in marks:
        certifications.accept(session, mark, may_add=False)
    scope = certified.scope
    for unit, row in certified.rows.items():
        to_check: JsonValue = [str(candidate["job_id"]) for candidate in row["to_check"]]
        if (id_ := certified.ids[unit]) in certified.ids_before.values():
            session.get_one(Certification, id_).to_check = to_check
            continue
        certification_row = Certification(
            id=id_,
            run_id=scope.selection.run_id,
            **scope.names,
            analysis_type=row["analysis_type"],
            name=row["name"],
            question=certified.questions.get(row["analysis_type"], ""),
            seed=certified.seed,
            risk=certified.bounds.risk,
            to_check=to_check,
            certified_at=certified.certified_at,
            **asdict(row["certificate"]),
        )
        session.add(certification_row)
    session.flush()
    if recorded is not None:
        verdicts = Counter(row["certificate"].verdict for row in certified.rows.values())
        outcome: JsonObject = {verdict: verdicts[verdict] for verdict in CertificationVerdict}
        withdrawn: list[JsonValue] = [
            row["name"] or row["analysis_type"]
            for row in certified.rows.values()
            if row["certificate"].verdict is CertificationVerdict.WITHDRAWN
        ]
        if withdrawn:
            outcome = {"profile": certified.scope.profile, "withdrawn": withdrawn}
        recorded.record_in(session, outcome, DeliveryEvent.ANSWERS_REGRESSED if withdrawn else "")
    return 1


def _mark(session: Session, certified: _Round, mark: AcceptanceMark) -> int:
    if not certified.is_in_force(session):
        return 0
    return certifications.accept(session, mark, may_add=True)
