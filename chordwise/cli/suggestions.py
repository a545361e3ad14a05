"""The exact commands to type next, as this very command was called."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import platformdirs

from chordwise.cli.invocation import Invocation
from chordwise.settings import Settings


def suggest(invocation: Invocation, settings: Settings, *words: str) -> None:
    """Show a command line to type next, for the shell, that works from the current folder.

    The home is named unless it is the default one: a variable may not be set the next time.
    """
    parts = [*_program(), words[0]]
    if invocation.config is not None:
        parts += ["--config", str(invocation.config)]
    if settings.home.expanduser().resolve() != Path(platformdirs.user_data_dir("chordwise")):
        parts += ["--home", _near(settings.home)]
    invocation.screen.suggest(" ".join(map(_quoted, [*parts, *words[1:]])))


def _program() -> list[str]:
    called = Path(sys.argv[0])
    if called.name != "chordwise":
        return [_near(Path(sys.executable)), "-m", "chordwise"]
    found = shutil.which("chordwise")
    is_on_path = found is not None and Path(found).resolve() == called.resolve()
    return ["chordwise"] if is_on_path else [_near(called)]


def _near(path: Path) -> str:
    """Return a path from the current folder where it lies below that."""
    absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() leaves .venv
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _quoted(part: str) -> str:
    """Quote a word for the shell, with the double quotes that read best around SQL."""
    if "'" in part and not any(character in part for character in '"$`\\!'):
        return f'"{part}"'
    return shlex.quote(part)
