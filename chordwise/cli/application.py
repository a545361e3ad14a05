"""Putting the command together: only the module of the command that was named is loaded."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli.command import EPILOG, add
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering.plain_text import one_line
from chordwise.domain.visible_text import visible
from chordwise.errors import ChordwiseError, ExitCode
from chordwise.lazy import load

COMMANDS = {
    "analyze": ("submit", "Take documents in, analyze them, and show the answers."),
    "submit": ("submit", "Take documents in and print the run's id."),
    "resume": ("submit", "Take in the rest of a run that was interrupted."),
    "quote": ("quote", "Say what an analysis would take and cost."),
    "plan": ("plan", "Estimate memory, speed and cost on your own hardware."),
    "wait": ("run_watch", "Wait until a run is over, and show its results."),
    "retry": ("run_control", "Retry the analyses of a run that have not succeeded."),
    "cancel": ("run_control", "Cancel the analyses of a run that have not ended."),
    "runs": ("runs", "List the newest runs, or show the account of one."),
    "results": ("results", "Show stored results."),
    "explain": ("explain", "Say why a document was answered so."),
    "feedback": ("feedback", "Say that a result is right or wrong, or what it should be."),
    "evaluate": ("evaluate", "Compare results with the truth."),
    "recalibrate": ("recalibrate", "Learn what a claimed confidence is worth."),
    "review": ("review", "Check the answers that certifying needs, one after the other."),
    "certify": ("certify", "Say what may be accepted without looking."),
    "refresh": ("refresh", "Ask again where stored answers are stale."),
    "inbox": ("inbox", "Show the watched folders."),
    "tables": ("tables", "Show the tables of answers that SQL can ask."),
    "connect": ("connect", "Say how other programs read the answers."),
    "sql": ("sql", "Ask the database in SQL; nothing can be changed that way."),
    "export": ("export", "Write a view or a table into a file."),
    "report": ("report", "Write plots of speed, quality and cost into one HTML file."),
    "web": ("web", "Serve pages to watch runs, read results and correct them."),
    "up": ("services", "Run everything here until Ctrl-C."),
    "down": ("services", "Stop what runs in the background."),
    "migrate": ("services", "Bring the tables to what this version needs."),
    "doctor": ("doctor", "Say what is wrong and what to do."),
    "config": ("config", "Show every setting, and where it comes from."),
    "version": ("version", "Show the versions of Chordwise, Python and the schema."),
    "experiment": ("experiment", "Compare variants of a profile, and keep the best one."),
    "prompts": ("prompts", "Show the prompts that models are asked with."),
    "schedules": ("schedules", "Show schedules, start them now, and change them."),
}
"""The module that has each command by its name, and its line in the list, in the list's order."""
MODULES = {name: module for name, (module, _) in COMMANDS.items()}
_WITH_VALUE = ("--config", "--home")
_WITHOUT_VALUE = ("--verbose", "--debug")
_HELP = frozenset({"--help", "-h"})
_COMPLETION = "_CHORDWISE_COMPLETE"
# An option without a value is read by pydantic, and to import that takes longer than `version` may.
_NO_HELP = {"help": False, **{name: {"help": False} for name in COMMANDS}}


def escape_output() -> None:
    """Let the standard streams show escaped what a terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; nothing is raised."""
    invocation = Invocation()
    hoisted = hoist(arguments)
    try:
        if wants_listing(hoisted):
            app = listing()
        else:
            begins_with_command = bool(hoisted) and hoisted[0] in MODULES
            app = application(named_in(hoisted), takes_options=not begins_with_command)
        app(args=hoisted, prog_name="chordwise", obj=invocation)
    except BaseException as error:  # noqa: BLE001 - the outermost shell
        return explain(error, invocation)
    return ExitCode.SUCCESS


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


def wants_listing(hoisted: Sequence[str]) -> bool:
    """Tell whether the list of commands is asked for, for which no command has to be loaded."""
    if _COMPLETION in os.environ:  # noqa: TID251 - typer's variable; the settings take long to load
        return False
    names_none = not any(word in MODULES for word in hoisted)
    return names_none and (not hoisted or not _HELP.isdisjoint(hoisted))


def listing() -> typer.Typer:
    """Return an application that shows the list of commands, and has none of them loaded."""
    app = _empty()
    for name, (_, summary) in COMMANDS.items():
        app.command(name, help=summary)(lambda: None)
    return app


def application(modules: Iterable[str], *, takes_options: bool = True) -> typer.Typer:
    """Return the application with the commands of these modules.

    Without `takes_options` none may stand before the command, and none has to be read.
    """
    app = _empty(takes_options=takes_options)
    for module in modules:
        loaded = load(f"chordwise.cli.{module}")
        for name in (name for name in MODULES if MODULES[name] == module):
            found = getattr(loaded, name)
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name)
            else:
                add(app, name, found, getattr(loaded, "EPILOG", EPILOG))
    return app


def _empty(*, takes_options: bool = True) -> typer.Typer:
    app = typer.Typer(
        name="chordwise",
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

    chordwise sql "SELECT source, item, value, quote FROM fact_quotes LIMIT 10"
    """
    invocation = Invocation.of(context)
    invocation.config, invocation.home = config, home
    invocation.is_verbose, invocation.is_debug = verbose, debug


def explain(error: BaseException, invocation: Invocation) -> int:
    """Say on standard error what the user has to know of an error; return the exit code."""
    match error:
        case SystemExit():
            code = error.code or ExitCode.SUCCESS
            return code if isinstance(code, int) else ExitCode.INTERNAL
        case KeyboardInterrupt():
            say("Interrupted.")
            return ExitCode.DETACHED
        case ChordwiseError():
            _explain(error, invocation)
            return error.exit_code
        case _:
            _explain_defect(error, invocation)
            return ExitCode.INTERNAL


def _explain(error: ChordwiseError, invocation: Invocation) -> None:
    if invocation.is_debug:
        say(visible(_traceback(error)).rstrip("\n"))
    say(f"Error: {one_line(error.what)}")
    if error.hint:
        say(f"Hint: {one_line(error.hint)}")


def _explain_defect(error: BaseException, invocation: Invocation) -> None:
    if invocation.is_debug:
        say(visible(_traceback(error)).rstrip("\n"))
        return
    say(f"Error: something unexpected happened in Chordwise itself: {type(error).__name__}.")
    log = _write_down(error, invocation)
    say(f"Hint: {f'the details are in {log}; ' if log else ''}--debug shows where it happened.")


def _write_down(error: BaseException, invocation: Invocation) -> Path | None:
    """Append the details to a log in the home, where there is one; return its path."""
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


def say(text: str) -> None:
    """Write a line to standard error; a closed one is no reason to fail."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
