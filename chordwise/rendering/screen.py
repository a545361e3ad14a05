"""Standard output for data and standard error for messages."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from chordwise.domain.visible_text import visible
from chordwise.errors import UsageError
from chordwise.rendering.plain_text import json_document, one_line

_WIDTH_WITHOUT_TERMINAL = 100
_WIDEST = 140


class Screen:
    """The output of a command; text is never interpreted as markup."""

    def __init__(self) -> None:
        self._out = _console(sys.stdout)
        self.error_console = _console(sys.stderr)

    def show(self, *renderables: RenderableType) -> None:
        """Print to standard output, laid out for reading."""
        with until_reader_left():
            for renderable in renderables:
                self._out.print(renderable)

    def write(self, text: str) -> None:
        """Write text to standard output; on a terminal with control characters made visible."""
        with until_reader_left():
            sys.stdout.write(visible(text) if sys.stdout.isatty() else text)

    def write_json(self, **members: object) -> None:
        """Write one JSON document with these members."""
        self.write(json_document(**members))

    def info_renderables(self, *renderables: RenderableType) -> None:
        """Print to standard error, laid out for reading."""
        for renderable in renderables:
            self.error_console.print(renderable)

    def info(self, text: str) -> None:
        """Print a sentence to standard error."""
        self.error_console.print(Text(one_line(text)), soft_wrap=True)

    def info_verbatim(self, text: str) -> None:
        """Print lines to standard error without wrapping, so that they can be copied."""
        self.error_console.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a less important sentence to standard error."""
        self.error_console.print(Text(one_line(text), style="dim"), soft_wrap=True)

    def prompt(self, text: str) -> str | None:
        """Prompt on standard error and return the typed line; `None` at the end of input."""
        try:
            return self.error_console.input(Text(text))
        except EOFError:
            return None

    def suggest(self, command: str) -> None:
        """Show a command to run next, without wrapping."""
        self.error_console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)


def confirmed(question: str, what: str, hint: str = "Confirm with --yes.") -> bool:
    """Return whether the user agrees.

    Raises:
        UsageError: Standard input is not a terminal; `what` and `hint` say what to do.
    """
    if not sys.stdin.isatty():
        raise UsageError(what, hint)
    return typer.confirm(question, err=True)


def indented(text: Text, columns: int) -> RenderableType:
    """Return a text whose lines are indented by `columns`."""
    return Padding(text, (0, 0, 0, columns), expand=False)


def hint(text: str, width: int | None = None, columns: int = 4) -> RenderableType:
    """Return a hint for the line above, cut to `width`."""
    return indented(Text(f"→ {one_line(text, width)}", style="dim"), columns)


@contextmanager
def until_reader_left() -> Iterator[None]:
    """End the command silently when the reader closes standard output.

    Raises:
        typer.Exit: The pipe is closed.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes again at exit and needs an open descriptor.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


class _Console(Console):
    """Makes control characters in text visible."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield the segments with their text made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave it to `until_reader_left`."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    # Without a terminal, use COLUMNS or a width that suits a log.
    without = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 24)).columns
    width = None if stream.isatty() else without
    console = _Console(file=stream, markup=False, emoji=False, highlight=False, width=width)
    console.width = min(console.width, _WIDEST)
    return console
