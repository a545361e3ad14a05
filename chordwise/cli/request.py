"""From the options of `analyze` and `submit` to what a run asks of every document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisOptions, AnalysisType, implied_types
from chordwise.errors import UsageError
from chordwise.readers.extracted import WHOLE, Columns
from chordwise.settings import Settings

if TYPE_CHECKING:
    from chordwise.pipeline.intake.run_options import RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What is not used again: stored results and completions (`fresh`), or completions alone."""

    fresh: bool = False
    no_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgency:
    """Who goes first, and whether answers may come within a day; no lane is not a word about it."""

    nightly: bool = False
    lane: Lane | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the analyses are told beyond their type."""

    instructions: str = ""
    schema: Path | None = None
    labels: str = ""


@dataclass(frozen=True, slots=True)
class Scrutiny:
    """How closely answers are looked at; no number of votes is not a word about them."""

    confidence_threshold: float = 0.0
    votes: int | None = None
    critique: bool = False
    principles: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options as they were given."""

    paths: Sequence[str]
    types: Sequence[AnalysisType]
    profile: str = ""
    details: Details = Details()
    columns: Columns = WHOLE
    model: str | None = None
    run_name: str = ""
    reuse: Reuse = Reuse()
    urgency: Urgency = Urgency()
    scrutiny: Scrutiny = Scrutiny()
    budget: str | None = None


def types_of(request: Request) -> tuple[AnalysisType, ...]:
    """Return the types to run: a schema or labels alone say which."""
    details = request.details
    return implied_types(
        request.types, schema=details.schema is not None, labels=bool(details.labels)
    )


def options_of(request: Request) -> AnalysisOptions:
    """Return what the analyses are told.

    Raises:
        UsageError: Options contradict each other, or the schema cannot be used.
    """
    from chordwise.pipeline.intake.run_options import read_schema  # noqa: PLC0415 - as below

    scrutiny = request.scrutiny

    types = types_of(request)
    if request.details.schema is not None and AnalysisType.EXTRACTION not in types:
        raise UsageError("--schema is for extractions.", "Add --type extraction.")
    if request.details.labels and AnalysisType.CLASSIFICATION not in types:
        raise UsageError("--labels is for classifications.", "Add --type classification.")
    return AnalysisOptions(
        instructions=request.details.instructions.strip(),
        labels=_labels(request.details.labels),
        schema=read_schema(request.details.schema) if request.details.schema else None,
        confidence_threshold=scrutiny.confidence_threshold,
        votes=scrutiny.votes or 1,
        critique=scrutiny.critique or scrutiny.principles is not None,
        principles=_principles(scrutiny),
    )


def run_options(request: Request, settings: Settings) -> RunOptions:
    """Return what a run asks, by the options given and by the profile where one is named.

    Raises:
        UsageError: The options contradict each other or the profile, or there is no such profile.
    """
    from chordwise.pipeline.intake.run_options import RunOptions  # noqa: PLC0415 - as below

    if request.profile:
        return profile_options(request, settings)
    return RunOptions(
        types=types_of(request),
        analysis=options_of(request),
        model=request.model or settings.model,
        name=request.run_name,
        fresh=request.reuse.fresh,
        use_cache=not request.reuse.no_cache,
        nightly=request.urgency.nightly,
        lane=request.urgency.lane or Lane.ONLINE,
        budget_usd=budget_of(request.budget),
        columns=columns_of(request),
    )


def profile_options(request: Request, settings: Settings) -> RunOptions:
    """Return what a run asks by a profile of the settings; the options given go before it.

    Raises:
        UsageError: There is no such profile, or it and the options contradict each other.
    """
    from chordwise.pipeline.intake.run_options import run_options  # noqa: PLC0415 - as below

    if request.profile not in settings.profiles:
        known = ", ".join(sorted(settings.profiles))
        hint = f"Known: {known}." if known else "[profiles.NAME] in chordwise.toml makes one."
        raise UsageError(f"There is no profile “{request.profile}”.", hint)
    given: dict[str, object] = {
        "types": tuple(request.types),
        "instructions": request.details.instructions,
        "schema_file": request.details.schema.absolute() if request.details.schema else None,
        "labels": _labels(request.details.labels),
        "model": request.model,
        "nightly": request.urgency.nightly,
        "lane": request.urgency.lane,
        "confidence_threshold": request.scrutiny.confidence_threshold,
        "votes": request.scrutiny.votes,
        "critique": request.scrutiny.critique,
        "principles": _principles(request.scrutiny),
        "budget_usd": budget_of(request.budget),
        "text_column": request.columns.text,
        "id_column": request.columns.identity,
    }
    changes = {name: value for name, value in given.items() if value}
    profile = settings.profiles[request.profile].model_copy(update=changes)
    options = run_options(settings, profile, request.run_name)
    return replace(options, fresh=request.reuse.fresh, use_cache=not request.reuse.no_cache)


def columns_of(request: Request) -> Columns:
    """Return how tables are read.

    Raises:
        UsageError: Rows are to be named, but not to be read one by one.
    """
    if request.columns.identity and not request.columns.text:
        raise UsageError("--id-column is for reading rows.", "Add --text-column NAME.")
    return request.columns


def budget_of(given: str | None) -> Decimal | None:
    """Return the amount that was given in US dollars; `None` where none was.

    Raises:
        UsageError: It is no amount that a run could keep to.
    """
    if given is None:
        return None
    from chordwise.pipeline.models.budgets import checked_cap  # noqa: PLC0415 - it costs what others need not pay

    try:
        return checked_cap(Decimal(given.strip().removeprefix("$")))
    except InvalidOperation as error:
        raise UsageError(f"A budget of {given} is no amount.", "--budget 2.50") from error


def _principles(scrutiny: Scrutiny) -> tuple[str, ...]:
    from chordwise.pipeline.intake.run_options import read_principles  # noqa: PLC0415 - as above

    return read_principles(scrutiny.principles) if scrutiny.principles else ()


def _labels(given: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(part for each in given.split(",") if (part := each.strip())))
    if given and len(labels) < 2:  # noqa: PLR2004 - the choice between one is none
        raise UsageError("A classification needs two labels or more.", "--labels invoice,letter")
    return labels
