"""Experiments at intake: assigns documents to variants, and stops variants by guardrails."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import options_to_json
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.experiments import (
    CONTROL,
    GuardrailOutcomes,
    Outcome,
    assign,
    exceeds,
)
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import ConfigurationError
from chordwise.pipeline.intake.document_batches import Group, NewDocument, RunQuestions
from chordwise.pipeline.intake.run_options import RunOptions, from_json
from chordwise.pipeline.runtime.context import Context, Write
from chordwise.storage import deliveries, experiments, intakes
from chordwise.storage.database import Database
from chordwise.storage.experiments import Experiment, ExperimentDocument, ExperimentVariant
from chordwise.storage.record import insert_all, new_id
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

CHECK_INTERVAL = timedelta(minutes=1)
"""The minimum time between two checks of the guardrails of an experiment at intake."""


def experiment_key(options: RunOptions) -> JsonObject:
    """Return what identifies the experiment of a run: its questions and its table of answers.

    A run belongs to an experiment if this value equals the control of the experiment.
    """
    return {
        "types": list(options.types),
        "save_as": options.save_as,
        "model": options.model,
        **options_to_json(options.analysis),
    }


class VariantAssignment:
    """Assigns the documents of a run to the variants of the experiment on its options, if any."""

    def __init__(self, context: Context, run_questions: RunQuestions) -> None:
        self._context = context
        self._run_questions = run_questions
        options = run_questions.options
        self._key = None if options.is_refresh else experiment_key(options)
        self._of_variants: dict[tuple[uuid.UUID, str, uuid.UUID], RunQuestions | None] = {}
        self._has_experiment = False

    def check(self) -> None:
        """Check the guardrails periodically if documents were assigned to an experiment."""
        if self._has_experiment:
            check(self._context.database, CHECK_INTERVAL)

    def groups(
        self, session: Session, documents: Mapping[uuid.UUID, NewDocument]
    ) -> Sequence[Group]:
        """Return the documents, which are given by intake id, grouped by what is asked of them.

        The additional answers for paired documents have separate intakes in the run of the
        experiment.
        """
        running = (row for row in experiments.running(session) if row.control == self._key)
        experiment = next(running, None)
        self._has_experiment = experiment is not None
        if experiment is None or not documents:
            return [Group(run_questions=self._run_questions, documents=documents)]
        divided: dict[int, list[_Place]] = defaultdict(list)
        for place in self._places(session, experiment, documents):
            divided[id(place.run_questions)].append(place)
        return [
            Group(
                run_questions=places[0].run_questions,
                documents={place.intake_id: place.document for place in places},
            )
            for places in divided.values()
        ]

    def _places(
        self,
        session: Session,
        experiment: Experiment,
        documents: Mapping[uuid.UUID, NewDocument],
    ) -> Sequence[_Place]:
        """Assign documents to the variants of an experiment, and record the new ones."""
        run, variants = self._run_questions.run, experiments.variants(session, experiment.id)
        usable = {
            variant.name: questions
            for variant in variants
            if not variant.stopped_at and (questions := self._questions_of(variant, run))
        }
        known_ids = experiments.documents_in(
            session, experiment.id, {document.id for document in documents.values()}
        )
        places = []
        for intake_id, document in documents.items():
            assignment = assign(
                experiment.name,
                document.text,
                [variant.name for variant in variants],
                experiment.share,
                experiment.paired,
            )
            is_new = document.id not in known_ids
            place = _Place(
                intake_id=intake_id,
                document=document,
                variant=assignment.variant if assignment.variant in usable else CONTROL,
                run_questions=usable.get(assignment.variant, self._run_questions),
                is_new=is_new,
                is_paired=assignment.is_paired and is_new and bool(usable),
            )
            places.append(place)
        further = [variant for variant in variants if variant.name in usable]
        places = self._paired(session, experiment, further, places)
        rows = [
            {
                "intake_id": place.intake_id,
                "document_id": place.document.id,
                "variant": place.variant,
                "paired": place.is_paired,
            }
            for place in places
            if place.is_new
        ]
        insert_all(session, ExperimentDocument, rows, experiment_id=experiment.id)
        return places

    def _paired(
        self,
        session: Session,
        experiment: Experiment,
        variants: Sequence[ExperimentVariant],
        places: Sequence[_Place],
    ) -> list[_Place]:
        """Return the places, with additional ones for paired documents if these are permitted."""
        paired = [place for place in places if place.is_paired]
        number = len(paired) * len(variants)
        if not number or not experiments.open_pairs(session, experiment, number):
            return [replace(place, is_paired=False) for place in places]
        run = session.get_one(Run, experiment.run_id)
        further = [
            (
                place,
                replace(place, intake_id=new_id(), variant=variant.name, run_questions=questions),
            )
            for variant in variants
            if (questions := self._questions_of(variant, run))
            for place in paired
        ]
        copies = {copy.intake_id: place.intake_id for place, copy in further}
        intakes.copy_all(session, run.id, copies)
        return [*places, *(copy for _, copy in further)]

    def _questions_of(self, variant: ExperimentVariant, run: Run) -> RunQuestions | None:
        """Return what a variant asks in a run; `None` if the settings lack its model."""
        key = (variant.experiment_id, variant.name, run.id)
        if key not in self._of_variants:
            variant_options = from_json(variant.options, run.name)
            options = replace(
                self._run_questions.options,
                analysis=variant_options.analysis,
                model=variant_options.model,
                name=run.name,
            )
            try:
                self._of_variants[key] = RunQuestions.of(self._context, run, options)
            except ConfigurationError as error:
                log.warning("experiment.variant_unknown", variant=variant.name, reason=error.what)
                self._of_variants[key] = None
        return self._of_variants[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A document with the intake of its jobs and the variant that answers it."""

    intake_id: uuid.UUID
    document: NewDocument
    variant: str
    run_questions: RunQuestions
    is_new: bool
    is_paired: bool


_GUARDED = (Outcome.VALID, Outcome.COST, Outcome.LATENCY)


def check(database: Database, interval: timedelta = timedelta(), write: Write | None = None) -> int:
    """Stop the variants of running experiments that violate a guardrail; return their number.

    Experiments that were checked within `interval` are skipped.
    """
    commit = write or database.commit
    with database.read() as session:
        running = experiments.running(session)
    stopped = 0
    for experiment in running:
        if commit(partial(experiments.claim_check, experiment_id=experiment.id, interval=interval)):
            with database.read() as session:
                names = [variant.name for variant in experiments.variants(session, experiment.id)]
                summed = experiments.guarded(session, experiment, CONTROL)
            for name, because in _broken(experiment, names, summed):
                stop = partial(_stop, experiment=experiment, variant=name, because=because)
                stopped += commit(stop)
    return stopped


def _broken(
    experiment: Experiment,
    names: Sequence[str],
    summed: Mapping[tuple[str, str], GuardrailOutcomes],
) -> Iterator[tuple[str, str]]:
    """Yield the variants that violate a guardrail, with the reason; the tests share the risk."""
    bounds = (experiment.max_invalid, experiment.max_cost, experiment.max_latency)
    risk = experiment.risk / (len(_GUARDED) * len(names))
    is_paired = experiment.paired > 0
    for outcome, bound in zip(_GUARDED, bounds, strict=True):
        for name in names:
            sums = summed.get((name, outcome))
            if sums is not None and exceeds(sums, outcome, bound, risk, is_paired=is_paired):
                yield name, _REASONS[outcome].format(sums.variant.mean, sums.control.mean)


_REASONS = {
    Outcome.VALID: "{:.1%} of its answers are valid, and {:.1%} of the control's.",
    Outcome.COST: "A document costs ${:.6f}, and ${:.6f} with the control.",
    Outcome.LATENCY: "A document takes {:.2f} seconds, and {:.2f} with the control.",
}


def _stop(session: Session, experiment: Experiment, variant: str, because: str) -> int:
    if not experiments.stop(session, experiment.id, variant, because):
        return 0
    members = {"experiment": experiment.name, "variant": variant, "reason": because}
    content: JsonObject = {**members, "profile": experiment.profile}
    deliveries.announce(session, DeliveryEvent.VARIANT_STOPPED, content=content)
    log.warning("experiment.variant_stopped", **members)
    return 1
