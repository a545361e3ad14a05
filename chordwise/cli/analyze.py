"""`chordwise analyze` and `chordwise submit`: documents in, answers out."""

from __future__ import annotations

import typer

from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import (
    AsJson,
    Budget,
    ConfidenceThreshold,
    Critique,
    Fresh,
    IdColumn,
    InLane,
    Instructions,
    Labels,
    Model,
    Nightly,
    NoCache,
    NoWait,
    Paths,
    PrinciplesFile,
    Profile,
    RunName,
    SchemaFile,
    TextColumn,
    Types,
    Votes,
)
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.request import Details, Request, Reuse, Scrutiny, Urgency
from chordwise.cli.submit import Submitting
from chordwise.errors import ExitCode
from chordwise.readers.extracted import Columns

_ANALYZE_HELP = """Take documents in, analyze them, and show the answers.

chordwise analyze reports/ letter.pdf

chordwise analyze "mail/*.eml" -t classification --labels invoice,complaint,other

chordwise analyze contract.docx -t extraction --instructions "parties, term, penalty"

cat notes.txt | chordwise analyze - -t summary -t sentiment --json

Ctrl-C detaches: the work goes on, and `chordwise wait RUN` comes back to it.
While files are taken in it interrupts: `chordwise resume RUN` takes in the rest.
"""
_SUBMIT_HELP = """Take documents in and print the run's id. The work goes on in the background.

RUN=$(chordwise submit reports/) && chordwise wait $RUN
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(help=_ANALYZE_HELP, epilog=EPILOG)(analyze)
    app.command(help=_SUBMIT_HELP, epilog=EPILOG)(submit)


def analyze(  # noqa: PLR0913 - a parameter is an option of the command
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
    run_name: RunName = "",
    no_wait: NoWait = False,
    fresh: Fresh = False,
    no_cache: NoCache = False,
    nightly: Nightly = False,
    lane: InLane = None,
    confidence_threshold: ConfidenceThreshold = 0.0,
    votes: Votes = None,
    critique: Critique = False,
    principles: PrinciplesFile = None,
    budget: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Take documents in, analyze them, and show the answers."""
    request = Request(
        paths=paths,
        profile=profile,
        types=types or (),
        details=Details(instructions=instructions, schema=schema, labels=labels),
        columns=Columns(text=text_column, identity=id_column),
        model=model,
        run_name=run_name,
        reuse=Reuse(fresh=fresh, no_cache=no_cache),
        urgency=Urgency(nightly=nightly, lane=lane),
        scrutiny=Scrutiny(confidence_threshold, votes, critique, principles),
        budget=budget,
    )
    raise typer.Exit(_begin(context, request, waits=not no_wait, as_json=as_json))


def submit(  # noqa: PLR0913 - a parameter is an option of the command
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
    run_name: RunName = "",
    fresh: Fresh = False,
    no_cache: NoCache = False,
    nightly: Nightly = False,
    lane: InLane = None,
    confidence_threshold: ConfidenceThreshold = 0.0,
    votes: Votes = None,
    critique: Critique = False,
    principles: PrinciplesFile = None,
    budget: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Take documents in and print the run's id. The work goes on in the background."""
    request = Request(
        paths=paths,
        profile=profile,
        types=types or (),
        details=Details(instructions=instructions, schema=schema, labels=labels),
        columns=Columns(text=text_column, identity=id_column),
        model=model,
        run_name=run_name,
        reuse=Reuse(fresh=fresh, no_cache=no_cache),
        urgency=Urgency(nightly=nightly, lane=lane),
        scrutiny=Scrutiny(confidence_threshold, votes, critique, principles),
        budget=budget,
    )
    raise typer.Exit(_begin(context, request, waits=False, as_json=as_json))


def _begin(context: typer.Context, request: Request, *, waits: bool, as_json: bool) -> ExitCode:
    return Submitting(Invocation.of(context), request, Screen()).run(waits=waits, as_json=as_json)
