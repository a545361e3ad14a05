"""Putting the command together: only the module of the command that was named is loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Protocol, cast

import typer

from chordwise.cli import failing
from chordwise.cli.invocation import Invocation

MODULES = {
    "analyze": "analyzing",
    "submit": "analyzing",
    "quote": "quoting",
    "plan": "planning",
    "wait": "running",
    "resume": "resuming",
    "retry": "running",
    "cancel": "running",
    "runs": "looking",
    "results": "looking",
    "feedback": "judging",
    "evaluate": "evaluating",
    "recalibrate": "evaluating",
    "inbox": "dropping",
    "schedules": "scheduling",
    "sql": "querying",
    "export": "exporting",
    "up": "stack",
    "down": "stack",
    "migrate": "stack",
    "doctor": "diagnosing",
    "config": "configuring",
    "version": "version",
}
EPILOG = "Everywhere: --config FILE, --home FOLDER, --verbose, --debug (chordwise --help)."
_WITH_VALUE = ("--config", "--home")
_WITHOUT_VALUE = ("--verbose", "--debug")


class CommandModule(Protocol):
    """A module that holds commands."""

    def register(self, app: typer.Typer) -> None:
        """Add the commands to the application."""
        ...


def main() -> None:
    """Run the command line of this process, and leave with an exit code of ours."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is shown escaped instead of ending the command.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; nothing is raised."""
    invocation = Invocation()
    hoisted = hoist(arguments)
    with failing.explained(invocation) as outcome:
        application(named_in(hoisted))(args=hoisted, prog_name="chordwise", obj=invocation)
    return outcome.exit_code


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the options that every command takes to the front, where the parser expects them."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in _WITH_VALUE:
            front += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        elif argument in _WITHOUT_VALUE or argument.startswith(tuple(f"{o}=" for o in _WITH_VALUE)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def named_in(hoisted: Sequence[str]) -> Iterable[str]:
    """Return the modules to load: that of the command named, or all for help and completion."""
    words = [word for word in hoisted if word in MODULES]
    return {MODULES[words[0]]} if words else dict.fromkeys(MODULES.values())


def application(modules: Iterable[str]) -> typer.Typer:
    """Return the application with the commands of these modules."""
    app = typer.Typer(
        name="chordwise",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(chordwise)
    for module in modules:
        loaded = importlib.import_module(f"chordwise.cli.{module}")
        cast("CommandModule", loaded).register(app)
    return app


def chordwise(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, instead of chordwise.toml.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Data, instead of CHORDWISE_HOME.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on standard error.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where errors come from.")] = False,
) -> None:
    """Analyze documents in batches with language models; the answers stand in PostgreSQL.

    chordwise analyze reports/ --type summary

    chordwise results --run latest

    chordwise sql "SELECT source, text, quote FROM fact_quotes LIMIT 10"
    """
    invocation = Invocation.of(context)
    invocation.config, invocation.home = config, home
    invocation.is_verbose, invocation.is_debug = verbose, debug
