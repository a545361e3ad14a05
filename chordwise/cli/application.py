"""Builds the command line; only the module of the named command is loaded."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import ModuleType
from typing import Annotated, Protocol

import typer
from typer.core import TyperGroup

from chordwise.cli.command import EPILOG, add
from chordwise.cli.invocation import Invocation
from chordwise.domain.visible_text import visible
from chordwise.errors import ChordwiseError, ExitCode
from chordwise.kinds import Kinds
from chordwise.lazy import load
from chordwise.rendering.plain_text import one_line

COMMANDS: Kinds[ModuleType] = Kinds("chordwise.cli.commands")
TOPICS = ("Commands", "Runs", "Quality", "Tables and reports", "Operation")
SHORT_FORMS = {
    "submit": ("analyze", "--no-wait"),
    "connect": ("tables", "--connect"),
    "--version": ("version",),
}
"""Words that stand for a command with options."""
_WITH_VALUE = ("--config", "--home")
_WITHOUT_VALUE = ("--verbose", "--debug")
_HELP = frozenset({"--help", "-h"})
_COMPLETION = "_CHORDWISE_COMPLETE"


def modules() -> Mapping[str, str]:
    """Return the modules of the commands; `continue` is a keyword of Python."""
    return {module.strip("_").replace("_", "-"): module for module in COMMANDS}


def entries() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return the names and summaries of the commands by topic, without loading their modules.

    They are the first line of each module: TOPIC: SUMMARY, in the order of numbers after the topic.
    """
    topics: dict[str, list[tuple[str, str]]] = {topic: [] for topic in TOPICS}
    lines = [(COMMANDS.first_line(module).strip('"'), name) for name, module in modules().items()]
    parted = ((*line.partition(": "), name) for line, name in lines)
    for heading, _, summary, name in sorted(parted, key=lambda entry: (entry[0], entry[3])):
        topics.setdefault(heading.rstrip(" 0123456789"), []).append((name, summary))
    return topics


def escape_output() -> None:
    """Escape characters that the encoding of a standard stream lacks."""
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Never raises."""
    invocation = Invocation()
    hoisted = hoist(arguments)
    try:
        commands = () if wants_listing(hoisted) else commands_to_load(hoisted)
        begins_with_command = bool(hoisted) and hoisted[0] in modules()
        app = application(commands, takes_options=not begins_with_command)
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


def commands_to_load(hoisted: Sequence[str]) -> Iterable[str]:
    """Return the commands to load: the named one, or all for completion."""
    known = modules()
    return next(([word] for word in hoisted if word in known), known)


def wants_listing(hoisted: Sequence[str]) -> bool:
    """Return whether to show the list of commands, which needs no command module."""
    if _COMPLETION in os.environ:  # noqa: TID251 - typer's variable; the settings take long to load
        return False
    names_none = modules().keys().isdisjoint(hoisted)
    return names_none and (not hoisted or not _HELP.isdisjoint(hoisted))


class _Formatter(Protocol):
    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


class _ByTopic(TyperGroup):
    """Lists the commands by topic."""

    def format_commands(self, _context: object, formatter: _Formatter) -> None:
        """Write the summary of each command."""
        for topic, commands in entries().items():
            with formatter.section(topic):
                formatter.write_dl(commands)


def application(commands: Iterable[str], *, takes_options: bool = True) -> typer.Typer:
    """Return the application with these commands; its help lists all without loading their modules.

    Without `takes_options`, no option is accepted before the command.
    """
    known = modules()
    # Typer reads an option without a value by pydantic, whose import is too slow for `version`.
    without_help = {"help": False, **{name: {"help": False} for name in known}}
    app = typer.Typer(
        name="chordwise",
        cls=_ByTopic,
        add_completion=takes_options,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "default_map": None if takes_options else without_help,
        },
    )
    app.callback()(chordwise if takes_options else lambda: None)
    for name in commands:
        loaded = load(f"chordwise.cli.commands.{known[name]}")
        command = getattr(loaded, known[name])
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            add(app, name, command, getattr(loaded, "EPILOG", EPILOG))
    return app


def chordwise(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file. Default: chordwise.toml.")
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
    invocation = context.ensure_object(Invocation)
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
    details = ""
    with suppress(ChordwiseError, OSError):
        log = invocation.settings().home.expanduser() / "logs" / "command.log"
        if log.parent.is_dir():
            with log.open("a", encoding="utf-8", errors="backslashreplace") as output:
                output.write(_traceback(error))
            details = f"The traceback is in {log}. "
    write_error(f"Hint: {details}Run the command again with --debug to see the traceback.")


def _traceback(error: BaseException) -> str:
    from chordwise.telemetry.logging import without_secrets  # noqa: PLC0415 - rarely needed

    return without_secrets("".join(traceback.format_exception(error)))


def write_error(text: str) -> None:
    """Write a line to standard error, ignoring a closed stream."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
