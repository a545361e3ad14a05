"""Quality: Compare variants of a profile and promote the best one."""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, cast

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access, command
from chordwise.cli.command import EPILOG, Parsed, Values
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.experiments import CONTROL, Outcome, VariantVerdict
from chordwise.domain.learning.statistics import MIN_AMOUNTS
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted, interval
from chordwise.errors import UsageError
from chordwise.pipeline.exports.writers import new_file
from chordwise.pipeline.intake import experiments as guardrails
from chordwise.pipeline.learning import experiments
from chordwise.pipeline.learning.experiments import SHARES, ExperimentArguments
from chordwise.pipeline.models.model_client import Models
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment.")]
_HELP = """Compare variants of a profile and promote the best one.

chordwise experiment start shorter --profile contracts --variant terse:prompt=terse

chordwise experiment status shorter

chordwise experiment conclude shorter --promote terse
"""
_WIDTH = 40
_NOTHING = "–"
# A comma separates entries only before a name and “=”, so a value may contain commas.
_ENTRIES = re.compile(r",(?=[a-z_]+=)")


_TEXTS = dict.fromkeys((*SHARES, "budget_usd"), str)


def _arguments(values: Values) -> ExperimentArguments:
    return cast("ExperimentArguments", values)


Arguments: TypeAlias = Annotated[ExperimentArguments, Parsed(_arguments, outcome=Outcome, **_TEXTS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentOptions:
    """The options of `chordwise experiment start`."""

    profile: Annotated[
        str, typer.Option(metavar="NAME", help="The profile to vary; it is the control.")
    ]
    variant: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:KEY=VALUE[,…]",
            help="A variant and its changes, such as terse:prompt=terse; may be repeated.",
        ),
    ]


def start(
    invocation: Invocation, name: Name, options: ExperimentOptions, arguments: Arguments
) -> None:
    """Start an experiment. Documents of the profile are distributed among its variants.

    chordwise experiment start cheaper --profile contracts --variant small:model=small --paired 20%
    """
    variants = [_variant(written) for written in options.variant]
    settings = access.reach(invocation)
    with access.database(settings) as database:
        context = ReadingContext(settings=settings, database=database, models=Models(settings))
        begun = experiments.start(context, name, options.profile, variants, arguments)
    pairs = f"{begun.paired:.0%} are answered by all variants" if begun.paired else ""
    shares = f"{begun.share:.0%}{' of the rest' if pairs else ''} by each variant alone"
    invocation.screen.info(
        f"Started the experiment {name}. Of the documents of the profile {begun.profile}, "
        f"{' and '.join(filter(None, (pairs, shares if begun.share else '')))}."
    )
    invocation.screen.suggest(f"chordwise experiment status {name}")


def _variant(written: str) -> tuple[str, Mapping[str, str]]:
    """Return the name and the changes in NAME:KEY=VALUE,KEY=VALUE.

    Raises:
        UsageError: It has another form.
    """
    name, _, entries = written.partition(":")
    pairs = [entry.partition("=") for entry in _ENTRIES.split(entries)]
    if not all(key.strip() and separator for key, separator, _ in pairs):
        raise UsageError(
            f"“{written}” is not NAME:KEY=VALUE.", "Example: --variant terse:prompt=terse,votes=3"
        )
    return name.strip(), {key.strip(): value for key, _, value in pairs}


def status(
    invocation: Invocation,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of the experiment. Default: all.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare the variants of an experiment, or list all experiments.

    chordwise experiment status shorter
    """
    screen, settings = invocation.screen, access.reach(invocation)
    with access.read(settings) as session:
        if name:
            statuses = [experiments.status(session, settings, name)]
        else:
            statuses = experiments.statuses(session, settings)
    if as_json:
        screen.write_json(experiments=statuses)
    elif name:
        screen.show(*render(statuses[0]))
    elif statuses:
        names = ("Experiment", "Profile", "Outcome", "Documents", "Began", "State")
        screen.show(layouts.folded(names, list(map(_line, statuses)), right=("Documents",)))
    else:
        screen.info("There are no experiments. See `chordwise experiment start --help`.")


def conclude(
    invocation: Invocation,
    name: Name,
    *,
    promote: Annotated[
        str, typer.Option(metavar="VARIANT", help="Write this variant to the profile.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Change chordwise.toml without confirmation.")
    ] = False,
) -> None:
    """End an experiment, and optionally promote a variant. The answers are kept.

    chordwise experiment conclude shorter --promote terse
    """
    screen, settings = invocation.screen, access.reach(invocation)
    with access.database(settings) as database:
        with database.read() as session:
            experiments.find_running(session, name)
            report = experiments.status(session, settings, name)
        changes = {
            variant["name"]: variant["changes"]
            for variant in report["variants"]
            if variant["name"] != CONTROL
        }
        if promote and promote not in changes:
            known = ", ".join(changes)
            raise UsageError(f"There is no variant “{promote}”.", f"Known: {known}.")
        change = None
        if promote:
            for note in (*_notes(report), *_doubts(report, promote)):
                screen.info(note)
            change = _agreed_change(screen, settings, report["profile"], changes[promote], yes=yes)
        with database.write() as session:
            experiment = experiments.find_running(session, name)
            if promote and not (change and _is_written(screen, change)):
                screen.info("Make this change in the settings of the profile:")
                screen.info_verbatim(experiments.lines(report["profile"], changes[promote]))
            experiments.conclude(session, experiment, report, promote or None)
    screen.info(f"Concluded the experiment {name}. Its answers are kept.")


class _Change(NamedTuple):
    """A change of the settings file that the user agreed to."""

    path: Path
    before: str
    after: str


def _agreed_change(
    screen: Screen, settings: Settings, profile: str, changes: JsonObject, *, yes: bool
) -> _Change | None:
    """Show how the profile changes in the settings file; `None` if it is not in a file.

    Raises:
        UsageError: The user did not agree.
    """
    path = type(settings).toml_file
    before = path.read_text("utf-8") if path else ""
    after = experiments.promoted(before, profile, changes)
    if path is None or after is None:
        return None
    screen.write("".join(_diff(before, after, path)))
    if not yes:
        _require_consent(path)
    return _Change(path, before, after)


def _is_written(screen: Screen, change: _Change) -> bool:
    """Write the change, and return whether the file could be written.

    Raises:
        UsageError: The file is not the one that was shown.
    """
    path = change.path
    if not path.is_file() or path.read_text("utf-8") != change.before:
        raise UsageError(
            f"{path} has changed since the change was shown. Nothing was written.",
            "Run the command again.",
        )
    try:
        with new_file(path.resolve(), overwrite=True) as file:
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(change.after.encode())
    except UsageError as error:
        screen.info(error.what)
        return False
    screen.info(f"Changed {path}.")
    return True


def _diff(before: str, after: str, path: Path) -> Iterator[str]:
    lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
    # With one line around a change, no entry of another section is shown, such as a key.
    for line in difflib.unified_diff(*lines, str(path), str(path), n=1):
        yield line if line.endswith("\n") else f"{line}\n"


def _require_consent(path: Path) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"Changing {path} needs a confirmation.", "Confirm with --yes.")
    if not typer.confirm(f"Change {path}?", err=True):
        raise UsageError("Nothing was changed. The experiment continues.")


def _line(report: Row) -> Sequence[str]:
    documents = sum(variant["documents"] for variant in report["variants"])
    state = "running"
    if report["concluded_at"] is not None:
        state = f"promoted {report['promoted']}" if report["promoted"] else "concluded"
    names = [one_line(report[column], _WIDTH) for column in ("name", "profile")]
    return (
        *names,
        report["outcome"],
        f"{documents:,}",
        f"{report['created_at']:%Y-%m-%d}",
        state,
    )


def render(report: Row) -> Iterator[RenderableType]:
    """Return a table of the outcome, a table of the other measures, and notes."""
    outcome, variants = Outcome(report["outcome"]), report["variants"]
    level = f"Difference ({1 - report['risk']:.0%})"
    names = ("Variant", "Documents", "With outcome", outcome.capitalize(), level, "Verdict")
    rows = [_outcome_row(variant, _of(variant, outcome)) for variant in variants]
    yield layouts.folded(names, rows, right=("Documents", "With outcome"))
    others = [one for one in Outcome if one is not outcome]
    yield layouts.folded(
        ("Variant", *(one.capitalize() for one in others)),
        [(_named(variant), *(_cell(_of(variant, one)) for one in others)) for variant in variants],
    )
    for text in _notes(report):
        yield Text(one_line(text, 10 * _WIDTH), style="dim")


def _named(variant: Row) -> str:
    return one_line(variant["name"], _WIDTH)


def _of(variant: Row, outcome: Outcome) -> Row:
    compared: Row = next(one for one in variant["outcomes"] if one["outcome"] is outcome)
    return compared


def _outcome_row(variant: Row, compared: Row) -> Sequence[str]:
    documents = f"{variant['documents']:,}"
    if variant["paired"]:
        documents += f" ({variant['paired']:,} paired)"
    return (
        _named(variant),
        documents,
        f"{compared['documents']:,}",
        _mean(compared),
        _interval(compared),
        _verdict(variant, compared),
    )


def _mean(compared: Row) -> str:
    mean = compared["mean"]
    return _NOTHING if mean is None else _value(compared["outcome"], mean)


def _value(outcome: Outcome, value: float, sign: str = "") -> str:
    match outcome:
        case Outcome.COST:
            return f"{value:{sign}.5f} $"
        case Outcome.LATENCY:
            return f"{value:{sign}.2f} s"
        case _:
            return f"{value:{sign}.1%}"


def _interval(compared: Row) -> str:
    outcome, difference = compared["outcome"], compared["difference"]
    if difference is None or not difference.count:
        return _NOTHING
    shown = partial(_value, outcome, sign="+")
    mean = shown(difference.mean)
    is_bounded = outcome.is_share or difference.count >= MIN_AMOUNTS
    return f"{mean} ({interval(difference.low, difference.high, shown)})" if is_bounded else mean


def _cell(compared: Row) -> str:
    mean, verdict = _mean(compared), compared["verdict"]
    return mean if verdict in {None, VariantVerdict.UNDECIDED} else f"{mean}, {verdict}"


def _verdict(variant: Row, compared: Row) -> str:
    verdict: VariantVerdict | None = compared["verdict"]
    if verdict is None:
        return _NOTHING
    if variant["stopped_at"] is not None:
        return f"stopped; {verdict}"
    is_known = verdict is not VariantVerdict.UNDECIDED or variant["further"] is None
    return verdict if is_known else f"undecided; about {variant['further']:,} more needed"


def _notes(report: Row) -> Iterator[str]:
    variants, concluded_at = report["variants"], report["concluded_at"]
    for variant in variants:
        if variant["stopped_because"]:
            yield f"{variant['name']} was stopped: {variant['stopped_because']}"
    if report["outcome"] == Outcome.RIGHT and not any(
        _of(variant, Outcome.RIGHT)["documents"] for variant in variants
    ):
        yield "There is no feedback yet. Add some with `chordwise feedback`."
    if concluded_at is None and not report["is_current"]:
        yield (
            f"The profile {report['profile']} has changed since the experiment started, so the "
            "experiment receives no documents."
        )
    if report["budget_usd"] is not None:
        spent = dollars(report["spent_usd"])
        yield f"Additional answers of --paired: {spent} of {dollars(report['budget_usd'])} spent."
    if concluded_at is not None:
        how = f"; {report['promoted']} was promoted" if report["promoted"] else ""
        yield f"Concluded on {concluded_at:%Y-%m-%d}{how}."


def _doubts(report: Row, promote: str) -> Iterator[str]:
    """Yield a note if the comparison does not show that the promoted variant is better."""
    (variant,) = (one for one in report["variants"] if one["name"] == promote)
    verdict = _of(variant, Outcome(report["outcome"]))["verdict"]
    if verdict is not VariantVerdict.BETTER:
        yield (
            f"The comparison does not show that {promote} is better than the control: by the "
            f"outcome “{report['outcome']}”, it is {verdict}."
        )


def check(invocation: Invocation) -> None:
    """Stop variants that violate a guardrail.

    chordwise experiment check
    """
    occurrence = invocation.occurrence
    with access.database(access.reach(invocation)) as database:
        write = occurrence.write if occurrence else None
        stopped = guardrails.check(database, write=write)
    if occurrence is not None:
        occurrence.record({"stopped": stopped})
    invocation.screen.info(f"{counted(stopped, 'variant')} stopped.")


experiment = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP, epilog=EPILOG)
for _function in (start, status, check, conclude):
    command.add(experiment, _function.__name__, _function)
