"""`chordwise experiment`: compare variants of a profile and promote the best one."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
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
from chordwise.domain.number_formats import counted
from chordwise.errors import UsageError
from chordwise.pipeline.intake import experiments as guardrails
from chordwise.pipeline.learning import experiments
from chordwise.pipeline.learning.experiments import (
    SHARES,
    ComparedVariant,
    ExperimentArguments,
    Status,
    Variant,
    VariantStatus,
)
from chordwise.pipeline.models.model_client import Models
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings
from chordwise.storage import experiments as stored

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


def _arguments(given: Values) -> ExperimentArguments:
    return cast("ExperimentArguments", given)


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
    variants = [_variant(each) for each in options.variant]
    plan = experiments.planned(name, options.profile, variants, arguments)
    settings = access.reach(invocation)
    with access.database(settings) as database:
        context = ReadingContext(settings=settings, database=database, models=Models(settings))
        begun = experiments.start(context, plan)
    pairs = f"{begun.paired:.0%} are answered by all variants" if begun.paired else ""
    shares = f"{begun.share:.0%}{' of the rest' if pairs else ''} by each variant alone"
    invocation.screen.info(
        f"Started the experiment {name}. Of the documents of the profile {begun.profile}, "
        f"{' and '.join(filter(None, (pairs, shares if begun.share else '')))}."
    )
    invocation.screen.suggest(f"chordwise experiment status {name}")


def _variant(given: str) -> Variant:
    """Parse NAME:KEY=VALUE,KEY=VALUE.

    Raises:
        UsageError: It has another form.
    """
    name, _, entries = given.partition(":")
    pairs = [each.partition("=") for each in _ENTRIES.split(entries)]
    if not all(key.strip() and separator for key, separator, _ in pairs):
        raise UsageError(
            f"“{given}” is not NAME:KEY=VALUE.", "Example: --variant terse:prompt=terse,votes=3"
        )
    return Variant(name=name.strip(), changes={key.strip(): value for key, _, value in pairs})


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
        found = [experiments.find(session, name)] if name else stored.listed(session)
        statuses = [experiments.status(session, settings, each) for each in found]
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
            experiment = experiments.find_running(session, name)
            found = experiments.status(session, settings, experiment)
        changes = {each.name: each.changes for each in found.variants if each.name != CONTROL}
        if promote and promote not in changes:
            known = ", ".join(changes)
            raise UsageError(f"There is no variant “{promote}”.", f"Known: {known}.")
        change = None
        if promote:
            for note in (*_notes(found), *_doubts(found, promote)):
                screen.info(note)
            change = _agreed_change(screen, settings, found.profile, changes[promote], yes=yes)
        with database.write() as session:
            experiment = experiments.find_running(session, name, lock=True)
            if promote and not (change and _is_written(screen, change)):
                screen.info("Make this change in the settings of the profile:")
                screen.info_verbatim(experiments.lines(found.profile, changes[promote]))
            experiments.conclude(session, experiment, found, promote or None)
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
    try:
        if path.read_text("utf-8") != change.before:
            raise UsageError(
                f"{path} has changed since the change was shown. Nothing was written.",
                "Run the command again.",
            )
        _replace(path, change.after)
    except OSError as error:
        screen.info(f"{path} cannot be written: {error.strerror or type(error).__name__}.")
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


def _replace(path: Path, content: str) -> None:
    """Replace a file atomically and keep its permissions."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, name)
        Path(name).replace(target)
    except OSError:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _line(found: Status) -> Sequence[str]:
    documents = sum(each.documents for each in found.variants)
    state = "running"
    if found.concluded_at is not None:
        state = f"promoted {found.promoted}" if found.promoted else "concluded"
    began = f"{found.created_at:%Y-%m-%d}"
    names = [one_line(each, _WIDTH) for each in (found.name, found.profile)]
    return *names, found.outcome, f"{documents:,}", began, state


def render(found: Status) -> Iterator[RenderableType]:
    """Return a table of the outcome, a table of the other measures, and notes."""
    level = f"Difference ({1 - found.risk:.0%})"
    names = ("Variant", "Documents", "With outcome", found.outcome.capitalize(), level, "Verdict")
    rows = [_outcome_row(found, each) for each in found.variants]
    yield layouts.folded(names, rows, right=("Documents", "With outcome"))
    others = [each for each in Outcome if each is not found.outcome]
    yield layouts.folded(
        ("Variant", *(each.capitalize() for each in others)),
        [(_named(each), *(_cell(_of(each, one)) for one in others)) for each in found.variants],
    )
    for text in _notes(found):
        yield Text(one_line(text, 10 * _WIDTH), style="dim")


def _named(each: VariantStatus) -> str:
    return one_line(each.name, _WIDTH)


def _of(variant: VariantStatus, outcome: Outcome) -> ComparedVariant:
    (found,) = (each for each in variant.outcomes if each.outcome is outcome)
    return found


def _outcome_row(found: Status, each: VariantStatus) -> Sequence[str]:
    compared = _of(each, found.outcome)
    documents = f"{each.documents:,}"
    if each.paired:
        documents += f" ({each.paired:,} paired)"
    return (
        _named(each),
        documents,
        f"{compared.documents:,}",
        _mean(compared),
        _interval(compared),
        _verdict(each, compared),
    )


def _mean(compared: ComparedVariant) -> str:
    return _NOTHING if compared.mean is None else _value(compared.outcome, compared.mean)


def _value(outcome: Outcome, value: float, sign: str = "") -> str:
    match outcome:
        case Outcome.COST:
            return f"{value:{sign}.5f} $"
        case Outcome.LATENCY:
            return f"{value:{sign}.2f} s"
        case _:
            return f"{value:{sign}.1%}"


def _interval(compared: ComparedVariant) -> str:
    found = compared.difference
    if found is None or not found.count:
        return _NOTHING
    shown = _value(compared.outcome, found.mean, "+")
    if not compared.outcome.is_share and found.count < MIN_AMOUNTS:
        return shown
    low, high = (_value(compared.outcome, each, "+") for each in (found.low, found.high))
    return f"{shown} ({low} … {high})"


def _cell(compared: ComparedVariant) -> str:
    mean = _mean(compared)
    if compared.verdict in {None, VariantVerdict.UNDECIDED}:
        return mean
    return f"{mean}, {compared.verdict}"


def _verdict(each: VariantStatus, compared: ComparedVariant) -> str:
    if compared.verdict is None:
        return _NOTHING
    if each.stopped_at is not None:
        return f"stopped; {compared.verdict}"
    if compared.verdict is not VariantVerdict.UNDECIDED:
        return compared.verdict
    if each.further is None:
        return "undecided"
    return f"undecided; about {each.further:,} more needed"


def _notes(found: Status) -> Iterator[str]:
    for each in found.variants:
        if each.stopped_because:
            yield f"{each.name} was stopped: {each.stopped_because}"
    if found.outcome is Outcome.RIGHT and not any(
        _of(each, found.outcome).documents for each in found.variants
    ):
        yield "There is no feedback yet. Add some with `chordwise feedback`."
    if found.concluded_at is None and not found.is_current:
        yield (
            f"The profile {found.profile} has changed since the experiment started, so the "
            "experiment receives no documents."
        )
    if found.budget_usd is not None:
        spent = dollars(found.spent_usd or Decimal(0))
        yield f"Additional answers of --paired: {spent} of {dollars(found.budget_usd)} spent."
    if found.concluded_at is not None:
        how = f"; {found.promoted} was promoted" if found.promoted else ""
        yield f"Concluded on {found.concluded_at:%Y-%m-%d}{how}."


def _doubts(found: Status, promote: str) -> Iterator[str]:
    """Yield a note if the comparison does not show that the promoted variant is better."""
    (variant,) = [each for each in found.variants if each.name == promote]
    verdict = _of(variant, found.outcome).verdict or VariantVerdict.UNDECIDED
    if verdict is not VariantVerdict.BETTER:
        yield (
            f"The comparison does not show that {promote} is better than the control: by the "
            f"outcome “{found.outcome}”, it is {verdict}."
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
for _each in (start, status, check, conclude):
    command.add(experiment, _each.__name__, _each)
