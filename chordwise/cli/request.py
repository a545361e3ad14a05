"""The options of `analyze`, `submit` and `quote`, and what a run asks of every document by them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chordwise.cli.options import Budget, Model, NoWait
from chordwise.domain.states import Lane
from chordwise.domain.tasks import (
    CONFIDENCE_THRESHOLD,
    MAX_VOTES,
    AnalysisOptions,
    AnalysisType,
    implied_types,
)
from chordwise.errors import UsageError
from chordwise.readers.extracted import Columns
from chordwise.settings import Settings

if TYPE_CHECKING:
    from chordwise.pipeline.intake.run_options import RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options as they are given; the order is that of the help.

    No lane and no number of votes are not a word about them: a profile may have one.
    """

    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, patterns in quotes, or - for stdin."),
    ]
    profile: Annotated[
        str,
        typer.Option(metavar="NAME", help="Ask what [profiles.NAME] says; options go before it."),
    ] = ""
    pack: Annotated[
        str, typer.Option(metavar="NAME", help="Ask what a field asks first: legal, financial, …")
    ] = ""
    types: Annotated[
        list[AnalysisType] | None,
        typer.Option("--type", "-t", help="What to find out; may be repeated. Default: summary."),
    ] = None
    instructions: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What to pay attention to; for extraction: the items."),
    ] = ""
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A JSON Schema for an extraction.")
    ] = None
    labels: Annotated[
        str,
        typer.Option(metavar="A,B,C", help="The labels to choose from in a classification."),
    ] = ""
    labels_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The labels with what they mean.")
    ] = None
    answer_language: Annotated[
        str, typer.Option(metavar="TAG", help="Answer in this language, such as de.")
    ] = ""
    prompt: Annotated[
        str, typer.Option(metavar="NAME", help="Templates of this variant in prompts.folder.")
    ] = ""
    text_column: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="CSV, JSONL, workbooks: a document per row, text from here."
        ),
    ] = ""
    id_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="The column that names the rows; else their numbers."),
    ] = ""
    model: Model = None
    save_as: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show the answers as the table answers.NAME.")
    ] = None
    run_name: Annotated[
        str, typer.Option(metavar="NAME", help="What to call the run; made up where not given.")
    ] = ""
    no_wait: NoWait = False
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again even where an answer is stored.")
    ] = False
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Use no completion again; --fresh implies it.")
    ] = False
    nightly: Annotated[
        bool, typer.Option("--nightly", help="Let the calls of other runs go first.")
    ] = False
    lane: Annotated[
        Lane | None, typer.Option(help="batch: half the price, within a day; else online.")
    ] = None
    confidence_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0…1",
            help=f"Mark answers below this for review; {CONFIDENCE_THRESHOLD}.",
        ),
    ] = None
    votes: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_VOTES, metavar="N", help="Ask each question N times and let them vote."
        ),
    ] = None
    critique: Annotated[
        bool,
        typer.Option("--critique", help="Examine the answer about a document, and revise it once."),
    ] = False
    principles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Examine by these, one on each line.")
    ] = None
    budget: Budget = None


def types_of(request: Request) -> tuple[AnalysisType, ...]:
    """Return the types to run: a schema or labels alone say which."""
    has_labels = bool(request.labels or request.labels_file)
    has_schema = request.schema is not None
    return implied_types(request.types or (), schema=has_schema, labels=has_labels)


def options_of(request: Request) -> AnalysisOptions:
    """Return what the analyses are told.

    Raises:
        UsageError: Options contradict each other, or the schema cannot be used.
    """
    from chordwise.pipeline.intake.run_options import (  # noqa: PLC0415 - as below
        checked_language,
        labels_of,
        read_schema,
    )

    types = types_of(request)
    labels, descriptions = labels_of(_labels(request.labels), request.labels_file)
    if request.schema is not None and AnalysisType.EXTRACTION not in types:
        raise UsageError("--schema is for extractions.", "Add --type extraction.")
    if labels and AnalysisType.CLASSIFICATION not in types:
        raise UsageError("--labels is for classifications.", "Add --type classification.")
    return AnalysisOptions(
        instructions=request.instructions.strip(),
        labels=labels,
        label_descriptions=descriptions,
        answer_language=checked_language(request.answer_language),
        schema=read_schema(request.schema) if request.schema else None,
        confidence_threshold=(
            CONFIDENCE_THRESHOLD
            if request.confidence_threshold is None
            else request.confidence_threshold
        ),
        votes=request.votes or 1,
        critique=request.critique or request.principles is not None,
        principles=_principles(request),
    )


def run_options(request: Request, settings: Settings) -> RunOptions:
    """Return what a run asks, by the options given and by the profile where one is named.

    Raises:
        UsageError: The options contradict each other or the profile, or there is no such profile.
    """
    from chordwise.pipeline.intake.run_options import RunOptions, completed  # noqa: PLC0415 - as below

    if request.save_as is not None and not request.save_as.strip():
        raise UsageError("--save-as has no name.", "Such as --save-as contracts; or leave it out.")
    if request.profile:
        return profile_options(request, settings)
    options = RunOptions(
        types=types_of(request),
        analysis=options_of(request),
        model=request.model or settings.model,
        name=request.run_name,
        save_as=request.save_as or "",
        fresh=request.fresh,
        use_cache=not request.no_cache,
        nightly=request.nightly,
        lane=request.lane or Lane.ONLINE,
        budget_usd=budget_of(request.budget),
        columns=columns_of(request),
    )
    asked = request.types or ()
    return completed(settings, options, asked, pack=request.pack, prompt=request.prompt)


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
        **{name: getattr(request, name) for name in _AS_IN_A_PROFILE},
        "types": tuple(request.types or ()),
        "schema_file": request.schema.absolute() if request.schema else None,
        "labels": _labels(request.labels),
        "labels_file": request.labels_file.absolute() if request.labels_file else None,
        "principles": _principles(request),
        "budget_usd": budget_of(request.budget),
    }
    changes = {name: value for name, value in given.items() if value}
    if not _OF_LABELS.isdisjoint(changes):
        changes = {"labels": (), "labels_file": None} | changes
    if not {*_OF_LABELS, "schema_file"}.isdisjoint(changes):
        changes["examples_file"] = None  # they show the answers that the profile asks for
    if request.confidence_threshold is not None:
        changes["confidence_threshold"] = request.confidence_threshold
    profile = settings.profiles[request.profile].model_copy(update=changes)
    options = run_options(settings, profile, request.run_name)
    return replace(options, fresh=request.fresh, use_cache=not request.no_cache)


_OF_LABELS = {"labels", "labels_file"}
_AS_IN_A_PROFILE = (
    "instructions",
    "answer_language",
    "pack",
    "prompt",
    "save_as",
    "model",
    "nightly",
    "lane",
    "votes",
    "critique",
    "text_column",
    "id_column",
)


def columns_of(request: Request) -> Columns:
    """Return how tables are read.

    Raises:
        UsageError: Rows are to be named, but not to be read one by one.
    """
    if request.id_column and not request.text_column:
        raise UsageError("--id-column is for reading rows.", "Add --text-column NAME.")
    return Columns(text=request.text_column, identity=request.id_column)


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


def _principles(request: Request) -> tuple[str, ...]:
    from chordwise.pipeline.intake.run_options import read_principles  # noqa: PLC0415 - as above

    return read_principles(request.principles) if request.principles else ()


def _labels(given: str) -> tuple[str, ...]:
    return tuple(part for each in given.split(",") if (part := each.strip()))
