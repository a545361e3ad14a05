"""Quality: Compare variants of a profile and promote the best one."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.command import Parsed, group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain import identifiers
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.experiments import CONTROL, Outcome, VariantVerdict
from chordwise.domain.learning.statistics import MIN_AMOUNTS
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted, interval
from chordwise.errors import UsageError
from chordwise.pipeline.exports.writers import new_file
from chordwise.pipeline.intake import experiments as guardrails
from chordwise.pipeline.learning import experiments
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen, confirmed
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
_TEXTS = dict.fromkeys((*experiments.SHARES, "budget_usd"), str)
_PARSED = Parsed(lambda values: values, outcome=Outcome, **_TEXTS)
Arguments: TypeAlias = Annotated[experiments.ExperimentArguments, _PARSED]


def start(
    invocation: Invocation,
    name: Name,
    *,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="The profile to vary; it is the control.")
    ],
    variant: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:KEY=VALUE[,…]",
            help="A variant and its changes, such as terse:prompt=terse; may be repeated.",
        ),
    ],
    arguments: Arguments,
) -> None:
    """Start an experiment. Documents of the profile are distributed among its variants.

    chordwise experiment start cheaper --profile contracts --variant small:model=small --paired 20%
    """
    variants = [_variant(written) for written in variant]
    with access.reading_context(access.reach(invocation)) as context:
        begun = experiments.start(context, name, profile, variants, arguments)
    pairs = f"{begun.paired:.0%} are answered by all variants" if begun.paired else ""
    shares = f"{begun.share:.0%}{' of the rest' if pairs else ''} by each variant alone"
    invocation.screen.info(
        f"Started the experiment {name}. Of the documents of the profile {begun.profile}, "
        f"{' and '.join(filter(None, (pairs, shares if begun.share else '')))}."
    )
    invocation.screen.suggest(f"chordwise experiment status {name}")


def _variant(written: str) -> tuple[str, Mapping[str, str]]:
    """Return the name and the changes in NAME:KEY=VALUE,KEY=VALUE."""
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
        statuses = experiments.status(session, settings, name or "")
    if as_json:
        screen.write_json(experiments=statuses)
    elif name:
        screen.show(*render(statuses[0]))
    elif statuses:
        names = ("Experiment", "Profile", "Outcome", "Documents", "Began", "State")
        screen.show(layouts.folded(names, map(_line, statuses), right=("Documents",)))
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
            (report,) = experiments.status(session, settings, name)
        variants = {row["name"]: row for row in report["variants"] if row["name"] != CONTROL}
        if promote and promote not in variants:
            hint = identifiers.known_names(promote, variants)
            raise UsageError(f"There is no variant “{promote}”.", hint)
        changes: JsonObject = variants[promote]["changes"] if promote else {}
        change = None
        if promote:
            for note in _notes(report):
                screen.info(note)
            verdict = _of(variants[promote], Outcome(report["outcome"]))["verdict"]
            if verdict is not VariantVerdict.BETTER:
                screen.info(
                    f"The comparison does not show that {promote} is better than the control: by "
                    f"the outcome “{report['outcome']}”, it is {verdict}."
                )
            change = _agreed_change(screen, settings, report["profile"], changes, yes=yes)
        with database.write() as session:
            experiment = experiments.find_running(session, name)
            if promote and not (change and _is_written(screen, *change)):
                screen.info("Make this change in the settings of the profile:")
                screen.info_verbatim(experiments.lines(report["profile"], changes))
            experiments.conclude(session, experiment, report, promote or None)
    screen.info(f"Concluded the experiment {name}. Its answers are kept.")


def _agreed_change(
    screen: Screen, settings: Settings, profile: str, changes: JsonObject, *, yes: bool
) -> tuple[Path, str, str] | None:
    """Show how the profile changes; return the settings file with its old and its new content.

    `None` if the profile is not defined in a file.
    """
    path = type(settings).toml_file
    before = path.read_text("utf-8") if path else ""
    after = experiments.promoted(before, profile, changes)
    if path is None or after is None:
        return None
    lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
    # With one line around a change, no entry of another section is shown, such as a key.
    diff = difflib.unified_diff(*lines, str(path), str(path), n=1)
    screen.write("".join(line if line.endswith("\n") else f"{line}\n" for line in diff))
    if not yes and not confirmed(f"Change {path}?", f"Changing {path} needs a confirmation."):
        raise UsageError("Nothing was changed. The experiment continues.")
    return path, before, after


def _is_written(screen: Screen, path: Path, before: str, after: str) -> bool:
    """Write the changed settings file, and return whether it could be written."""
    if not path.is_file() or path.read_text("utf-8") != before:
        raise UsageError(
            f"{path} has changed since the change was shown. Nothing was written.",
            "Run the command again.",
        )
    try:
        with new_file(path.resolve(), overwrite=True) as file:
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(after.encode())
    except UsageError as error:
        screen.info(error.what)
        return False
    screen.info(f"Changed {path}.")
    return True


def _line(report: Row) -> Sequence[str]:
    documents = sum(variant["documents"] for variant in report["variants"])
    state = "running" if report["concluded_at"] is None else "concluded"
    if report["promoted"]:
        state = f"promoted {report['promoted']}"
    names = [one_line(report[column], _WIDTH) for column in ("name", "profile")]
    return *names, report["outcome"], f"{documents:,}", f"{report['created_at']:%Y-%m-%d}", state


def render(report: Row) -> Iterator[RenderableType]:
    """Return a table of the outcome, a table of the other measures, and notes."""
    outcome, variants = Outcome(report["outcome"]), report["variants"]
    level = f"Difference ({1 - report['risk']:.0%})"
    names = ("Variant", "Documents", "With outcome", outcome.capitalize(), level, "Verdict")
    others = [one for one in Outcome if one is not outcome]
    rows, rows_of_others = [], []
    for variant in variants:
        name, compared = one_line(variant["name"], _WIDTH), _of(variant, outcome)
        paired = f" ({variant['paired']:,} paired)" if variant["paired"] else ""
        documents = f"{variant['documents']:,}{paired}", f"{compared['documents']:,}"
        difference, verdict = _interval(compared), _verdict(variant, compared)
        rows.append((name, *documents, _mean(compared), difference, verdict))
        rows_of_others.append((name, *(_cell(_of(variant, one)) for one in others)))
    yield layouts.folded(names, rows, right=("Documents", "With outcome"))
    names_of_others = ("Variant", *(one.capitalize() for one in others))
    yield layouts.folded(names_of_others, rows_of_others)
    for text in _notes(report):
        yield Text(one_line(text, 10 * _WIDTH), style="dim")


def _of(variant: Row, outcome: Outcome) -> Row:
    compared: Row = next(one for one in variant["outcomes"] if one["outcome"] is outcome)
    return compared


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


experiment = group(_HELP, start=start, status=status, check=check, conclude=conclude)
