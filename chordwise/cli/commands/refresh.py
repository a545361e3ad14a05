"""Runs: Renew stale answers from the stored texts."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access, run_watch
from chordwise.cli.command import Parsed, Values
from chordwise.cli.commands import quote
from chordwise.cli.commands.analyze import RunIntake
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, NoWait, RunOrProfile, Yes
from chordwise.cli.run_watch import suggest
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.learning.statistics import wilson
from chordwise.domain.number_formats import approximate, counted, interval, share
from chordwise.domain.states import Lane
from chordwise.embedded.home import Level
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import refresh as refreshing
from chordwise.pipeline.learning.refresh import RefreshArguments, RefreshReason, Target
from chordwise.pipeline.models.budgets import parse_budget
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.quoting.quote import Quote
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations import accounts
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import confirmed
from chordwise.settings import Settings
from chordwise.storage.database import driver

_WIDTH = 60
_SAMPLE = "--try 50"


def _arguments(values: Values) -> Values:
    if "budget_usd" in values:
        values["budget_usd"] = parse_budget(str(values["budget_usd"]))
    return values


Arguments: TypeAlias = Annotated[RefreshArguments, Parsed(_arguments, budget_usd=str)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """The options of the command."""

    run: RunOrProfile = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what is stale and the cost of renewing it.")
    ] = False
    tries: Annotated[
        int | None,
        typer.Option(
            "--try", min=1, metavar="N", help="Renew a sample of N documents and show what changes."
        ),
    ] = None
    yes: Yes = False
    no_wait: NoWait = False


def refresh(
    invocation: Invocation,
    options: RefreshOptions,
    arguments: Arguments,
    *,
    as_json: AsJson = False,
) -> ExitCode:
    """Renew stale answers from the stored texts. No file is read again.

    chordwise refresh contracts --dry-run

    chordwise refresh --profile contracts --try 50

    chordwise refresh --profile contracts --lane batch --yes
    """
    if options.tries and arguments.get("failed"):
        raise UsageError(
            "--try cannot be used with --failed: a failed analysis has no answer to compare with.",
            "Omit --try.",
        )
    if options.tries and options.no_wait:
        raise UsageError("--try cannot be used with --no-wait.", "Omit --no-wait.")
    with access.reading_context(access.reach(invocation)) as context:
        work = _Work(invocation, options, arguments, context)
    if not as_json:
        work.show()
    ends, total = options.dry_run or not work.quote.documents, work.quote.total
    is_free = total is not None and not total.high
    cost = quoting.amount(total)
    if not (ends or options.yes or is_free) and not confirmed(
        f"Renew the answers of {counted(work.quote.documents, 'document')}? Cost: {cost}.",
        f"This needs a confirmation. Cost: {cost}.",
        "Confirm with --yes, or use --dry-run.",
    ):
        invocation.screen.info("Cancelled. No answer was renewed.")
        ends = True
    if ends:
        if as_json:
            invocation.screen.write_json(**work.members, quote=quoting.members(work.quote))
        return ExitCode.SUCCESS
    reached = access.with_model(invocation, invocation.settings(), work.target.options.model)
    reached = access.reach(invocation, reached, Level.ALL)
    return work.carry_out(reached, as_json=as_json)


class _Work:
    """One refresh: its target, the stale answers or the sample of --try, and their quote.

    `members` are those of the JSON document about the answers. A sample is always asked online, as
    the command waits for it.
    """

    def __init__(
        self,
        invocation: Invocation,
        options: RefreshOptions,
        arguments: RefreshArguments,
        context: ReadingContext,
    ) -> None:
        self._invocation, self._options, self._arguments = invocation, options, arguments
        lane = arguments.get("lane")
        self._lane = lane and Lane(lane)
        note = invocation.screen.note
        self.target = refreshing.requested(context, options.run, arguments, note)
        self.members: Row = {
            "stale": refreshing.survey(context, self.target),
            "transcribed_by_others": refreshing.transcribed_by_others(context, self.target),
        }
        self._first = self.target
        self._sample: Sequence[Row] = ()
        self._only: Collection[uuid.UUID] | None = None
        if options.tries:
            online = replace(self.target.options, lane=Lane.ONLINE)
            self._first = replace(self.target, options=online)
            self._sample = refreshing.draw(context, self.target, options.tries)
            self._only = {row["document_id"] for row in self._sample}
        self.quote = _quoted(context, self._first, self._only)

    def show(self) -> None:
        """Show the stale answers and the cost of renewing them, or the sample of them."""
        screen, is_failed = self._invocation.screen, self._arguments.get("failed")
        if others := self.members["transcribed_by_others"]:
            screen.info(
                f"Another model read pages of {counted(others, 'document')}. Their "
                "texts are kept; submit the files again to read them with the current model."
            )
        if not (stale := self.members["stale"]):
            screen.info(
                "There are no failed or partial answers without a complete one of another run."
                if is_failed
                else "There are no stale answers."
            )
            return
        screen.show(_table(stale, "Failed" if is_failed else "Stale"))
        if self._only is None:
            screen.show(*quote.render(self.quote, self._lane, _SAMPLE))
            return
        screen.show(Text(f"A sample of {counted(self.quote.documents, 'document')}, asked online:"))
        screen.show(*quote.render(self.quote, Lane.ONLINE, ""))

    def carry_out(self, settings: Settings, *, as_json: bool) -> ExitCode:
        """Take the stored documents in as a new run; wait for it and show its results."""
        intake = RunIntake(self._invocation, settings)
        with access.working_context(self._invocation, settings) as context:
            now = datetime.now(UTC)  # noqa: TID251 - the clock
            submission = refreshing.begin(context, self._first, now, self._only)
            intake.screen.info(f"Renewing the answers in run {submission.name}.")
            account = intake.take_in(context, submission)
        if self._only is None or account.is_interrupted:
            return intake.conclude(account, waits=not self._options.no_wait, as_json=as_json)
        return self._conclude(settings, account.run_id, as_json=as_json)

    def _conclude(self, settings: Settings, run_id: uuid.UUID, *, as_json: bool) -> ExitCode:
        """Wait for the run of a sample, compare its answers with the old ones, quote the rest."""
        with access.reading_context(settings) as context:
            database = context.database
            try:
                run_watch.wait_with_progress(self._invocation, settings, database, run_id)
            except KeyboardInterrupt:
                return run_watch.report_detached(
                    self._invocation, settings, str(run_id), was_interrupted=True
                )
            trials = refreshing.compare(database, self._sample, run_id)
            rest = _quoted(context, self.target, None)
            with database.read() as session:
                account = accounts.of_run(driver(session), run_id)
        screen = self._invocation.screen
        if as_json:
            screen.write_json(
                **self.members, run=account, trials=trials, rest=quoting.members(rest)
            )
        else:
            due: Counter[AnalysisType] = Counter()
            for row in self.members["stale"]:
                due[row["analysis_type"]] += row["due"]
            screen.show(*compared(trials, due))
            screen.show(Text("The rest:"), *quote.render(rest, self._lane, ""))
            screen.info("Show the new answers, or renew the rest, with:")
            suggest(self._invocation, settings, "results", "--run", account.run)
            renewed = [self._options.run] if self._options.run else []
            for name in ("profile", "model", "lane", "budget_usd"):
                if value := self._arguments.get(name):
                    renewed += [f"--{name.removesuffix('_usd')}", str(value)]
            suggest(self._invocation, settings, "refresh", *renewed)
        return ExitCode.SUCCESS if account.is_complete else ExitCode.INCOMPLETE


def _quoted(context: ReadingContext, target: Target, only: Collection[uuid.UUID] | None) -> Quote:
    documents = refreshing.documents(context, target, only)
    return quoting.estimate(context, documents, target.options)


_NAMES = ("Type", "Why", "Documents", "Results")


def _table(stale: Sequence[Row], due: str) -> RenderableType:
    rows = [
        (
            row["analysis_type"],
            ", ".join(_in_words(reason, was) for reason, was in row["reasons"].items()),
            *(f"{row[name]:,}" for name in ("documents", "results", "due")),
        )
        for row in stale
    ]
    numbers = (*_NAMES[2:], due)
    return layouts.folded((*_NAMES, due), rows, ("Type", *numbers), right=numbers)


def _in_words(reason: RefreshReason, was: str) -> str:
    if not was:
        return reason.value
    is_earlier = reason in {RefreshReason.MODEL, RefreshReason.TEMPLATE}
    return f"{reason.value} ({'was ' if is_earlier else ''}{one_line(was, _WIDTH)})"


_COUNTS = ("documents", "fields", "changed", "checked", "better", "worse")


def compared(trials: Sequence[Row], due: Mapping[AnalysisType, int]) -> Iterator[RenderableType]:
    """Return how a sample differs from the old answers, extrapolated to all stale answers.

    `due` is the number of stale answers of each type.
    """
    rows = [(trial["analysis_type"], *(f"{trial[name]:,}" for name in _COUNTS)) for trial in trials]
    names = ("Type", *(name.capitalize() for name in _COUNTS))
    yield layouts.folded(names, rows, names, right=names[1:])
    for trial in trials:
        lines = _of_trial(trial, due[trial["analysis_type"]])
        yield from (Text(f"{trial['analysis_type']}: {line}") for line in lines)


def _of_trial(trial: Row, due: int) -> Iterator[str]:
    fields, decided = trial["fields"], trial["better"] + trial["worse"]
    if trial["unanswered"]:
        yield f"{counted(trial['unanswered'], 'document')} without a new answer."
    if not fields:
        return
    changed = trial["changed"] / fields
    bounds = interval(trial["low"], trial["high"], share)
    stale = fields / trial["documents"] * due
    yield (
        f"{share(changed)} of the fields changed (95 % interval: {bounds}); extrapolated: "
        f"{approximate(round(stale * changed))} of {approximate(round(stale))} stale fields."
    )
    if decided:
        bounds = interval(*wilson(trial["better"], decided), share)
        yield (
            f"of {counted(decided, 'change')} with a known right value, "
            f"{share(trial['better'] / decided)} are improvements (95 % interval: {bounds})."
        )
