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

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.facts import Fact, facts
from chordwise.domain.learning import certification, fields, truths
from chordwise.domain.learning.certification import Answer, Certificate, Verdict
from chordwise.domain.learning.judging import known
from chordwise.domain.learning.truths import LABEL_PATHS
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.learning import evaluation, judgeable
from chordwise.pipeline.learning.evaluation import Scope, Write
from chordwise.pipeline.learning.judgeable import Judgeable
from chordwise.storage import certifications, judgments
from chordwise.storage.certifications import Accepted, Certification
from chordwise.storage.database import Database
from chordwise.storage.judgments import Feedback

_MAX_TO_CHECK = 20


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
    """An answer of a unit about one document; `paths` are where it stands in the job's output.

    `order` is its place in the random order of the checks.
    """

    unit: Unit
    job_id: uuid.UUID
    source: str
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
    database: Database, scope: Scope, bounds: Bounds, write: Write | None = None
) -> Sequence[Certified]:
    """Certify each field and label of a scope, store that, and mark what is accepted.

    The risk holds for all of them together: each one has its part of it (Bonferroni).
    The answers of a certified field or label that came later are accepted from the same score on,
    until checks of them show that more of these is wrong than may be; then it is withdrawn.

    Raises:
        UsageError: There is no such run.
    """
    with database.read() as session:
        wanted, run = evaluation.wanted(session, scope)
        before = certifications.in_force(session, run or "", scope.profile or "")
        seed = before[0].seed if before else secrets.token_hex(16)
        found = _candidates(session, judgeable.listed(session, wanted, scope.question), seed)
    units: dict[Unit, list[Candidate]] = defaultdict(list)
    for each in sorted(found, key=lambda each: each.order):
        units[each.unit].append(each)
    earlier = {Unit(AnalysisType(each.analysis_type), each.name): each for each in before}
    done = [
        _certified(unit, of_unit, earlier.get(unit), replace(bounds, risk=bounds.risk / len(units)))
        for unit, of_unit in sorted(units.items())
    ]
    of = _Of(
        run_id=wanted.run_id,
        run=run or "",
        profile=scope.profile or "",
        seed=seed,
        risk=bounds.risk,
    )
    rows = [_row(each, of) for each in done if not each.is_kept]
    commit = write or database.commit
    commit(partial(_store, rows=rows))
    for change in _marks(done, units):
        commit(change)
    return done


def _candidates(session: Session, listed: Sequence[judgeable.Listed], seed: str) -> list[Candidate]:
    """Return all answers with what people said of them."""
    said: dict[uuid.UUID, list[Feedback]] = defaultdict(list)
    for each in judgments.of_documents(session, sorted({one.document_id for one in listed})):
        said[each.document_id].append(each)
    return [
        candidate
        for result in judgeable.read(session, listed)
        for candidate in _of_result(result, said.get(result.listed.document_id, ()), seed)
    ]


def _of_result(result: Judgeable, said: Sequence[Feedback], seed: str) -> Iterator[Candidate]:
    kind, output = result.listed.analysis_type, result.answer.output
    remarks = [
        judgments.remark(each)
        for each in said
        if (each.analysis_type, each.question) == (kind, result.listed.question)
    ]
    is_right = known(result.answer, truths.from_remarks(kind, remarks)) if remarks else {}
    listed = facts(output, analysis_for(kind))
    if kind is AnalysisType.EXTRACTION:
        for name in fields.names(output):
            entries = fields.entries(output, name)
            own = _at([entry.path for entry in entries], listed)
            claims = [entry.confidence for entry in entries if entry.confidence is not None]
            claim = min(claims, default=result.answer.confidence)
            unit, right = Unit(kind, name), is_right.get(name)
            yield _candidate(result, unit, own, claim, is_right=right, seed=seed)
        return
    label = LABEL_PATHS.get(kind)
    name = json_values.text(json_values.at(output, label)) if label else ""
    unit, claim = Unit(kind, name), result.answer.confidence
    yield _candidate(result, unit, listed, claim, is_right=is_right.get(""), seed=seed)


def _candidate(
    result: Judgeable,
    unit: Unit,
    own: Sequence[Fact],
    claim: float,
    *,
    is_right: bool | None,
    seed: str,
) -> Candidate:
    doubts = result.answer.needs_review + sum(
        fact.grounded is False or fact.value_in_quote is False for fact in own
    )
    named = f"{seed} {result.listed.document_id} {result.result.options_hash} {unit.name}"
    return Candidate(
        unit=unit,
        job_id=result.listed.job_id,
        source=result.listed.source,
        paths=[fact.path for fact in own],
        created_at=result.created_at,
        order=hashlib.sha256(named.encode()).hexdigest(),
        answer=Answer(certification.trust(claim, result.agreement, doubts), is_right),
    )


def _at(paths: Sequence[str], listed: Sequence[Fact]) -> list[Fact]:
    """Return the facts at these paths or below."""
    return [
        fact
        for fact in listed
        if any(fact.path == path or fact.path.startswith(f"{path}/") for path in paths)
    ]


def _certified(
    unit: Unit,
    candidates: Sequence[Candidate],
    before: Certification | None,
    bounds: Bounds,
) -> Certified:
    """Certify a unit anew, or leave it as it was where only later answers have no checks yet."""
    answers = [each.answer for each in candidates]
    certificate = certification.certify(answers, bounds.max_error, bounds.risk)
    later = _later(candidates, before)
    checked = list(takewhile(_is_checked, later))
    wrong = sum(each.answer.is_right is False for each in checked)
    if certification.is_above(len(checked), wrong, bounds.max_error, bounds.risk):
        certificate = replace(certificate, verdict=Verdict.WITHDRAWN, accepted=0, accept_from=None)
    is_kept = bool(later) and certificate.verdict is Verdict.OPEN
    if before is not None and is_kept:
        accepted = sum(each.answer.score >= (before.accept_from or 0) for each in candidates)
        certificate = replace(
            certificate,
            verdict=Verdict.CERTIFIED,
            accepted=accepted,
            accept_from=before.accept_from,
            error_bound=before.error_bound,
        )
    queue = (each for each in candidates if not _is_checked(each))
    start = certificate.check_from
    to_check = [each for each in queue if start is None or each.answer.score >= start]
    return Certified(
        unit=unit,
        certificate=certificate,
        is_kept=is_kept,
        further=len(checked),
        further_wrong=wrong,
        to_check=to_check[:_MAX_TO_CHECK],
    )


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


def _store(session: Session, rows: Sequence[Certification]) -> int:
    session.add_all(rows)
    return len(rows)


def _marks(
    done: Sequence[Certified], units: Mapping[Unit, Sequence[Candidate]]
) -> Iterator[Callable[[Session], int]]:
    """Yield the transactions that mark what is accepted, some jobs at a time."""
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
        yield partial(certifications.accept, job_ids=some, values=values, whole=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Of:
    """What the rows of one certification share."""

    run_id: uuid.UUID | None
    run: str
    profile: str
    seed: str
    risk: float


def _row(each: Certified, of: _Of) -> Certification:
    shared = {name: getattr(of, name) for name in _Of.__dataclass_fields__}
    own = {name: getattr(each.certificate, name) for name in Certificate.__dataclass_fields__}
    unit = {"analysis_type": each.unit.analysis_type, "name": each.unit.name}
    return Certification(**shared, **own, **unit)
