"""Operation: Run all services in the foreground until Ctrl-C."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chordwise.cli import scheduled
from chordwise.cli.commands.web import say_where_the_token_is, shown_link
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import Model
from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at, read_address
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings


def up(invocation: Invocation, *, model: Model = None) -> None:
    """Run all services in the foreground until Ctrl-C. The services include the web server.

    chordwise up

    chordwise up --model local/model.gguf
    """
    settings, screen = invocation.settings(model=model), invocation.screen
    if settings.schedules:
        scheduled.check_all(settings)
        for sentence in scheduled.warnings(settings):
            screen.info_verbatim(sentence)

    def ready(reached: Settings) -> None:
        screen.info(f"Ready. Data folder: {reached.home}. Press Ctrl-C to stop.")
        threading.Thread(target=_print_link, args=(screen, reached.home), daemon=True).start()

    # The logs of the servers are shown with --verbose only.
    patterns = ("*",) if invocation.is_verbose else ("worker", "scheduler", "web", "llama*")
    logs = LogLines(settings.home.expanduser() / "logs", screen.note, *patterns)
    with logs.followed():
        stack.run_in_foreground(
            settings,
            config=invocation.config,
            on_progress=screen.note,
            on_ready=ready,
            serves_pages=True,
        )
    screen.info("Stopped.")


_LINK_SECONDS = 30.0


def _print_link(screen: Screen, folder: Path) -> None:
    home = home_at(folder)
    file = home.web_link_file
    if processes.wait_until(lambda: read_address(file) is not None, _LINK_SECONDS, every=0.2):
        address = read_address(file)
        if address is None:
            screen.info("The web server stopped.")
            return
        screen.info_verbatim(f"Web pages: {shown_link(address.url, sys.stderr)}")
        say_where_the_token_is(screen, address.url, sys.stderr)
    else:
        screen.note(f"The web server has not started yet. See {home.log('web')}.")


_INTERVAL_SECONDS = 0.25
_NAME_WIDTH = 9
_LONGEST_READ = 200_000


class LogLines:
    """Follows the log files in a folder; a thread passes new lines to `print_line`.

    `patterns` select the names of the files.
    """

    def __init__(self, folder: Path, print_line: Callable[[str], None], *patterns: str) -> None:
        self._folder = folder
        self._print_line = print_line
        self._patterns = patterns or ("*",)
        self._read: dict[Path, int] = {file: file.stat().st_size for file in self._files()}
        self._rest: dict[Path, str] = {}

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Pass on new lines until the end of the block."""
        try:
            with processes.repeating(self.forward, _INTERVAL_SECONDS):
                yield
        finally:
            self.forward()

    def forward(self) -> None:
        """Pass on the lines written since the last call."""
        for file in self._files():
            with suppress(OSError), file.open("rb") as opened:
                size, start = opened.seek(0, os.SEEK_END), self._read.get(file, 0)
                start = 0 if size < start else start  # rotated
                opened.seek(start)
                data = opened.read(_LONGEST_READ)
                self._read[file] = start + len(data)
                text = self._rest.pop(file, "") + data.decode("utf-8", "replace")
                *lines, self._rest[file] = text.split("\n")
                for line in lines:
                    self._print_line(f"{file.stem:<{_NAME_WIDTH}} {line}")

    def _files(self) -> list[Path]:
        return sorted(file for name in self._patterns for file in self._folder.glob(f"{name}.log"))
