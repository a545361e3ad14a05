"""Tables and reports: Ask a question about the documents of a table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access, run_watch
from chordwise.cli.commands.analyze import RunIntake
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Model, OnlyProfile, Yes
from chordwise.domain import identifiers, plans
from chordwise.domain.number_formats import counted
from chordwise.domain.plans import Aggregate
from chordwise.embedded.home import Level
from chordwise.errors import ChordwiseError, UsageError
from chordwise.pipeline.learning import refresh as refreshing
from chordwise.pipeline.learning.refresh import Target
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.runs import ask as asking
from chordwise.pipeline.runs.ask import AnsweredQuestion, NeverAskedError
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.discovery import spellings
from chordwise.relations import counts
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen, confirmed
from chordwise.storage.answer_tables import SCHEMA

_MAX_ROWS, _MAX_QUOTES = 50, 100


def ask(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    question: Annotated[
        str, typer.Argument(metavar='"QUESTION"', help="A question, or: count TABLE by COLUMN.")
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Only documents at these paths and below them."),
    ] = None,
    *,
    table: Annotated[
        str, typer.Option(metavar="TABLE", help="Only this table. Default: any table.")
    ] = "",
    profile: OnlyProfile = "",
    quotes: Annotated[
        bool, typer.Option("--quotes", help="Also show the quotes behind the figures.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Ask the documents for what no column has.")
    ] = False,
    yes: Yes = False,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question about the documents of a table; a model plans, the database counts.

    chordwise ask "How many contracts end without notice, by governing law?"

    chordwise ask "count contracts by governing_law where annual_fee > 10000" --quotes
    """
    settings = access.reach(invocation)
    if profile and profile not in settings.profiles:
        raise UsageError(f"There is no profile “{profile}”.", "`chordwise config` lists them.")
    table = table or (
        identifiers.sql_identifier(settings.profiles[profile].save_as) if profile else ""
    )
    below = [spelling for path in paths or () for spelling in spellings(path)]
    max_quotes = _MAX_QUOTES if quotes or as_json else 0
    with access.reading_context(settings) as context:
        answer = partial(
            asking.ask, context, question, table, model or "", paths=below, max_quotes=max_quotes
        )
        try:
            answered = answer()
        except NeverAskedError as error:
            if not analyze:
                raise _with_cost(context, error) from None
            target = refreshing.extended(context, error.table, error.missing)
            _require_consent(invocation.screen, context, target, yes=yes)
            _renew(invocation, target)
            answered = answer()
    if as_json:
        invocation.screen.write_json(**asking.members(answered))
    else:
        invocation.screen.show(*render(answered))


def _renew(invocation: Invocation, target: Target) -> None:
    settings = access.with_model(invocation, invocation.settings(), target.options.model)
    settings = access.reach(invocation, settings, Level.ALL)
    intake = RunIntake(invocation, settings)
    with access.working_context(invocation, settings) as context:
        submission = refreshing.begin(context, target, datetime.now(UTC))  # noqa: TID251 - the clock
        account = intake.take_in(context, submission)
    with access.database(settings) as database:
        run_watch.wait_with_progress(invocation, settings, database, account.run_id)


def _with_cost(context: ReadingContext, error: NeverAskedError) -> NeverAskedError:
    """Return the error with what it would cost to ask, if that can be estimated."""
    try:
        target = refreshing.extended(context, error.table, error.missing)
        made = quoting.estimate(context, refreshing.documents(context, target), target.options)
    except ChordwiseError:
        return error
    cost = f" ({counted(made.documents, 'document')}, {quoting.amount(made.total)})"
    return NeverAskedError(error.table, error.missing, cost)


def _require_consent(screen: Screen, context: ReadingContext, target: Target, *, yes: bool) -> None:
    """Show the cost of a renewal, and ask for a confirmation unless it is free."""
    made = quoting.estimate(context, refreshing.documents(context, target), target.options)
    what = f"Ask {counted(made.documents, 'document')} again? Cost: {quoting.amount(made.total)}."
    refusal = f"{what} This was not confirmed."
    if yes or (made.total is not None and not made.total.high):
        screen.info(what.replace("?", "."))
    elif not confirmed(what, refusal):
        raise UsageError(refusal, "Confirm with --yes.")


def render(answer: AnsweredQuestion) -> Iterator[RenderableType]:
    """Return the answer with the documents inside and outside of it, its trust and its plan."""
    count = answer.count
    yield Text(one_line(answer.sentence or counts.headline(count), 300), style="bold")
    if len(count.rows) > 1 or len(count.columns) > 1:
        rows = [
            [one_line(counts.cell(value), 120) for value in row] for row in count.rows[:_MAX_ROWS]
        ]
        is_list = count.plan.measure is Aggregate.LIST
        numbers = () if is_list else count.columns[len(count.plan.group_by) :]
        yield layouts.table(count.columns, rows, right=numbers)
        if len(count.rows) > _MAX_ROWS:
            yield Text(f"… and {len(count.rows) - _MAX_ROWS:,} more; --json has all.", style="dim")
    yield from (Text(line) for line in map(one_line, counts.account(count)))
    yield Text(f"Plan: {plans.in_words(count.plan, SCHEMA)}", style="dim")
    yield Text(count.statement, style="dim")
    for quote in answer.quotes:
        place = f", {quote['place']}" if quote["place"] else ""
        words = f"“{quote['quote']}”" if quote["quote"] else "no quote"
        value = quote["value"] or "not mentioned"
        about = f"{quote['source']}{place}: {quote['item']} = {value}: {words}"
        yield Text(one_line(about, 400))
