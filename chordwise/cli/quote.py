"""`chordwise quote`: what an analysis would take and cost, before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import RenderableType

from chordwise.cli import access, request
from chordwise.cli.application import EPILOG
from chordwise.cli.forecasting import laid_out, members, of_sample, read_all
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import (
    AsJson,
    ConfidenceThreshold,
    Critique,
    Fresh,
    IdColumn,
    InLane,
    Instructions,
    Labels,
    Model,
    Paths,
    PrinciplesFile,
    Profile,
    SchemaFile,
    TextColumn,
    Types,
    Votes,
)
from chordwise.cli.rendering.plain_text import document
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.request import Details, Request, Reuse, Scrutiny, Urgency
from chordwise.embedded.stack import Level
from chordwise.errors import ExitCode
from chordwise.pipeline.models.client import Models
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.quoting import sampling
from chordwise.pipeline.quoting.quote import Quote, Quoter
from chordwise.readers.discovery import discover
from chordwise.readers.extracted import Columns

_HELP = """Say what an analysis would take and cost. Nothing is stored, nor asked without --sample.

chordwise quote reports/ --model openai/gpt-6.1-terra --lane batch

chordwise quote reports/ -t summary -t extraction --sample 10
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(help=_HELP, epilog=EPILOG)(quote)


def quote(  # noqa: PLR0913 - a parameter is an option of the command
    context: typer.Context,
    paths: Paths,
    *,
    profile: Profile = "",
    types: Types = None,
    instructions: Instructions = "",
    schema: SchemaFile = None,
    labels: Labels = "",
    text_column: TextColumn = "",
    id_column: IdColumn = "",
    model: Model = None,
    fresh: Fresh = False,
    lane: InLane = None,
    confidence_threshold: ConfidenceThreshold = 0.0,
    votes: Votes = None,
    critique: Critique = False,
    principles: PrinciplesFile = None,
    sample: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask N chunks of each type; costs money.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what an analysis would take and cost, without storing anything."""
    request = Request(
        paths=paths,
        types=types or (),
        profile=profile,
        details=Details(instructions=instructions, schema=schema, labels=labels),
        columns=Columns(text=text_column, identity=id_column),
        model=model,
        reuse=Reuse(fresh=fresh),
        urgency=Urgency(lane=lane),
        scrutiny=Scrutiny(confidence_threshold, votes, critique, principles),
    )
    screen = Screen()
    made = _Quoting(Invocation.of(context), request, screen, sample).quote()
    _show(made, screen, None if as_json else laid_out(made, lane))
    raise typer.Exit(ExitCode.INCOMPLETE if made.unread else ExitCode.SUCCESS)


def _show(made: Quote, screen: Screen, words: Iterable[RenderableType] | None) -> None:
    """Show a quote in these words, or as JSON without any."""
    if words is None:
        screen.write(document(**members(made)))
    else:
        screen.show(*words)


class _Quoting:
    """One call of the command."""

    def __init__(
        self, invocation: Invocation, request: Request, screen: Screen, sample: int
    ) -> None:
        self._invocation = invocation
        self._request = request
        self._screen = screen
        self._sample = sample

    def quote(self) -> Quote:
        """Read everything and return the quote.

        Raises:
            ChordwiseError: The options, the settings, or a service.
        """
        settings = self._invocation.settings()
        options = request.run_options(self._request, settings)
        found = discover(self._request.paths)
        reached = access.reach(self._invocation, settings, Level.DATABASE, self._screen.note)
        with access.database(reached) as database:
            quoter = Quoter(settings=reached, database=database, models=Models(reached))
            read = read_all(reached, found, options.columns)
            gathered = quoting.gather(quoter, read, options, self._sample)
            made = quoting.priced(quoter, gathered)
            if not self._sample or not made.lines:
                return made
            self._screen.tell(of_sample(gathered, sampling.expected_cost(made, gathered)))
            sampling.ask(quoter, gathered, fresh=options.fresh)
            return quoting.priced(quoter, gathered)
