"""The options of `analyze`, `submit` and `quote`, and the run options made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli.options import Budget, Model, NoWait, RunName, parse_budget, split_commas
from chordwise.domain.analysis_tasks import CONFIDENCE_THRESHOLD, MAX_VOTES, AnalysisType
from chordwise.domain.states import Lane
from chordwise.domain.visible_text import printable
from chordwise.errors import UsageError
from chordwise.pipeline.intake import run_options as intake_options
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.readers.discovery import STDIN
from chordwise.settings import ProfileSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The options as given, in the order of the help.

    An option that is not given is taken from the profile.
    """

    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, quoted patterns, or - for stdin."),
    ]
    profile: Annotated[
        str,
        typer.Option(metavar="NAME", help="Use [profiles.NAME]; options override it."),
    ] = ""
    pack: Annotated[
        str, typer.Option(metavar="NAME", help="Use a question pack: legal, financial, …")
    ] = ""
    types: Annotated[
        list[AnalysisType] | None,
        typer.Option("--type", "-t", help="Analysis type; may be repeated. Default: summary."),
    ] = None
    instructions: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What to focus on; for an extraction, the items to find."
        ),
    ] = ""
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="JSON Schema of an extraction.")
    ] = None
    labels: Annotated[
        str,
        typer.Option(metavar="A,B,C", help="Labels of a classification."),
    ] = ""
    labels_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of labels with their meanings.")
    ] = None
    answer_language: Annotated[
        str, typer.Option(metavar="TAG", help="Language of the answers, such as de.")
    ] = ""
    prompt: Annotated[
        str, typer.Option(metavar="NAME", help="Variant of the prompt templates in prompts.folder.")
    ] = ""
    text_column: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Text column: each row of CSV, JSONL, XLSX is a document."
        ),
    ] = ""
    id_column: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Column with the name of each row. Default: row numbers."
        ),
    ] = ""
    model: Model = None
    save_as: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Provide the answers as the SQL table answers.NAME."),
    ] = None
    run_name: RunName = ""
    no_wait: NoWait = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not reuse stored answers.")] = False
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Do not use the completion cache; implied by --fresh."),
    ] = False
    nightly: Annotated[
        bool, typer.Option("--nightly", help="Give the calls of other runs priority.")
    ] = False
    lane: Annotated[
        Lane | None, typer.Option(help="batch: half the price, within a day. Default: online.")
    ] = None
    confidence_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0…1",
            help="Mark answers below this for review. "
            f"Default: {CONFIDENCE_THRESHOLD}, or 0 for the built-in model.",
        ),
    ] = None
    votes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_VOTES,
            metavar="N",
            help="Ask each question N times and take the majority.",
        ),
    ] = None
    critique: Annotated[
        bool,
        typer.Option("--critique", help="Let the model check its answer and revise it once."),
    ] = False
    principles: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Principles for --critique, one on each line."),
    ] = None
    budget: Budget = None
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, whatever the expected cost.")
    ] = False
    learned_examples: Annotated[
        bool | None,
        typer.Option(help="Use corrected answers of the profile as examples."),
    ] = None


def run_options(request: RunRequest, settings: Settings) -> RunOptions:
    """Combine the given options with the named profile.

    Raises:
        UsageError: The options contradict each other or the profile, or the profile is unknown.
    """
    principles, labels_file = request.principles, request.labels_file
    given: dict[str, object] = {
        **{name: getattr(request, name) for name in PROFILE_OPTIONS},
        "types": tuple(request.types or ()),
        "schema_file": request.schema.absolute() if request.schema else None,
        "labels": split_commas(request.labels),
        "labels_file": labels_file.absolute() if labels_file else None,
        "principles": intake_options.read_principles(principles) if principles else (),
        "budget_usd": parse_budget(request.budget),
        "learned_examples": request.learned_examples,
    }
    profile = profile_with(settings, request.profile, given)
    options = intake_options.run_options(settings, profile, request.run_name, request.profile)
    return replace(options, fresh=request.fresh, use_cache=not request.no_cache)


def profile_with(settings: Settings, name: str, given: Mapping[str, object]) -> ProfileSettings:
    """Return the named profile, or an empty one, overridden by the given values.

    Raises:
        UsageError: The profile is unknown, `save_as` is blank, or a value is invalid.
    """
    if name and name not in settings.profiles:
        known = ", ".join(sorted(settings.profiles))
        hint = f"Known: {known}." if known else "Define it as [profiles.NAME] in chordwise.toml."
        raise UsageError(f"There is no profile “{name}”.", hint)
    save_as = given.get("save_as")
    if isinstance(save_as, str) and not save_as.strip():
        raise UsageError("--save-as needs a name.", "Example: --save-as contracts")
    changes = {key: value for key, value in given.items() if value}
    for each in ("confidence_threshold", "learned_examples"):
        if (value := given.get(each)) is not None:
            changes[each] = value  # 0 and false count as given
    if not _OF_LABELS.isdisjoint(changes):
        changes = {"labels": (), "labels_file": None} | changes
    if not {*_OF_LABELS, "schema_file"}.isdisjoint(changes):
        changes["examples_file"] = None  # its examples have the fields or labels of the profile
    profile = settings.profiles[name] if name else ProfileSettings()
    return intake_options.checked_profile(dict(profile) | changes)


_OF_LABELS = {"labels", "labels_file"}
PROFILE_OPTIONS = (
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
"""The options that a profile has under the same name and with the same type."""


def absolute(path: str) -> str:
    """Return a path argument made absolute; `-` is kept, and patterns stay patterns."""
    return path if path == STDIN else printable(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - it may be a pattern
