"""Standard output for data and standard error for messages, each as its terminal can show it."""

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

from chordwise.cli.rendering.plain_text import document, one_line
from chordwise.domain.visible_text import visible

_WIDTH_WITHOUT_TERMINAL = 100
_WIDEST = 140


class Screen:
    """What a command writes to; nothing that it prints is taken for markup."""

    def __init__(self) -> None:
        self._out = _console(sys.stdout)
        self.talk = _console(sys.stderr)

    @property
    def is_interactive(self) -> bool:
        """Whether standard error is a terminal that can show moving progress."""
        return self.talk.is_terminal and not self.talk.is_dumb_terminal

    def show(self, *renderables: RenderableType) -> None:
        """Print to standard output, laid out for people."""
        with until_reader_left():
            for renderable in renderables:
                self._out.print(renderable)

    def write(self, text: str) -> None:
        """Write to standard output: as it is into a file or pipe, visible to a terminal."""
        with until_reader_left():
            sys.stdout.write(visible(text) if sys.stdout.isatty() else text)

    def write_json(self, **members: object) -> None:
        """Write one JSON document with these members."""
        self.write(document(**members))

    def tell_laid_out(self, *renderables: RenderableType) -> None:
        """Print to standard error, laid out for people."""
        for renderable in renderables:
            self.talk.print(renderable)

    def tell(self, text: str) -> None:
        """Print a sentence to standard error."""
        self.talk.print(Text(one_line(text)), soft_wrap=True)

    def tell_whole(self, text: str) -> None:
        """Print lines to standard error as they are, however long: they are to be copied."""
        self.talk.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a sentence of less importance to standard error."""
        self.talk.print(Text(one_line(text), style="dim"), soft_wrap=True)

    def ask(self, text: str) -> str | None:
        """Ask on standard error, and return the line that is typed, None at the end of input."""
        try:
            return self.talk.input(Text(text))
        except EOFError:
            return None

    def suggest(self, command: str) -> None:
        """Show a command to type next, in one piece however long it is."""
        self.talk.print(Text(f"  {command}", style="cyan"), soft_wrap=True)


def indented(text: Text, columns: int) -> RenderableType:
    """Return a text whose every line, where it is broken, begins so far to the right."""
    return Padding(text, (0, 0, 0, columns), expand=False)


def hint(text: str, width: int | None = None, columns: int = 4) -> RenderableType:
    """Return what to do about the line above, cut to `width`."""
    return indented(Text(f"→ {one_line(text, width)}", style="dim"), columns)


@contextmanager
def until_reader_left() -> Iterator[None]:
    """End the command quietly when the reader of standard output closes it.

    Raises:
        typer.Exit: The pipe is closed.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it leaves, and must find an open end then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


class _Console(Console):
    """Writes no control character but those of its own styles and movements."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield the segments of what is printed, their text made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave it to `until_reader_left`."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    # Without a terminal, the width that COLUMNS asks for, or one that suits a log.
    without = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 24)).columns
    width = None if stream.isatty() else without
    console = _Console(file=stream, markup=False, emoji=False, highlight=False, width=width)
    console.width = min(console.width, _WIDEST)
    return console
