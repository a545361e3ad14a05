"""Experiments: variants of a profile are compared on its documents, and the best is promoted."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, TypeAlias, TypedDict

import tomlkit
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from tomlkit.exceptions import TOMLKitError

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisType, options_to_json, question_of
from chordwise.domain.flags import Option
from chordwise.domain.json_values import JsonObject, as_json
from chordwise.domain.learning import experiments as statistics
from chordwise.domain.learning.experiments import (
    CONTROL,
    Observation,
    Outcome,
    VariantVerdict,
)
from chordwise.domain.learning.judgments import correct_by_field
from chordwise.domain.learning.statistics import MeanInterval
from chordwise.domain.number_formats import parse_share
from chordwise.domain.states import Lane, RunStatus
from chordwise.errors import UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.pipeline.intake.experiments import experiment_key
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    effective_options,
    from_json,
    identities,
    required_profile,
    run_options,
    to_json,
)
from chordwise.pipeline.learning import judgeable
from chordwise.pipeline.models import budgets
from chordwise.pipeline.models.model_client import lane_for
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations.results import ResultSelection
from chordwise.settings import Profile, Settings
from chordwise.settings.sections import problems
from chordwise.storage import clock, experiments
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.budgets import Budget, scope_of_run
from chordwise.storage.database import Database
from chordwise.storage.experiments import AnsweredJob, Experiment, ExperimentVariant
from chordwise.storage.feedback import Feedback
from chordwise.storage.record import copied, new_id
from chordwise.storage.runs import Run

CHANGEABLE = (
    *("model", "prompt", "pack", "instructions", "answer_language", "examples"),
    *("chunk_tokens", "votes", "critique", "confidence_threshold"),
)
"""The entries of a profile that a variant may change: how the model is asked, not about what."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MAX_TIMES = 100.0
SHARES: Mapping[str, float | None] = {
    "share": None,
    "paired": 1,
    "risk": None,
    "max_invalid": None,
    "max_cost": _MAX_TIMES,
    "max_latency": _MAX_TIMES,
}
"""The options that are shares, with their maximum; see `parse_share`."""
_Known: TypeAlias = tuple[float, datetime]
"""An outcome, and the time when it became known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant as the user specifies it: the changed entries of the profile, as texts."""

    name: str
    changes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """The variants, the outcome and the bounds of an experiment; see the table `experiments`.

    `share` is each variant's share of the documents that are not paired; by default all variants
    and the control get the same. `budget_usd` caps the cost of the additional answers to paired
    documents.
    """

    name: str
    profile: str
    variants: Sequence[Variant]
    outcome: Outcome = Outcome.RIGHT
    share: float | None = None
    paired: float = 0.0
    budget_usd: Decimal | None = None
    risk: float = 0.05
    max_invalid: float = 0.05
    max_cost: float = 0.5
    max_latency: float = 1.0


class ExperimentArguments(TypedDict, total=False):
    """The options of an experiment. Shares are numbers or texts: 0.2 or "20%"."""

    outcome: Annotated[Outcome | str, Option("The measure to compare. Default: right.")]
    share: Annotated[
        float | str,
        Option("Share of unpaired documents for each variant. Default: equal.", "SHARE"),
    ]
    paired: Annotated[float | str, Option("Share of documents that all variants answer.", "SHARE")]
    budget_usd: Annotated[
        Decimal | float | str,
        Option("Maximum cost of the additional answers for --paired.", "USD", ("--budget",)),
    ]
    risk: Annotated[
        float | str, Option("Allowed probability of a wrong verdict. Default: 5%.", "SHARE")
    ]
    max_invalid: Annotated[
        float | str,
        Option(
            "Stop variants whose invalid answers increase by more than this. Default: 5%.", "SHARE"
        ),
    ]
    max_cost: Annotated[
        float | str, Option("Stop variants whose cost rises more than this. Default: 50%.", "SHARE")
    ]
    max_latency: Annotated[
        float | str,
        Option("Stop variants whose latency rises more than this. Default: 100%.", "SHARE"),
    ]


def planned(
    name: str, profile: str, variants: Sequence[Variant], arguments: ExperimentArguments
) -> ExperimentPlan:
    """Return a plan.

    Raises:
        UsageError: A share or the budget is invalid.
    """
    given = {each: str(value) for each, value in arguments.items() if value not in {None, ""}}
    shares = {
        each: parse_share(f"--{each.replace('_', '-')}", given[each], up_to)
        for each, up_to in SHARES.items()
        if each in given
    }
    return ExperimentPlan(
        name=name,
        profile=profile,
        variants=variants,
        outcome=Outcome(given.get("outcome", Outcome.RIGHT)),
        budget_usd=budgets.parse_budget(given.get("budget_usd")),
        **shares,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedVariant:
    """An outcome of a variant: its documents, its mean, and the difference to the control."""

    outcome: Outcome
    documents: int
    mean: float | None
    difference: MeanInterval | None
    verdict: VariantVerdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantStatus:
    """The status of a variant or the control.

    `paired` counts those of its `documents` that others answered as well. `further` is the
    estimated number of further documents until a decision.
    """

    name: str
    changes: JsonObject
    documents: int
    paired: int
    outcomes: Sequence[ComparedVariant]
    further: int | None = None
    stopped_at: datetime | None = None
    stopped_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of an experiment.

    `is_current` is false if the profile has changed its question, so that no more documents join.
    """

    name: str
    profile: str
    outcome: Outcome
    risk: float
    created_at: datetime
    concluded_at: datetime | None
    promoted: str | None
    is_current: bool
    budget_usd: Decimal | None
    spent_usd: Decimal | None
    variants: Sequence[VariantStatus]


def start(context: ReadingContext, plan: ExperimentPlan) -> Experiment:
    """Start an experiment; from now on, documents with the question of the profile are part of it.

    Raises:
        UsageError: The plan is contradictory, the name is taken, a variant asks the same question
            as the profile or another variant, or the profile has a running experiment.
        ConfigurationError: The profile or a model does not exist, or a price is unknown.
    """
    settings = context.settings
    _check(plan)
    profile = required_profile(settings, plan.profile)
    control = effective_options(settings, run_options(settings, profile))
    wanted = [_with_changes(context, profile, control, each) for each in plan.variants]
    asked = [to_json(options) for _, options in wanted]
    for index, each in enumerate(asked):
        if each in asked[:index]:
            names = [plan.variants[at].name for at in (asked.index(each), index)]
            raise UsageError(
                f"The variants {' and '.join(names)} are identical.", "Omit one of them."
            )
    for options in (control, *(each for _, each in wanted)):
        budgets.cap_for(settings, options.model, plan.budget_usd or control.budget_usd)
    lanes = {lane_for(settings, each.model, control.lane) for _, each in wanted}
    run = _run_of_pairs(plan.name, control, Lane.BATCH if lanes == {Lane.BATCH} else Lane.ONLINE)
    experiment = Experiment(
        id=new_id(),
        name=plan.name,
        profile=plan.profile,
        outcome=plan.outcome,
        control=experiment_key(control),
        share=plan.share or (1 - plan.paired and 1 / (len(plan.variants) + 1)),
        **{each: getattr(plan, each) for each in _BOUNDS},
    )
    variants = [
        ExperimentVariant(name=each.name, position=index, changes=changes, options=to_json(options))
        for index, (each, (changes, options)) in enumerate(zip(plan.variants, wanted, strict=True))
    ]
    _store(context.database, run, experiment, variants, plan.budget_usd)
    return experiment


def _run_of_pairs(name: str, control: RunOptions, lane: Lane) -> Run:
    """Return the run of the additional answers to paired documents, which starts as finished."""
    return Run(
        id=new_id(),
        name=f"experiment-{name}",
        status=RunStatus.FINISHED,
        options=to_json(control),
        type_count=len(control.types),
        priority=Priority.NIGHTLY,
        lane=lane,
        found_count=0,
    )


_BOUNDS = ("paired", "risk", "max_invalid", "max_cost", "max_latency")


def _check(plan: ExperimentPlan) -> None:
    """Check the names and shares of a plan.

    Raises:
        UsageError: A name is invalid or repeated, or the shares leave nothing for the control.
    """
    names = [each.name for each in plan.variants]
    if not names or len({*names, CONTROL}) <= len(names):
        raise UsageError(
            "An experiment needs at least one variant, each with a different name.",
            f"--variant terse:prompt=terse; {CONTROL} is the unchanged profile.",
        )
    for name in (plan.name, *names):
        if not _NAME.fullmatch(name):
            hint = "A name consists of letters, digits, “.”, “_” and “-”."
            raise UsageError(f"“{name}” cannot be the name of an experiment or variant.", hint)
    if plan.share is not None and plan.share * len(names) >= 1:
        raise UsageError(
            f"{len(names)} variants with {plan.share:.0%} each leave no documents for the control.",
            "Lower --share.",
        )


def _with_changes(
    context: ReadingContext, profile: Profile, control: RunOptions, variant: Variant
) -> tuple[JsonObject, RunOptions]:
    """Return the changes of a variant as parsed values, and its run options.

    Raises:
        UsageError: An entry cannot be changed, or the variant asks the same question as the
            profile.
    """
    settings = context.settings
    for entry in variant.changes:
        if entry not in CHANGEABLE:
            raise UsageError(
                f"A variant cannot change {entry}.", f"It can change: {', '.join(CHANGEABLE)}."
            )
    try:
        changed = Profile.model_validate(variant.changes).over(profile)
    except ValidationError as error:
        what = f"The variant {variant.name} is invalid: {'; '.join(problems(error))}."
        raise UsageError(what) from error
    options = effective_options(settings, run_options(settings, changed))
    if options.types != control.types:
        raise UsageError(f"The variant {variant.name} changes the analysis types.")
    if identities(settings, options) == identities(settings, control):
        raise UsageError(
            f"The variant {variant.name} does not differ from the profile.", "Change an option."
        )
    values = changed.model_dump(mode="json", by_alias=True)
    return {entry: values[entry] for entry in variant.changes}, options


def _store(
    database: Database,
    run: Run,
    experiment: Experiment,
    variants: Sequence[ExperimentVariant],
    budget_usd: Decimal | None,
) -> None:
    try:
        with database.write() as session:
            run.intake_finished_at = run.finished_at = clock.read(session)
            session.add(run)
            session.flush()
            experiment.run_id = run.id
            session.add(experiment)
            session.flush()
            for each in variants:
                each.experiment_id = experiment.id
            session.add_all(variants)
            if budget_usd is not None:
                budgets.change_cap(session, run.id, budget_usd)
    except IntegrityError as error:
        raise UsageError(
            f"An experiment “{experiment.name}”, or a running experiment with the profile "
            f"{experiment.profile}, already exists.",
            "`chordwise experiment status` lists them; `experiment conclude` ends one.",
        ) from error


def find(session: Session, name: str) -> Experiment:
    """Return the experiment of this name.

    Raises:
        UsageError: It does not exist.
    """
    found = experiments.named(session, name)
    if found is None:
        raise UsageError(
            f"There is no experiment “{name}”.", "`chordwise experiment status` lists them."
        )
    return found


def find_running(session: Session, name: str, *, lock: bool = False) -> Experiment:
    """Return the running experiment of this name; `lock` lets no other transaction conclude it.

    Raises:
        UsageError: It does not exist or is concluded.
    """
    found = find(session, name)
    if lock:
        session.refresh(found, with_for_update=True)
    if found.concluded_at is not None:
        raise UsageError(f"The experiment {name} is concluded already.")
    return found


def status(session: Session, settings: Settings, experiment: Experiment) -> Status:
    """Return the current status of an experiment."""
    variants = experiments.variants(session, experiment.id)
    run_id = experiment.run_id
    account = session.get(Budget, scope_of_run(run_id)) if run_id else None
    return copied(
        Status,
        experiment,
        outcome=Outcome(experiment.outcome),
        is_current=_is_current(settings, experiment),
        budget_usd=account.cap_usd if account else None,
        spent_usd=account.spent_usd if account else None,
        variants=_statuses(session, experiment, variants),
    )


def _is_current(settings: Settings, experiment: Experiment) -> bool:
    profile = settings.profiles.get(experiment.profile)
    if profile is None:
        return False
    asked = effective_options(settings, run_options(settings, profile))
    return as_json(experiment_key(asked)) == experiment.control


def _statuses(
    session: Session, experiment: Experiment, variants: Sequence[ExperimentVariant]
) -> list[VariantStatus]:
    jobs = experiments.answered(session, experiment.id)
    judged = _judged(session, experiment, variants, jobs)
    documents: dict[str, set[uuid.UUID]] = defaultdict(set)
    for each in jobs:
        documents[each.variant].add(each.document_id)
    shared = documents[CONTROL]
    risk = experiment.risk / len(variants)
    comparison = _Comparison(
        jobs=jobs,
        judged=judged,
        outcome=Outcome(experiment.outcome),
        risk=risk,
        is_paired=experiment.paired > 0,
    )
    control = VariantStatus(
        name=CONTROL,
        changes={},
        documents=len(shared),
        paired=len(shared & set().union(*(documents[each.name] for each in variants))),
        outcomes=[comparison.of(CONTROL, each) for each in Outcome],
    )
    others = [
        copied(
            VariantStatus,
            each,
            documents=len(documents[each.name]),
            paired=len(documents[each.name] & shared),
            outcomes=[comparison.of(each.name, outcome) for outcome in Outcome],
            further=comparison.further(each.name),
        )
        for each in variants
    ]
    return [control, *others]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """The jobs of an experiment, the judgments of their answers, and how outcomes are compared."""

    jobs: Sequence[AnsweredJob]
    judged: Mapping[uuid.UUID, _Known]
    outcome: Outcome
    risk: float
    is_paired: bool

    def of(self, variant: str, outcome: Outcome) -> ComparedVariant:
        """Return an outcome of a variant compared with the control's."""
        found = self._evidence(variant, outcome)
        values = found.variant
        difference = statistics.difference(found, outcome, self.risk, is_paired=self.is_paired)
        is_control = variant == CONTROL
        return ComparedVariant(
            outcome=outcome,
            documents=len(values),
            mean=sum(values) / len(values) if values else None,
            difference=None if is_control else difference,
            verdict=None if is_control else statistics.verdict(difference, outcome),
        )

    def further(self, variant: str) -> int | None:
        """Return the estimated number of further documents until a variant is decided."""
        found = self._evidence(variant, self.outcome)
        return statistics.remaining_documents(
            found, self.outcome, self.risk, is_paired=self.is_paired
        )

    def _evidence(self, variant: str, outcome: Outcome) -> statistics.Evidence:
        judged = self.judged if outcome is Outcome.RIGHT else {}
        return statistics.evidence(
            *(_observations(self.jobs, name, outcome, judged) for name in (CONTROL, variant))
        )


def _judged(
    session: Session,
    experiment: Experiment,
    variants: Sequence[ExperimentVariant],
    jobs: Sequence[AnsweredJob],
) -> Mapping[uuid.UUID, _Known]:
    """Return the share of right fields in each job's answer, according to the feedback.

    Feedback on one answer also judges other answers to the same document.
    """
    said: dict[tuple[uuid.UUID, str], list[Feedback]] = defaultdict(list)
    asked = [from_json(one, "") for one in (experiment.control, *(v.options for v in variants))]
    questions = {
        kind: [as_json(question_of(options_to_json(one.analysis_of(kind)))) for one in asked]
        for kind in asked[0].types
    }
    for each in stored_feedback.of_documents(session, sorted({one.document_id for one in jobs})):
        if each.question in questions.get(AnalysisType(each.analysis_type), ()):
            said[each.document_id, each.analysis_type].append(each)
    wanted = [one.job_id for one in jobs if (one.document_id, one.analysis_type) in said]
    found: dict[uuid.UUID, _Known] = {}
    for some in judgeable.batches(wanted):
        listed = judgeable.listed(session, ResultSelection(job_ids=tuple(some), every_answer=True))
        for result in judgeable.read(session, listed):
            kind, document_id = result.listed.analysis_type, result.listed.document_id
            remarks = said[document_id, kind]
            truth = judgeable.truth_of(kind, remarks)
            if is_right := correct_by_field(result.answer, truth):
                share = sum(is_right.values()) / len(is_right)
                known_at = max(result.created_at, *(one.created_at for one in remarks))
                found[result.listed.job_id] = share, known_at
    return found


def _observations(
    jobs: Sequence[AnsweredJob],
    variant: str,
    outcome: Outcome,
    judged: Mapping[uuid.UUID, _Known],
) -> list[Observation]:
    """Return the known outcome of each document that a variant has answered.

    If a document has several analyses, shares are averaged and amounts are summed. `judged` holds
    the judgments of answers by job.
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


def _known(job: AnsweredJob, outcome: Outcome) -> _Known | None:
    """Return an outcome from the stored rows; None if the job has not finished or lacks it."""
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


def conclude(session: Session, experiment: Experiment, found: Status, promoted: str | None) -> None:
    """End an experiment and store its status; `promoted` names the promoted variant, if any."""
    experiment.concluded_at = clock.read(session)
    experiment.promoted = promoted
    experiment.conclusion = json_values.as_object(as_json(found))


def promoted(content: str, profile: str, changes: JsonObject) -> str | None:
    """Return a settings file in which the profile has the changed entries; comments are kept.

    Returns None if the file does not define the profile.
    """
    try:
        file = tomlkit.parse(content)
    except TOMLKitError:
        return None
    profiles = file.get("profiles")
    table = profiles.get(profile) if isinstance(profiles, dict) else None
    if not isinstance(table, dict):
        return None
    for entry, value in changes.items():
        if value is not None:
            table[entry] = value
        else:
            table.pop(entry, None)
    return tomlkit.dumps(file)


def lines(profile: str, changes: JsonObject) -> str:
    """Return the lines of a settings file that give a profile these entries."""
    entries = {entry: value for entry, value in changes.items() if value is not None}
    return tomlkit.dumps({"profiles": {profile: entries}})
