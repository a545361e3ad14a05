"""The options of `analyze`, `submit` and `quote`, and what a run asks of every document by them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli.options import Budget, Model, NoWait, budget_of
from chordwise.domain.states import Lane
from chordwise.domain.tasks import CONFIDENCE_THRESHOLD, MAX_VOTES, AnalysisType
from chordwise.domain.visible_text import printable
from chordwise.errors import UsageError
from chordwise.pipeline.intake import run_options as intake_options
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.readers.discovery import STDIN
from chordwise.settings import ProfileSettings, Settings


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
    learned_examples: Annotated[
        bool | None,
        typer.Option(help="Show what people said is right of the profile's answers as examples."),
    ] = None


def run_options(request: Request, settings: Settings) -> RunOptions:
    """Return what a run asks, by the options given and by the profile where one is named.

    Raises:
        UsageError: The options contradict each other or the profile, or there is no such profile.
    """
    principles, labels_file = request.principles, request.labels_file
    given: dict[str, object] = {
        **{name: getattr(request, name) for name in AS_IN_A_PROFILE},
        "types": tuple(request.types or ()),
        "schema_file": request.schema.absolute() if request.schema else None,
        "labels": tuple(part for each in request.labels.split(",") if (part := each.strip())),
        "labels_file": labels_file.absolute() if labels_file else None,
        "principles": intake_options.read_principles(principles) if principles else (),
        "budget_usd": budget_of(request.budget),
        "learned_examples": request.learned_examples,
    }
    profile = profile_with(settings, request.profile, given)
    options = intake_options.run_options(settings, profile, request.run_name, request.profile)
    return replace(options, fresh=request.fresh, use_cache=not request.no_cache)


def profile_with(settings: Settings, name: str, given: Mapping[str, object]) -> ProfileSettings:
    """Return the profile of a name, or an empty one without a name, with what is given before it.

    Raises:
        UsageError: There is no such profile, or the table of its answers has no name.
    """
    if name and name not in settings.profiles:
        known = ", ".join(sorted(settings.profiles))
        hint = f"Known: {known}." if known else "[profiles.NAME] in chordwise.toml makes one."
        raise UsageError(f"There is no profile “{name}”.", hint)
    save_as = given.get("save_as")
    if isinstance(save_as, str) and not save_as.strip():
        raise UsageError("--save-as has no name.", "Such as --save-as contracts; or leave it out.")
    changes = {key: value for key, value in given.items() if value}
    for each in ("confidence_threshold", "learned_examples"):
        if (said := given.get(each)) is not None:
            changes[each] = said  # 0 and false are one, too
    if not _OF_LABELS.isdisjoint(changes):
        changes = {"labels": (), "labels_file": None} | changes
    if not {*_OF_LABELS, "schema_file"}.isdisjoint(changes):
        changes["examples_file"] = None  # they show the answers that the profile asks for
    profile = settings.profiles[name] if name else ProfileSettings()
    return profile.model_copy(update=changes)


_OF_LABELS = {"labels", "labels_file"}
AS_IN_A_PROFILE = (
    "instructions",
    "answer_language",
    "pack",
    "prompt",
    "save_as",
    "model",
    "nightly",
    "lane",
    "confidence_threshold",
    "votes",
    "critique",
    "text_column",
    "id_column",
)
"""The options of a run that a profile has under the same name, with values of the same type."""


def absolute(path: str) -> str:
    """Return an argument as it means the same in every working folder."""
    return path if path == STDIN else printable(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - a pattern is no path
