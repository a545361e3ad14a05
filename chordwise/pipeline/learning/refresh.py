"""Refreshing: finds stale answers and asks the current question about the same texts."""

from __future__ import annotations

import heapq
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain import identifiers
from chordwise.domain import items as item_names
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage, options_to_json
from chordwise.domain.flags import BUDGET, MODEL, RUN_NAME, Option
from chordwise.domain.learning.judgments import difference
from chordwise.domain.learning.statistics import wilson
from chordwise.domain.learning.truths import Truth
from chordwise.errors import UsageError
from chordwise.pipeline.intake.answer_tables import table_of
from chordwise.pipeline.intake.found_files import STORED_AT_ONCE, stored_documents
from chordwise.pipeline.intake.run_options import (
    MAX_NAME_LENGTH,
    RunOptions,
    chosen_profile,
    effective_options,
    from_json,
    identities,
    run_options,
    user_templates,
)
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.runtime.context import Context, ReadingContext
from chordwise.prompts import library
from chordwise.readers.reader import ReadDocument
from chordwise.relations import renewals
from chordwise.relations.relation import Row
from chordwise.relations.renewals import Renewal
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from chordwise.settings.profiles import Dollars, LaneName, checked_profile
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import Database, driver
from chordwise.storage.intakes import IntakeEntry
from chordwise.storage.runs import Run

_AT_ONCE = 1_000


class RefreshReason(StrEnum):
    """The reason why an answer is due: what changed since its question, or a failure.

    `VERSION` is a change of Chordwise, or of a setting or template that influences answers and has
    no separate reason.
    """

    MODEL = "model"
    TEMPLATE = "template"
    SCHEMA = "schema"
    LABELS = "labels"
    INSTRUCTIONS = "instructions"
    OPTIONS = "options"
    VERSION = "version"
    FAILED = "failed"


_OPTIONS = {
    "schema": RefreshReason.SCHEMA,
    "labels": RefreshReason.LABELS,
    "label_descriptions": RefreshReason.LABELS,
    "instructions": RefreshReason.INSTRUCTIONS,
    "items": RefreshReason.INSTRUCTIONS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The answers of a run or a profile, and the current question that replaces theirs."""

    name: str
    options: RunOptions
    renewal: Renewal


class RefreshArguments(TypedDict, total=False):
    """The options of a renewal, on the command line and in a program."""

    profile: Annotated[str, Option("Use [profiles.NAME] as it is now.", "NAME")]
    failed: Annotated[bool, Option("Renew only failed and partial analyses, stale or not.")]
    model: Annotated[str, MODEL]
    lane: Annotated[LaneName, Option("batch: half the price. Default: as in the run or profile.")]
    budget_usd: Annotated[Dollars, BUDGET]
    run_name: Annotated[str, RUN_NAME]


def requested(
    context: ReadingContext,
    name: str | None,
    arguments: RefreshArguments,
    note: Callable[[str], None] = lambda _: None,
) -> Target:
    """Return the answers of a run or a profile to check, and the options of their renewal.

    `note` receives a sentence about each option that was not given.

    Raises:
        UsageError: The run or the profile is unknown, or neither is named.
        ConfigurationError: The model, or a template, is unknown.
    """
    settings, profile = context.settings, arguments.get("profile", "")
    with context.database.read() as session:
        scope = scopes.find(session, settings, name, profile)
        scope.require_name(session)
    options = _renewal(settings, scope.run, {**arguments, "profile": scope.profile}, note)
    run_id = scope.run.id if scope.run else None
    of_failed = arguments.get("failed", False)
    return target(context, scope.run_name or scope.profile, options, run_id, of_failed=of_failed)


def _renewal(
    settings: Settings, run: Run | None, arguments: RefreshArguments, note: Callable[[str], None]
) -> RunOptions:
    names = ("model", "lane", "budget_usd")
    chosen = checked_profile({name: value for name in names if (value := arguments.get(name))})
    run_name, profile_argument = arguments.get("run_name", ""), arguments.get("profile", "")
    if profile := profile_argument or (profile_of(settings, run) if run else ""):
        if not profile_argument:
            note(f"The current options of [profiles.{profile}] are used.")
        merged_profile = chosen_profile(settings, chosen, profile)
        return run_options(settings, merged_profile, run_name, profile)
    if run is None:
        raise UsageError("There is no such run.")
    options = options_of(settings, run)
    if not chosen.model and options.model != settings.model:
        note(
            f"The model is {options.model}, as in that run. Use --model {settings.model} for the "
            "model in the settings."
        )
    changes = {name: getattr(chosen, name) for name in chosen.model_fields_set}
    return replace(options, name=run_name, **changes)


def target(
    context: ReadingContext,
    name: str,
    options: RunOptions,
    run_id: uuid.UUID | None = None,
    *,
    of_failed: bool = False,
) -> Target:
    """Return the answers to refresh: those of a run, or all in the table that the options name.

    Raises:
        ConfigurationError: The model is unknown.
        UsageError: Only the built-in model is asked, and it cannot answer the question.
    """
    # A cached completion would give a partial answer again.
    use_cache = options.use_cache and not of_failed
    renewal_options = effective_options(context.settings, replace(options, use_cache=use_cache))
    renewal = Renewal(
        hashes=dict(identities(context.settings, renewal_options).items()),
        run_id=run_id,
        saved_as=table_of(renewal_options),
        of_failed=of_failed,
    )
    return Target(name=name, options=renewal_options, renewal=renewal)


def extended(context: ReadingContext, table: str, missing: Sequence[str]) -> Target:
    """Return the renewal that also asks the documents of a table for the items `missing`.

    Raises:
        UsageError: The table has the values of a JSON Schema, or of a list in it.
    """
    newest = select(Run).where(Run.saved_as == table).order_by(Run.id.desc()).limit(1)
    with context.database.read() as session:
        run = session.scalars(newest).one_or_none()
        if run is None:
            raise UsageError(
                f"{table} has the rows of a list.", "Add the values to the schema of its table."
            )
        options = options_of(context.settings, run)
    analysis = options.analysis
    if analysis.schema is not None:
        raise UsageError(
            f"{table} has the values of a JSON Schema.",
            f"Add {', '.join(missing)} to the schema, and analyze again.",
        )
    items = (*(analysis.items or item_names.of(analysis)), *missing)
    more = replace(
        analysis, items=items, instructions=analysis.instructions if analysis.items else ""
    )
    return target(context, table, replace(options, analysis=more))


def profile_of(settings: Settings, run: Run) -> str:
    """Return the only profile whose table contains the answers of a run, or an empty string.

    A run of another profile that was saved there is not renewed as one of this profile, which may
    have other readers.
    """
    names = [
        name
        for name, profile in settings.profiles.items()
        if identifiers.sql_identifier(profile.save_as) == run.saved_as
    ]
    is_only = len(names) == 1 and run.options.get("profile", "") in ("", *names)
    return names[0] if is_only else ""


def options_of(settings: Settings, run: Run) -> RunOptions:
    """Return the options of a run, with the current version of the user's own templates.

    Raises:
        UsageError: The folder of templates no longer exists.
        ConfigurationError: A template no longer exists or is invalid.
    """
    options = replace(from_json(run.options, ""), fresh=False, use_cache=True, paths=())
    if not options.analysis.templates:
        return options
    variant = options.analysis.templates[0].variant
    templates = user_templates(settings, variant, options.types)
    return replace(options, analysis=replace(options.analysis, templates=templates))


def survey(context: ReadingContext, of: Target) -> Sequence[Row]:
    """Return the numbers of answers of an analysis type that are due for the same reasons.

    Of all `documents`, `results` have an answer, and `due` need a new one. `reasons` holds the
    former value if it is short: a model, a template, names of options, or an error.
    """
    with context.database.read() as session:
        groups = renewals.groups(driver(session), of.renewal)
    documents: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    due: Counter[tuple[str, tuple[tuple[RefreshReason, str], ...]]] = Counter()
    for group in groups:
        kind, count = group["analysis_type"], group["count"]
        documents[kind] += count
        answered[kind] += count if group["prompt_version"] else 0
        if group["is_due"]:
            due[kind, tuple(_reasons(context.settings, of, group))] += count
    return [
        {
            "analysis_type": AnalysisType(kind),
            "reasons": dict(reasons),
            "documents": documents[kind],
            "results": answered[kind],
            "due": count,
        }
        for (kind, reasons), count in due.items()
    ]


def transcribed_by_others(context: ReadingContext, of: Target) -> int:
    """Return the number of documents with pages that another model transcribed."""
    readers = context.settings.readers
    reader = "tesseract" if readers.ocr else ""
    if readers.vision:
        model = context.settings.model_named(readers.vision)
        reader = f"{model.provider}/{model.model}"
    if not reader:
        return 0
    with context.database.read() as session:
        return renewals.transcribed_by_others(driver(session), of.renewal, reader)


def _reasons(settings: Settings, of: Target, group: Row) -> Iterator[tuple[RefreshReason, str]]:
    if of.renewal.of_failed:
        yield RefreshReason.FAILED, group["error_code"] or ""
        return
    options = of.options.analysis_of(AnalysisType(group["analysis_type"]))
    today, stored = options_to_json(options), group["options"]
    names = (stored.keys() | today.keys()) - {"templates"}
    differing = sorted(name for name in names if stored.get(name) != today.get(name))
    reasons = list(_of_answer(settings, of, group))
    reasons += [(_OPTIONS[name], "") for name in differing if name in _OPTIONS]
    if others := [name for name in differing if name not in _OPTIONS]:
        reasons.append((RefreshReason.OPTIONS, ", ".join(others)))
    yield from dict.fromkeys(reasons) or [(RefreshReason.VERSION, "")]


def _of_answer(settings: Settings, of: Target, group: Row) -> Iterator[tuple[RefreshReason, str]]:
    answered_by = f"{group['provider']}/{group['model']}"
    names = [*settings.selected_names(of.options.model), *settings.fallback]
    today = [settings.model_named(name) for name in names]
    # Providers append a date to the requested model name.
    if not any(answered_by.startswith(f"{model.provider}/{model.model}") for model in today):
        yield RefreshReason.MODEL, answered_by
    kind = AnalysisType(group["analysis_type"])
    options = of.options.analysis_of(kind)
    versions = [
        template.version
        for stage in (Stage.ANALYZE, Stage.SYNTHESIZE)
        for template in library.templates_for(
            AnalysisTask(analysis_type=kind, stage=stage, options=options),
            settings.prompts.fallback,
        )
    ]
    if group["prompt_version"] not in versions:
        yield RefreshReason.TEMPLATE, group["prompt_version"] or ""


def documents(
    context: ReadingContext, of: Target, only: Collection[uuid.UUID] | None = None
) -> Iterator[ReadDocument]:
    """Yield the stored documents with a due answer, read in batches; `only` restricts them."""
    for page in _pages(context.database, of, only):
        job_ids = [entry.job_id for entry in page if entry.job_id]
        for start in range(0, len(job_ids), STORED_AT_ONCE):
            with context.database.read() as session:
                stored = stored_documents(session, job_ids[start : start + STORED_AT_ONCE])
            yield from stored.values()


def begin(
    context: Context, of: Target, now: datetime, only: Collection[uuid.UUID] | None = None
) -> Submission:
    """Open the run that asks the current question, with the due documents on its list.

    The run asks each document all questions of the options and reuses answers that are current. No
    document is assigned to an experiment, so that all get the answers that were quoted.

    Raises:
        UsageError: The name is taken.
        ConfigurationError: The model is unknown, or its price is unknown and the run has a budget.
    """
    name = of.options.name or f"{of.name}-refresh-{now:%Y%m%d-%H%M%S}"[-MAX_NAME_LENGTH:]
    submission = open_run(context, replace(of.options, name=name, is_refresh=True), now)
    for page in _pages(context.database, of, only):
        submission.enlist(page)
    return submission


def _pages(
    database: Database, of: Target, only: Collection[uuid.UUID] | None
) -> Iterator[Sequence[IntakeEntry]]:
    batches = scopes.batches(sorted(only)) if only is not None else _all_documents(database, of)
    for ids in batches:
        with database.read() as session:
            answers = renewals.due_answers(driver(session), of.renewal, ids)
        page = {row["document_id"]: row for row in answers}.values()
        if page:
            yield [IntakeEntry(job_id=row["job_id"], source=row["source"]) for row in page]


def _all_documents(database: Database, of: Target) -> Iterator[Sequence[uuid.UUID]]:
    after: uuid.UUID | None = None
    while True:
        with database.read() as session:
            ids = renewals.documents_behind(driver(session), of.renewal, after, _AT_ONCE)
        if not ids:
            return
        yield ids
        after = ids[-1]


def draw(context: ReadingContext, of: Target, count: int) -> Sequence[Row]:
    """Return the jobs with due answers about a sample of the due documents.

    It is stratified by analysis types and labels, and is the same as long as the due documents are.
    """
    with context.database.read() as session:
        first = renewals.due_strata(driver(session), of.renewal, count)
        allotted = allot({row["stratum"]: row["size"] for row in first}, count)
        drawn = [row["document_id"] for row in first if row["place"] <= allotted[row["stratum"]]]
        return renewals.due_answers(driver(session), of.renewal, drawn)


def allot(sizes: Mapping[str, int], count: int) -> Mapping[str, int]:
    """Return how many of `count` documents each stratum gets, in proportion to its size.

    Webster's method: each next document goes to the stratum with the largest size per allotted
    documents plus one half.
    """
    quotas = dict.fromkeys(sizes, 0)
    waiting = [(-2.0 * size, name) for name, size in sizes.items()]
    heapq.heapify(waiting)
    for _ in range(min(count, sum(sizes.values()))):
        _, name = heapq.heappop(waiting)
        quotas[name] += 1
        if quotas[name] < sizes[name]:
            heapq.heappush(waiting, (-sizes[name] / (quotas[name] + 0.5), name))
    return quotas


def compare(database: Database, sample: Sequence[Row], run_id: uuid.UUID) -> Sequence[Row]:
    """Compare the answers of a run with those of the jobs that it renews, by analysis type.

    Of the `fields` about `documents`, `changed` differ. The share of changes in all documents is
    between `low` and `high` with 95 % confidence. For `checked` fields feedback says what is right.
    `unanswered` have no new answer.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with database.read() as session:
        renewed = scopes.listed(session, ResultSelection(run_id=run_id))
    new = {(row["document_id"], row["analysis_type"]): row for row in renewed}
    for batch in scopes.batches(sample):
        with database.read() as session:
            for kind, differences in _differences(session, batch, new):
                counts[kind].update(differences or {"unanswered": 1})
    return [_trial(AnalysisType(kind), counts[kind]) for kind in sorted(counts)]


def _trial(kind: AnalysisType, counts: Counter[str]) -> Row:
    # The fields of a document change together: the interval counts each document once.
    documents, fields = counts["documents"], counts["fields"]
    changed = documents * counts["changed"] / fields if fields else 0
    low, high = wilson(changed, documents)
    names = ("documents", "unanswered", "fields", "changed", "checked", "better", "worse")
    return {
        "analysis_type": kind,
        **{name: counts[name] for name in names},
        "low": low,
        "high": high,
    }


def _differences(
    session: Session, jobs: Sequence[Row], new: Mapping[tuple[uuid.UUID, str], Row]
) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the differences of each job's answer from the new one, none if there is no new one."""
    job_ids = tuple(job["job_id"] for job in jobs)
    old = scopes.listed(session, ResultSelection(job_ids=job_ids, every_answer=True))
    keys = [(job["document_id"], job["analysis_type"]) for job in jobs]
    renewed = [new[key] for key in keys if key in new]
    answers = {row["result_id"]: row for row in scopes.read(session, [*old, *renewed])}
    former = {row["job_id"]: answers.get(row["result_id"]) for row in old}
    feedback = stored_feedback.by_document(session, (document_id for document_id, _ in keys))
    for job, (document_id, kind) in zip(jobs, keys, strict=True):
        before, after = former.get(job["job_id"]), new.get((document_id, kind))
        after = answers.get(after["result_id"]) if after else None
        if before is None or after is None:
            yield kind, {}
            continue
        truth = scopes.truth_about(after, feedback[document_id]) or Truth()
        yield kind, {"documents": 1, **difference(before["answer"], after["answer"], truth)}
