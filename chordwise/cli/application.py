"""Build the command line. Only the module of the named command is loaded."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Annotated, Protocol

import typer
from typer.core import TyperGroup

from chordwise.cli.command import EPILOG, add
from chordwise.cli.invocation import Invocation
from chordwise.domain.visible_text import visible
from chordwise.errors import ChordwiseError, ExitCode
from chordwise.lazy import load
from chordwise.rendering.plain_text import one_line

TOPICS = {
    "Commands": {
        "analyze": ("submit", "Analyze documents and show the answers."),
        "results": ("results", "Show stored results."),
        "review": ("review", "Review the answers that certification needs, one by one."),
        "export": ("export", "Export a view, a table or a query to a file."),
        "sql": ("sql", "Run a read-only SQL query."),
        "web": ("web", "Serve web pages to watch runs and correct results."),
        "quote": ("quote", "Estimate the tokens and the cost of an analysis."),
        "doctor": ("doctor", "Check the installation and suggest fixes."),
    },
    "Runs": {
        "wait": ("run_watch", "Wait for a run to finish, then show its results."),
        "continue": (
            "run_control",
            "Continue a run: retry what did not succeed, and read the rest.",
        ),
        "cancel": ("run_control", "Cancel the unfinished analyses of a run."),
        "runs": ("runs", "List the newest runs, or show one run in detail."),
        "refresh": ("refresh", "Renew stale answers from the stored texts."),
        "explain": ("explain", "Show how the answer for a document was produced."),
    },
    "Quality": {
        "feedback": ("feedback", "Approve, reject or correct results."),
        "evaluate": ("evaluate", "Compare results with the right answers."),
        "certify": ("certify", "Show which answers can be accepted without review."),
        "recalibrate": ("recalibrate", "Calibrate the confidence that models report."),
        "experiment": ("experiment", "Compare variants of a profile and promote the best one."),
        "prompts": ("prompts", "Show the prompts that are sent to models."),
    },
    "Tables and reports": {
        "tables": ("tables", "Show the answer tables, and how to connect programs to them."),
        "insight": ("insight", "Write plots of speed, quality and cost to an HTML file."),
        "night-report": ("night_report", "Write what happened in a night to a Markdown file."),
    },
    "Operation": {
        "up": ("services", "Run all services in the foreground until Ctrl-C."),
        "down": ("services", "Stop all services on this machine."),
        "inbox": ("inbox", "Show the watched folders and their files."),
        "schedules": ("schedules", "List, start, add and remove schedules."),
        "prune": ("prune", "Delete old completions, answers or runs."),
        "migrate": ("services", "Update the database schema to this version."),
        "config": ("config", "Show every setting and its source."),
        "models": ("models", "Estimate what a model needs on your own hardware."),
        "version": ("version", "Show the versions of Chordwise, Python and the schema."),
    },
}
"""The module of each command and its summary, in the order of the list."""
COMMANDS = {name: entry for topic in TOPICS.values() for name, entry in topic.items()}
SHORT_FORMS = {"submit": ("analyze", "--no-wait"), "connect": ("tables", "--connect")}
"""Words that stand for a command with options."""
_FUNCTIONS = {"continue": "continue_"}
MODULES = {name: module for name, (module, _) in COMMANDS.items()}
_WITH_VALUE = ("--config", "--home")
_WITHOUT_VALUE = ("--verbose", "--debug")
_HELP = frozenset({"--help", "-h"})
_COMPLETION = "_CHORDWISE_COMPLETE"
# Typer reads an option without a value by pydantic, whose import is too slow for `version`.
_NO_HELP = {"help": False, **{name: {"help": False} for name in COMMANDS}}


def escape_output() -> None:
    """Escape characters that the encoding of a standard stream lacks."""
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Never raises."""
    invocation = Invocation()
    hoisted = hoist(arguments)
    try:
        if wants_listing(hoisted):
            app = listing()
        else:
            begins_with_command = bool(hoisted) and hoisted[0] in MODULES
            app = application(modules_to_load(hoisted), takes_options=not begins_with_command)
        app(args=hoisted, prog_name="chordwise", obj=invocation)
    except BaseException as error:  # noqa: BLE001 - the outermost handler
        return explain(error, invocation)
    return ExitCode.SUCCESS


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the global options to the front, where the parser expects them; expand short forms."""
    front: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument in _WITH_VALUE:
            front += [argument, *([value] if (value := next(remaining, None)) is not None else [])]
        elif argument in _WITHOUT_VALUE or argument.startswith(tuple(f"{o}=" for o in _WITH_VALUE)):
            front.append(argument)
        else:
            rest.append(argument)
    return [*front, *SHORT_FORMS.get(rest[0], rest[:1]), *rest[1:]] if rest else front


def modules_to_load(hoisted: Sequence[str]) -> Iterable[str]:
    """Return the modules to load: that of the named command, or all for completion."""
    words = [word for word in hoisted if word in MODULES]
    return {MODULES[words[0]]} if words else dict.fromkeys(MODULES.values())


def wants_listing(hoisted: Sequence[str]) -> bool:
    """Return whether to show the list of commands, which needs no command module."""
    if _COMPLETION in os.environ:  # noqa: TID251 - typer's variable; the settings take long to load
        return False
    names_none = not any(word in MODULES for word in hoisted)
    return names_none and (not hoisted or not _HELP.isdisjoint(hoisted))


def listing() -> typer.Typer:
    """Return an application that lists the commands without loading their modules."""
    app = _empty()
    for name, (_, summary) in COMMANDS.items():
        app.command(name, help=summary)(lambda: None)
    return app


def application(modules: Iterable[str], *, takes_options: bool = True) -> typer.Typer:
    """Return the application with the commands of these modules.

    Without `takes_options`, no option is accepted before the command.
    """
    app = _empty(takes_options=takes_options)
    for module in modules:
        loaded = load(f"chordwise.cli.{module}")
        for name in (name for name in MODULES if MODULES[name] == module):
            found = getattr(loaded, _FUNCTIONS.get(name, name.replace("-", "_")))
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name)
            else:
                add(app, name, found, getattr(loaded, "EPILOG", EPILOG))
    return app


class _Formatter(Protocol):
    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


class _ByTopic(TyperGroup):
    """Lists the commands by topic."""

    def format_commands(self, _context: object, formatter: _Formatter) -> None:
        """Write the summary of each command."""
        for topic, commands in TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl([(name, summary) for name, (_, summary) in commands.items()])


def _empty(*, takes_options: bool = True) -> typer.Typer:
    app = typer.Typer(
        name="chordwise",
        cls=_ByTopic,
        add_completion=takes_options,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "default_map": None if takes_options else _NO_HELP,
        },
    )
    app.callback()(chordwise if takes_options else lambda: None)
    return app


def chordwise(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings file. Default: chordwise.toml."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Data folder. Default: CHORDWISE_HOME.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print more details to standard error.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None:
    """Analyze documents in batches with language models and store the answers in PostgreSQL.

    chordwise analyze reports/ --type summary

    chordwise results --run latest

    chordwise sql "SELECT source, item, value, quote FROM fact_quotes LIMIT 10"
    """
    invocation = Invocation.of(context)
    invocation.config, invocation.home = config, home
    invocation.is_verbose, invocation.is_debug = verbose, debug


def explain(error: BaseException, invocation: Invocation) -> int:
    """Print an error and its hint to standard error; return the exit code."""
    if isinstance(error, SystemExit):
        code = error.code or ExitCode.SUCCESS
        return code if isinstance(code, int) else ExitCode.INTERNAL
    if isinstance(error, KeyboardInterrupt):
        write_error("Interrupted.")
        return ExitCode.DETACHED
    if invocation.is_debug:
        write_error(visible(_traceback(error)).rstrip("\n"))
    if isinstance(error, ChordwiseError):
        write_error(f"Error: {one_line(error.what)}")
        if error.hint:
            write_error(f"Hint: {one_line(error.hint)}")
        return error.exit_code
    if not invocation.is_debug:
        _explain_defect(error, invocation)
    return ExitCode.INTERNAL


def _explain_defect(error: BaseException, invocation: Invocation) -> None:
    write_error(f"Error: unexpected {type(error).__name__}. This is a bug in Chordwise.")
    log = _append_to_log(error, invocation)
    details = f"The traceback is in {log}. " if log else ""
    write_error(f"Hint: {details}Run the command again with --debug to see the traceback.")


def _append_to_log(error: BaseException, invocation: Invocation) -> Path | None:
    """Append the traceback to the log in the home and return its path, if there is a home."""
    with suppress(ChordwiseError, OSError):
        log = invocation.settings().home.expanduser() / "logs" / "command.log"
        if log.parent.is_dir():
            with log.open("a", encoding="utf-8", errors="backslashreplace") as output:
                output.write(_traceback(error))
            return log
    return None


def _traceback(error: BaseException) -> str:
    from chordwise.telemetry.logging import without_secrets  # noqa: PLC0415 - rarely needed

    return without_secrets("".join(traceback.format_exception(error)))


def write_error(text: str) -> None:
    """Write a line to standard error, ignoring a closed stream."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
