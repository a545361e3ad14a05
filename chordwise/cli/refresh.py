"""`chordwise refresh`: find stale answers, estimate the cost of new ones, and renew them."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access, quote, run_watch
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import (
    AsJson,
    Budget,
    Model,
    NoWait,
    RunName,
    RunOrProfile,
    Yes,
    parse_budget,
)
from chordwise.cli.rendering import layouts
from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.request import profile_with
from chordwise.cli.run_watch import suggest
from chordwise.cli.submit import RunIntake
from chordwise.domain import number_formats
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.learning.measures import wilson
from chordwise.domain.number_formats import approximate, counted
from chordwise.domain.states import Lane
from chordwise.embedded.home import Level
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.intake.run_options import RunOptions, run_options
from chordwise.pipeline.learning import evaluation
from chordwise.pipeline.learning import refresh as refreshing
from chordwise.pipeline.learning.refresh import RefreshReason, RefreshTrial, Sample, Stale, Target
from chordwise.pipeline.models.model_client import Models
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.quoting.quote import Quote
from chordwise.pipeline.runs import accounts
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.settings import Settings
from chordwise.storage.runs import Run

_WIDTH = 60
_SAMPLE = "--try 50"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """The options of the command."""

    run: RunOrProfile = None
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Use [profiles.NAME] as it is now.")
    ] = ""
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what is stale and the cost of renewing it.")
    ] = False
    tries: Annotated[
        int | None,
        typer.Option(
            "--try", min=1, metavar="N", help="Renew a sample of N documents and show what changes."
        ),
    ] = None
    failed: Annotated[
        bool, typer.Option("--failed", help="Renew only failed and partial analyses, stale or not.")
    ] = False
    model: Model = None
    lane: Annotated[
        Lane | None, typer.Option(help="batch: half the price. Default: as in the run or profile.")
    ] = None
    budget: Budget = None
    run_name: RunName = ""
    yes: Yes = False
    no_wait: NoWait = False


def refresh(
    invocation: Invocation, options: RefreshOptions, *, as_json: AsJson = False
) -> ExitCode:
    """Renew stale answers from the stored texts. No file is read again.

    chordwise refresh contracts --dry-run

    chordwise refresh --profile contracts --try 50

    chordwise refresh --profile contracts --lane batch --yes
    """
    refuse_contradictions(options)
    settings = access.reach(invocation)
    with access.database(settings) as database:
        context = ReadingContext(settings=settings, database=database, models=Models(settings))
        work = _Work(invocation, options, context)
        made = work.quote()
    if not as_json:
        work.show(made)
    ends = options.dry_run or not made.documents
    if not ends and not _is_agreed(options, made):
        invocation.screen.info("Cancelled. No answer was renewed.")
        ends = True
    if ends:
        if as_json:
            invocation.screen.write_json(**work.members(), quote=quote.members(made))
        return ExitCode.SUCCESS
    reached = access.with_model(invocation, invocation.settings(), work.target.options.model)
    reached = access.reach(invocation, reached, Level.ALL)
    return work.carry_out(reached, as_json=as_json)


def refuse_contradictions(options: RefreshOptions) -> None:
    """Check that the options do not contradict each other.

    Raises:
        UsageError: They do.
    """
    if not options.run and not options.profile:
        raise UsageError("Name a run or a profile.", "Example: chordwise refresh latest --dry-run")
    if options.tries and options.failed:
        raise UsageError(
            "--try cannot be used with --failed: a failed analysis has no answer to compare with.",
            "Omit --try.",
        )
    if options.tries and options.no_wait:
        raise UsageError("--try cannot be used with --no-wait.", "Omit --no-wait.")


def _is_agreed(options: RefreshOptions, made: Quote) -> bool:
    """Ask for confirmation before money is spent.

    Raises:
        UsageError: Standard input is not a terminal.
    """
    if options.yes or (made.total is not None and not made.total.high):
        return True
    cost = quote.amount(made.total)
    if not sys.stdin.isatty():
        raise UsageError(
            f"This needs a confirmation. Cost: {cost}.", "Confirm with --yes, or use --dry-run."
        )
    what = counted(made.documents, "document")
    return typer.confirm(f"Renew the answers of {what}? Cost: {cost}.", err=True)


class _Work:
    """One refresh: its target, the stale answers, and the sample of --try."""

    def __init__(
        self, invocation: Invocation, options: RefreshOptions, context: ReadingContext
    ) -> None:
        self._invocation = invocation
        self._options = options
        self.target = target_of(options, context, invocation.screen.note)
        self._context = context
        self.stale = refreshing.survey(context, self.target)
        self._others = refreshing.transcribed_by_others(context, self.target)
        tries = options.tries
        self._sample = refreshing.draw(context, self.target, tries) if tries else None
        # A sample is always asked online, as the command waits for it.
        online = replace(self.target.options, lane=Lane.ONLINE)
        self._first = replace(self.target, options=online) if tries else self.target

    def quote(self) -> Quote:
        """Return the quote for the stale answers, or for the sample of them."""
        return _quoted(self._context, self._first, self._sample)

    def members(self) -> dict[str, object]:
        """Return the members of the JSON document about the answers."""
        return {"stale": self.stale, "transcribed_by_others": self._others}

    def show(self, made: Quote) -> None:
        """Show the stale answers and the cost of renewing them."""
        screen = self._invocation.screen
        if self._others:
            screen.info(
                f"Another model read pages of {counted(self._others, 'document')}. Their "
                "texts are kept; submit the files again to read them with the current model."
            )
        if not self.stale:
            which = "failed or partial" if self._options.failed else "stale"
            screen.info(f"There are no {which} answers.")
            return
        screen.show(_table(self.stale, "Failed" if self._options.failed else "Stale"))
        if self._sample is None:
            screen.show(*quote.render(made, self._options.lane, _SAMPLE))
            return
        screen.show(Text(f"A sample of {counted(made.documents, 'document')}, asked online:"))
        screen.show(*quote.render(made, Lane.ONLINE, ""))

    def carry_out(self, settings: Settings, *, as_json: bool) -> ExitCode:
        """Take the stored documents in as a new run; wait for it and show its results."""
        intake = RunIntake(self._invocation, settings)
        only = None if self._sample is None else self._sample.documents
        with access.working_context(self._invocation, settings) as context:
            now = datetime.now(UTC)  # noqa: TID251 - the clock
            submission = refreshing.begin(context, self._first, now, only)
            intake.screen.info(f"Renewing the answers in run {submission.name}.")
            account = intake.take_in(context, submission)
        if self._sample is None or account.is_interrupted:
            return intake.conclude(account, waits=not self._options.no_wait, as_json=as_json)
        return self._conclude(settings, self._sample, account.run_id, as_json=as_json)

    def _conclude(
        self, settings: Settings, sample: Sample, run_id: uuid.UUID, *, as_json: bool
    ) -> ExitCode:
        """Wait for the run of a sample, compare its answers with the old ones, quote the rest."""
        with access.database(settings) as database:
            context = ReadingContext(settings=settings, database=database, models=Models(settings))
            try:
                run_watch.wait_with_progress(self._invocation, settings, database, run_id)
            except KeyboardInterrupt:
                return run_watch.report_detached(
                    self._invocation, settings, str(run_id), was_interrupted=True
                )
            trials = refreshing.compare(database, sample, run_id)
            rest = _quoted(context, self.target, None)
            with database.read() as session:
                account = accounts.of_run(session, run_id)
        screen = self._invocation.screen
        if as_json:
            screen.write_json(
                **self.members(), run=account, trials=trials, rest=quote.members(rest)
            )
        else:
            due: Counter[AnalysisType] = Counter()
            for each in self.stale:
                due[each.analysis_type] += each.due
            screen.show(*compared(trials, due))
            screen.show(Text("The rest:"), *quote.render(rest, self._options.lane, ""))
            screen.info("Show the new answers, or renew the rest, with:")
            suggest(self._invocation, settings, "results", "--run", account.run)
            suggest(self._invocation, settings, "refresh", *_named(self._options))
        return ExitCode.SUCCESS if account.is_complete else ExitCode.INCOMPLETE


def _named(options: RefreshOptions) -> Iterator[str]:
    if options.run:
        yield options.run
    for name in ("profile", "model", "lane", "budget"):
        if value := getattr(options, name):
            yield from (f"--{name}", str(value))


def target_of(
    options: RefreshOptions, context: ReadingContext, note: Callable[[str], None]
) -> Target:
    """Return the answers to check, and the options of their renewal.

    `note` receives a sentence about each option that was not given.

    Raises:
        UsageError: The run or the profile is unknown, or both have this name.
        ConfigurationError: The model, or a template, is unknown.
    """
    settings = context.settings
    with context.database.read() as session:
        run, profile = evaluation.run_or_profile(session, settings, options.run, options.profile)
    asked = _renewal_options(replace(options, profile=profile), settings, run, note)
    name, run_id = (profile, None) if run is None else (run.name, run.id)
    return refreshing.target(context, name, asked, run_id, of_failed=options.failed)


def _renewal_options(
    options: RefreshOptions, settings: Settings, run: Run | None, note: Callable[[str], None]
) -> RunOptions:
    budget_usd = parse_budget(options.budget)
    profile = options.profile or (refreshing.profile_of(settings, run) if run else "")
    if profile or run is None:
        given = {"model": options.model, "lane": options.lane, "budget_usd": budget_usd}
        chosen = profile_with(settings, profile, given)
        if not options.profile:
            note(f"The current options of [profiles.{profile}] are used.")
        return run_options(settings, chosen, options.run_name, profile)
    asked = refreshing.options_of(settings, run)
    if not options.model and asked.model != settings.model:
        note(
            f"The model is {asked.model}, as in that run. Use --model {settings.model} for the "
            "model in the settings."
        )
    return replace(
        asked,
        name=options.run_name,
        model=options.model or asked.model,
        lane=options.lane or asked.lane,
        budget_usd=budget_usd or asked.budget_usd,
    )


def _quoted(context: ReadingContext, target: Target, sample: Sample | None) -> Quote:
    only: Collection[uuid.UUID] | None = None if sample is None else sample.documents
    found = refreshing.documents(context, target, only)
    return quoting.estimate(context, found, target.options)


_NAMES = ("Type", "Why", "Documents", "Results")


def _table(stale: Sequence[Stale], due: str) -> RenderableType:
    """Return a row for each analysis type and each combination of reasons."""
    rows = [
        (
            each.analysis_type.value,
            ", ".join(_in_words(reason, was) for reason, was in each.reasons.items()),
            *(f"{number:,}" for number in (each.documents, each.results, each.due)),
        )
        for each in stale
    ]
    numbers = (*_NAMES[2:], due)
    return layouts.folded((*_NAMES, due), rows, ("Type", *numbers), right=numbers)


def _in_words(reason: RefreshReason, was: str) -> str:
    if not was:
        return reason.value
    is_earlier = reason in {RefreshReason.MODEL, RefreshReason.TEMPLATE}
    return f"{reason.value} ({'was ' if is_earlier else ''}{one_line(was, _WIDTH)})"


_COUNTS = ("documents", "fields", "changed", "checked", "better", "worse")


def compared(
    trials: Sequence[RefreshTrial], due: Mapping[AnalysisType, int]
) -> Iterator[RenderableType]:
    """Return how a sample differs from the old answers, extrapolated to all stale answers.

    `due` is the number of stale answers of each type.
    """
    rows = [
        (each.analysis_type.value, *(f"{getattr(each, name):,}" for name in _COUNTS))
        for each in trials
    ]
    names = ("Type", *(name.capitalize() for name in _COUNTS))
    yield layouts.folded(names, rows, names, right=names[1:])
    for each in trials:
        yield from (Text(f"{each.analysis_type}: {line}") for line in _of_trial(each, due))


def _of_trial(each: RefreshTrial, due: Mapping[AnalysisType, int]) -> Iterator[str]:
    if each.unanswered:
        yield f"{counted(each.unanswered, 'document')} without a new answer."
    if not each.fields:
        return
    low, high = number_formats.share(each.low), number_formats.share(each.high)
    all_fields = each.fields / each.documents * due[each.analysis_type]
    changed = approximate(round(all_fields * each.changed / each.fields))
    yield (
        f"{number_formats.share(each.changed / each.fields)} of the fields changed (95 % interval: "
        f"{low} to {high}); extrapolated: {changed} of {approximate(round(all_fields))} stale "
        "fields."
    )
    if decided := each.better + each.worse:
        low, high = (number_formats.share(bound) for bound in wilson(each.better, decided))
        better = number_formats.share(each.better / decided)
        yield (
            f"of {counted(decided, 'change')} with a known right value, {better} are improvements "
            f"(95 % interval: {low} to {high})."
        )
