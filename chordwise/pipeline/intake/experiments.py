"""Experiments at intake: which variant answers a document, and what stops a variant."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import structlog
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.experiments import (
    CONTROL,
    Observation,
    Outcome,
    assign,
    evidence,
    exceeds,
)
from chordwise.domain.tasks import options_to_json
from chordwise.errors import ConfigurationError
from chordwise.pipeline.intake.batches import Asked, Group, NewDocument
from chordwise.pipeline.intake.run_options import RunOptions, from_json
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import deliveries, experiments, intakes
from chordwise.storage.database import Database
from chordwise.storage.experiments import AnsweredJob, Experiment, ExperimentVariant
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

CHECK_INTERVAL = timedelta(minutes=1)
"""How long intake waits between two checks of the guardrails of an experiment."""
Write: TypeAlias = Callable[[Callable[[Session], int]], int]
"""Runs a transaction."""
Known: TypeAlias = tuple[float, datetime]
"""An outcome, and when it became known."""


def asked_of(options: RunOptions) -> JsonObject:
    """Return what a run asks, and where its answers go: that of a profile is its experiment's."""
    return {
        "types": [each.value for each in options.types],
        "save_as": options.save_as,
        "model": options.model,
        **options_to_json(options.analysis),
    }


class Trial:
    """Gives the documents of a run to the variants of the experiment with its profile, if any."""

    def __init__(self, context: Context, asked: Asked) -> None:
        self._context = context
        self._asked = asked
        self._own = asked_of(asked.options)
        self._of_variants: dict[tuple[uuid.UUID, str, uuid.UUID], Asked | None] = {}
        self._is_on = False

    def check(self) -> None:
        """Check the guardrails where documents have gone into an experiment, from time to time."""
        if self._is_on:
            check(self._context.database, CHECK_INTERVAL)

    def groups(
        self, session: Session, documents: Mapping[uuid.UUID, NewDocument]
    ) -> Sequence[Group]:
        """Return the documents, given by their intakes, with what is asked of them.

        Further answers to paired ones have intakes of their own, in the run of the experiment.
        """
        running = (each for each in experiments.running(session) if each.control == self._own)
        experiment = next(running, None)
        self._is_on = experiment is not None
        if experiment is None or not documents:
            return [Group(asked=self._asked, documents=documents)]
        asked: dict[int, Asked] = {}
        divided: dict[int, dict[uuid.UUID, NewDocument]] = defaultdict(dict)
        for place in self._places(session, experiment, documents):
            asked[id(place.asked)] = place.asked
            divided[id(place.asked)][place.intake_id] = place.document
        return [Group(asked=asked[key], documents=each) for key, each in divided.items()]

    def _places(
        self,
        session: Session,
        experiment: Experiment,
        documents: Mapping[uuid.UUID, NewDocument],
    ) -> Sequence[_Place]:
        """Assign the documents that are new to the experiment to its variants."""
        variants = experiments.variants(session, experiment.id)
        usable = {
            each.name: asked
            for each in variants
            if not each.stopped_at and (asked := self._asked_by(each, self._asked.run))
        }
        known = experiments.documents_in(
            session, experiment.id, {each.id for each in documents.values()}
        )
        places = []
        for intake_id, document in documents.items():
            given = assign(
                experiment.name,
                document.text,
                [each.name for each in variants],
                experiment.share,
                experiment.paired,
            )
            is_new = document.id not in known
            place = _Place(
                intake_id=intake_id,
                document=document,
                variant=given.variant if given.variant in usable else CONTROL,
                asked=usable.get(given.variant, self._asked),
                is_new=is_new,
                is_paired=given.is_paired and is_new and bool(usable),
            )
            places.append(place)
        further = [each for each in variants if each.name in usable]
        places = self._paired(session, experiment, further, places)
        rows = [each.row() for each in places if each.is_new]
        experiments.add_documents(session, experiment.id, rows)
        return places

    def _paired(
        self,
        session: Session,
        experiment: Experiment,
        variants: Sequence[ExperimentVariant],
        places: Sequence[_Place],
    ) -> list[_Place]:
        """Return the places with the further ones of paired documents, if these may be answered."""
        paired = [each for each in places if each.is_paired]
        number = len(paired) * len(variants)
        if not number or not experiments.open_pairs(session, experiment, number):
            return [replace(each, is_paired=False) for each in places]
        run = session.get_one(Run, experiment.run_id)
        further = [
            (place, replace(place, intake_id=new_id(), variant=each.name, asked=asked))
            for each in variants
            if (asked := self._asked_by(each, run))
            for place in paired
        ]
        copies = {copy.intake_id: place.intake_id for place, copy in further}
        intakes.copy_all(session, run.id, copies)
        return [*places, *(copy for _, copy in further)]

    def _asked_by(self, variant: ExperimentVariant, run: Run) -> Asked | None:
        """Return what a variant asks in a run; None where the settings here do not know it."""
        key = (variant.experiment_id, variant.name, run.id)
        if key not in self._of_variants:
            stored = from_json(variant.options, run.name)
            options = replace(
                self._asked.options, analysis=stored.analysis, model=stored.model, name=run.name
            )
            try:
                self._of_variants[key] = Asked.by(self._context, run, options)
            except ConfigurationError as error:
                log.warning("experiment.variant_unknown", variant=variant.name, reason=error.what)
                self._of_variants[key] = None
        return self._of_variants[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A document, by the intake whose jobs ask it, with the variant that answers it."""

    intake_id: uuid.UUID
    document: NewDocument
    variant: str
    asked: Asked
    is_new: bool
    is_paired: bool

    def row(self) -> dict[str, object]:
        return {
            "intake_id": self.intake_id,
            "document_id": self.document.id,
            "variant": self.variant,
            "paired": self.is_paired,
        }


_GUARDED = (Outcome.VALID, Outcome.COST, Outcome.LATENCY)


def check(database: Database, interval: timedelta = timedelta(), write: Write | None = None) -> int:
    """Stop the variants of running experiments that break a guardrail; return how many these are.

    One that was checked within the `interval` is passed over.
    """
    commit = write or database.commit
    with database.read() as session:
        found = experiments.running(session)
    stopped = 0
    for each in found:
        if commit(partial(experiments.claim_check, experiment_id=each.id, interval=interval)):
            with database.read() as session:
                names = [one.name for one in experiments.variants(session, each.id)]
                jobs = experiments.answered(session, each.id)
            for name, because in _broken(each, names, jobs):
                stopped += commit(partial(_stop, experiment=each, variant=name, because=because))
    return stopped


def _broken(
    experiment: Experiment, names: Sequence[str], jobs: Sequence[AnsweredJob]
) -> Iterator[tuple[str, str]]:
    """Yield the variants that break a guardrail, which share the risk, and how they do."""
    bounds = (experiment.max_invalid, experiment.max_cost, experiment.max_latency)
    risk = experiment.risk / (len(_GUARDED) * len(names))
    is_paired = experiment.paired > 0
    for outcome, bound in zip(_GUARDED, bounds, strict=True):
        control = observations(jobs, CONTROL, outcome)
        for name in names:
            found = evidence(control, observations(jobs, name, outcome))
            if exceeds(found, outcome, bound, risk, is_paired=is_paired):
                means = [sum(each) / len(each) for each in (found.variant, found.control)]
                yield name, _SAID[outcome].format(*means)


_SAID = {
    Outcome.VALID: "{:.1%} of its answers are valid, and {:.1%} of the control's.",
    Outcome.COST: "A document costs ${:.6f}, and ${:.6f} by the control.",
    Outcome.LATENCY: "A document takes {:.2f} seconds, and {:.2f} by the control.",
}


def _stop(session: Session, experiment: Experiment, variant: str, because: str) -> int:
    if not experiments.stop(session, experiment.id, variant, because):
        return 0
    named = {"experiment": experiment.name, "variant": variant, "reason": because}
    deliveries.announce_stop(session, {**named, "profile": experiment.profile})
    log.warning("experiment.variant_stopped", **named)
    return 1


def observations(
    jobs: Sequence[AnsweredJob],
    variant: str,
    outcome: Outcome,
    judged: Mapping[uuid.UUID, Known] = MappingProxyType({}),
) -> list[Observation]:
    """Return the outcome of each document that a variant has answered, as far as it is known.

    Of several analyses of a document shares have their mean and amounts their sum. `judged` are
    what people said of answers, by their jobs.
    """
    of_documents: dict[uuid.UUID, list[AnsweredJob]] = defaultdict(list)
    for each in jobs:
        if each.variant == variant:
            of_documents[each.document_id].append(each)
    found = []
    for document_id, answered in of_documents.items():
        known = [
            value
            for each in answered
            if (value := judged.get(each.job_id) or _known(each, outcome)) is not None
        ]
        is_whole = len(known) == len(answered) or outcome is Outcome.RIGHT
        if known and is_whole:
            total = sum(value for value, _ in known)
            observed = Observation(
                document_id=document_id,
                value=total / len(known) if outcome.is_share else total,
                known_at=max(moment for _, moment in known),
            )
            found.append(observed)
    return found


def _known(job: AnsweredJob, outcome: Outcome) -> Known | None:
    """Return an outcome that the stored rows say; None where a job has not ended or lacks it."""
    if job.valid is None or job.finished_at is None or outcome is Outcome.RIGHT:
        return None
    value: float | None = None
    match outcome:
        case Outcome.VALID:
            value = float(job.valid)
        case Outcome.GROUNDED:
            value = job.grounded
        case Outcome.QUALITY:
            value = job.quality
        case Outcome.COST:
            value = None if job.cost_usd is None else float(job.cost_usd)
        case Outcome.LATENCY:
            value = None if job.latency_ms is None else job.latency_ms / 1000
    return None if value is None else (value, job.finished_at)
