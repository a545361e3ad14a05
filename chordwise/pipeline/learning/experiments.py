"""Experiments: variants of a profile are compared on its documents, and the best is promoted."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from chordwise.domain.json_values import JsonObject, JsonValue, as_json
from chordwise.domain.learning import experiments as statistics
from chordwise.domain.learning.experiments import CONTROL, Known, Outcome
from chordwise.domain.learning.judgments import correct_by_field
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
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.models import budgets
from chordwise.pipeline.models.model_client import lane_for
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations.relation import Relation, Row
from chordwise.relations.results import ResultSelection
from chordwise.settings import Profile, Settings
from chordwise.settings.sections import problems
from chordwise.storage import clock, experiments
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import Database, driver
from chordwise.storage.experiments import Experiment, ExperimentVariant
from chordwise.storage.feedback import Feedback
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

EXPERIMENTS = Relation(
    query="""SELECT
    e.id, e.name, e.profile, e.outcome, e.risk, e.paired, e.control, e.created_at, e.concluded_at,
    e.promoted, b.cap_usd AS budget_usd, b.spent_usd
FROM experiments AS e LEFT JOIN budgets AS b ON b.scope = 'run:' || e.run_id""",
    filters={"name": "e.name = %(name)s"},
    order="e.id DESC",
)
VARIANTS = Relation(
    query="SELECT name, changes, options, stopped_at, stopped_because FROM experiment_variants",
    filters={"experiment_id": "experiment_id = %(experiment_id)s"},
    order="position",
)
ANSWERS = Relation(
    # Unfinished jobs have no outcomes; a cost or a latency is null if unknown, or if it was reused.
    query="""SELECT
    variant, document_id, job_id, analysis_type, finished_at,
    CASE WHEN finished_at IS NOT NULL THEN valid::integer::double precision END AS valid,
    grounded, quality, cost_usd::double precision AS cost,
    latency_ms / 1000.0::double precision AS latency
FROM experiment_answers""",
    filters={"experiment_id": "experiment_id = %(experiment_id)s"},
)

CHANGEABLE = (
    *("model", "prompt", "pack", "instructions", "answer_language", "examples"),
    *("chunk_tokens", "votes", "critique", "confidence_threshold"),
)
"""The entries of a profile that a variant may change: how the model is asked, not about what."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MAX_TIMES = 100.0
SHARES: Mapping[str, tuple[float | None, float | None]] = {
    "share": (None, None),
    "paired": (0.0, 1),
    "risk": (0.05, None),
    "max_invalid": (0.05, None),
    "max_cost": (0.5, _MAX_TIMES),
    "max_latency": (1.0, _MAX_TIMES),
}
"""The options that are shares, with their default and their maximum; see `parse_share`."""
Variants: TypeAlias = Sequence[tuple[str, Mapping[str, str]]]
"""The names of variants, each with the changed entries of the profile as texts."""


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


def start(
    context: ReadingContext,
    name: str,
    profile_name: str,
    variants: Variants,
    arguments: ExperimentArguments,
) -> Experiment:
    """Start an experiment; from now on, documents with the question of the profile are part of it.

    Raises:
        UsageError: An argument is invalid, the name is taken, a variant asks the same question as
            the profile or another variant, or the profile has a running experiment.
        ConfigurationError: The profile or a model does not exist, or a price is unknown.
    """
    settings = context.settings
    texts = {option: str(value) for option, value in arguments.items() if value not in {None, ""}}
    bounds = {
        option: parse_share(f"--{option.replace('_', '-')}", texts[option], maximum)
        if option in texts
        else default
        for option, (default, maximum) in SHARES.items()
    }
    budget_usd = budgets.parse_budget(texts.get("budget_usd"))
    _check([name, *(variant for variant, _ in variants)], bounds["share"])
    if bounds["share"] is None:
        bounds["share"] = 0 if bounds["paired"] == 1 else 1 / (len(variants) + 1)
    profile = required_profile(settings, profile_name)
    control = effective_options(settings, run_options(settings, profile))
    rows: list[ExperimentVariant] = []
    options_of: dict[str, RunOptions] = {}
    for variant, entries in variants:
        changes, options = _with_changes(settings, profile, control, variant, entries)
        for other, known in options_of.items():
            if known == options:
                what = f"The variants {other} and {variant} are identical."
                raise UsageError(what, "Omit one of them.")
        options_of[variant] = options
        rows.append(
            ExperimentVariant(
                name=variant, position=len(rows), changes=changes, options=to_json(options)
            )
        )
    for options in (control, *options_of.values()):
        budgets.cap_for(settings, options.model, budget_usd or control.budget_usd)
    lanes = {lane_for(settings, options.model, control.lane) for options in options_of.values()}
    # The run of the additional answers to paired documents, which starts as finished.
    run = Run(
        id=new_id(),
        name=f"experiment-{name}",
        status=RunStatus.FINISHED,
        options=to_json(control),
        type_count=len(control.types),
        priority=Priority.NIGHTLY,
        lane=Lane.BATCH if lanes == {Lane.BATCH} else Lane.ONLINE,
        found_count=0,
    )
    experiment = Experiment(
        id=new_id(),
        name=name,
        profile=profile_name,
        outcome=Outcome(texts.get("outcome", Outcome.RIGHT)),
        control=experiment_key(control),
        **bounds,
    )
    _store(context.database, run, experiment, rows, budget_usd)
    return experiment


def _check(names: Sequence[str], share: float | None) -> None:
    """Check the names of an experiment and its variants, and the share of each variant."""
    variants = names[1:]
    if not variants or len({*variants, CONTROL}) <= len(variants):
        raise UsageError(
            "An experiment needs at least one variant, each with a different name.",
            f"--variant terse:prompt=terse; {CONTROL} is the unchanged profile.",
        )
    for name in names:
        if not _NAME.fullmatch(name):
            hint = "A name consists of letters, digits, “.”, “_” and “-”."
            raise UsageError(f"“{name}” cannot be the name of an experiment or variant.", hint)
    if share is not None and share * len(variants) >= 1:
        raise UsageError(
            f"{len(variants)} variants with {share:.0%} each leave no documents for the control.",
            "Lower --share.",
        )


def _with_changes(
    settings: Settings, profile: Profile, control: RunOptions, name: str, entries: Mapping[str, str]
) -> tuple[JsonObject, RunOptions]:
    """Return the changes of a variant as parsed values, and its run options."""
    for entry in entries:
        if entry not in CHANGEABLE:
            raise UsageError(
                f"A variant cannot change {entry}.", f"It can change: {', '.join(CHANGEABLE)}."
            )
    try:
        changed = Profile.model_validate(entries).over(profile)
    except ValidationError as error:
        what = f"The variant {name} is invalid: {'; '.join(problems(error))}."
        raise UsageError(what) from error
    options = effective_options(settings, run_options(settings, changed))
    if options.types != control.types:
        raise UsageError(f"The variant {name} changes the analysis types.")
    if identities(settings, options) == identities(settings, control):
        raise UsageError(
            f"The variant {name} does not differ from the profile.", "Change an option."
        )
    values = changed.model_dump(mode="json", by_alias=True)
    return {entry: values[entry] for entry in entries}, options


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
            for variant in variants:
                variant.experiment_id = experiment.id
            session.add_all(variants)
            if budget_usd is not None:
                budgets.change_cap(session, run.id, budget_usd)
    except IntegrityError as error:
        raise UsageError(
            f"An experiment “{experiment.name}”, or a running experiment with the profile "
            f"{experiment.profile}, already exists.",
            "`chordwise experiment status` lists them; `experiment conclude` ends one.",
        ) from error


def find_running(session: Session, name: str) -> Experiment:
    """Return the running experiment of this name; no other transaction can conclude it.

    Raises:
        UsageError: It does not exist or is concluded.
    """
    experiment = experiments.named(session, name)
    if experiment is None:
        raise _unknown(name)
    session.refresh(experiment, with_for_update=True)
    if experiment.concluded_at is not None:
        raise UsageError(f"The experiment {name} is concluded already.")
    return experiment


def _unknown(name: str) -> UsageError:
    return UsageError(
        f"There is no experiment “{name}”.", "`chordwise experiment status` lists them."
    )


def status(session: Session, settings: Settings, name: str = "") -> list[Row]:
    """Return the experiment of this name, or all, the newest first, with the current comparison.

    The control is the first of the `variants`. An experiment `is_current` unless the profile has
    changed its question, so that no more documents join. Of the `documents` of a variant, others
    have answered the `paired` ones as well, and `further` is the estimated number of documents
    until a decision. Each of its `outcomes` has the `mean` and the `difference` to the control.

    Raises:
        UsageError: It does not exist.
    """
    rows = EXPERIMENTS.read(driver(session), {"name": name})
    if name and not rows:
        raise _unknown(name)
    return [
        {
            **{column: row[column] for column in row if column not in _INTERNAL},
            "is_current": row["control"] == _key_today(settings, row["profile"]),
            "variants": _compared(session, row),
        }
        for row in rows
    ]


_INTERNAL = ("id", "control", "paired")
_SHOWN = ("name", "changes", "stopped_at", "stopped_because")


def _key_today(settings: Settings, name: str) -> JsonValue:
    if (profile := settings.profiles.get(name)) is None:
        return None
    return as_json(experiment_key(effective_options(settings, run_options(settings, profile))))


def _compared(session: Session, experiment: Row) -> list[Row]:
    of_experiment = {"experiment_id": experiment["id"]}
    variants = VARIANTS.read(driver(session), of_experiment)
    answers: dict[str, list[Row]] = defaultdict(list)
    for answer in ANSWERS.read(driver(session), of_experiment):
        answers[answer["variant"]].append(answer)
    judged = _judged(session, experiment, variants, answers)
    control: Row = {**dict.fromkeys(_SHOWN), "name": CONTROL, "changes": {}}
    names = [CONTROL, *(row["name"] for row in variants)]
    documents = {name: {answer["document_id"] for answer in answers[name]} for name in names}
    of_control = {outcome: _known(answers[CONTROL], outcome, judged) for outcome in Outcome}
    others = set[uuid.UUID]().union(*(documents[name] for name in names[1:]))
    compared: list[Row] = []
    for row in (control, *variants):
        name, is_variant = row["name"], row is not control
        comparisons = [
            _difference(
                of_control[outcome],
                _known(answers[name], outcome, judged) if is_variant else None,
                outcome,
                {**experiment, "risk": experiment["risk"] / len(variants)},
            )
            for outcome in Outcome
        ]
        further = [comparison.pop("further") for comparison in comparisons]
        shared = documents[CONTROL] if is_variant else others
        compared.append(
            {
                **{column: row[column] for column in _SHOWN},
                "documents": len(documents[name]),
                "paired": len(documents[name] & shared),
                "outcomes": comparisons,
                "further": further[list(Outcome).index(experiment["outcome"])],
            }
        )
    return compared


def _difference(
    of_control: Mapping[uuid.UUID, Known],
    of_variant: Mapping[uuid.UUID, Known] | None,
    outcome: Outcome,
    experiment: Row,
) -> Row:
    """Return an outcome of a variant compared with the control's, or that of the control."""
    values = [value for value, _ in (of_control if of_variant is None else of_variant).values()]
    compared: Row = {
        "outcome": outcome,
        "documents": len(values),
        "mean": sum(values) / len(values) if values else None,
        **dict.fromkeys(("difference", "verdict", "further")),
    }
    if of_variant is not None:
        evidence, risk = statistics.evidence(of_control, of_variant), experiment["risk"]
        is_paired = experiment["paired"] > 0
        difference = statistics.difference(evidence, outcome, risk, is_paired=is_paired)
        compared |= {"difference": difference, "verdict": statistics.verdict(difference, outcome)}
        if outcome == experiment["outcome"]:
            compared["further"] = statistics.remaining_documents(
                evidence, outcome, risk, is_paired=is_paired
            )
    return compared


def _judged(
    session: Session,
    experiment: Row,
    variants: Sequence[Row],
    answers: Mapping[str, Sequence[Row]],
) -> Mapping[uuid.UUID, Known]:
    """Return the share of right fields in each job's answer, according to the feedback.

    Feedback on one answer also judges other answers to the same document.
    """
    remarks: dict[tuple[uuid.UUID, str], list[Feedback]] = defaultdict(list)
    options = [
        from_json(one, "") for one in (experiment["control"], *(v["options"] for v in variants))
    ]
    questions = {
        kind: [as_json(question_of(options_to_json(one.analysis_of(kind)))) for one in options]
        for kind in options[0].types
    }
    jobs = [answer for rows in answers.values() for answer in rows]
    document_ids = sorted({job["document_id"] for job in jobs})
    for remark in stored_feedback.of_documents(session, document_ids):
        if remark.question in questions.get(AnalysisType(remark.analysis_type), ()):
            remarks[remark.document_id, remark.analysis_type].append(remark)
    judgeable_ids = [
        job["job_id"] for job in jobs if (job["document_id"], job["analysis_type"]) in remarks
    ]
    judged: dict[uuid.UUID, Known] = {}
    for some in scopes.batches(judgeable_ids):
        listed = scopes.listed(session, ResultSelection(job_ids=tuple(some), every_answer=True))
        for result in scopes.read(session, listed):
            kind = result["analysis_type"]
            about = remarks[result["document_id"], kind]
            if is_right := correct_by_field(result["answer"], scopes.truth_of(kind, about)):
                share = sum(is_right.values()) / len(is_right)
                known_at = max(result["created_at"], *(one.created_at for one in about))
                judged[result["job_id"]] = share, known_at
    return judged


def _known(
    answers: Sequence[Row], outcome: Outcome, judged: Mapping[uuid.UUID, Known]
) -> Mapping[uuid.UUID, Known]:
    """Return the known outcome of each document that a variant has answered.

    If a document has several analyses, shares are averaged and amounts are summed. `judged` holds
    the judgments of answers by job.
    """
    of_documents: dict[uuid.UUID, list[Known | None]] = defaultdict(list)
    for answer in answers:
        known = None
        if outcome is Outcome.RIGHT:
            known = judged.get(answer["job_id"])
        elif answer["valid"] is not None and answer[outcome] is not None:
            known = answer[outcome], answer["finished_at"]
        of_documents[answer["document_id"]].append(known)
    observed: dict[uuid.UUID, Known] = {}
    for document_id, answered in of_documents.items():
        outcomes = [known for known in answered if known is not None]
        if outcomes and (len(outcomes) == len(answered) or outcome is Outcome.RIGHT):
            total = sum(value for value, _ in outcomes)
            value = total / len(outcomes) if outcome.is_share else total
            observed[document_id] = value, max(moment for _, moment in outcomes)
    return observed


def conclude(
    session: Session, experiment: Experiment, comparison: Row, promoted: str | None
) -> None:
    """End an experiment and store its status; `promoted` names the promoted variant, if any."""
    experiment.concluded_at = clock.read(session)
    experiment.promoted = promoted
    experiment.conclusion = json_values.as_object(as_json(comparison))


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
