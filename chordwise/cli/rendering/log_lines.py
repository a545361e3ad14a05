"""The logs of several processes as one: lines that appear from now on, each with its origin."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_INTERVAL_SECONDS = 0.25
_NAME_WIDTH = 9
_LONGEST_READ = 200_000


class LogLines:
    """Follows `NAME.log` in a folder; `say` gets the lines, from a thread of its own.

    `patterns` are those of the names that count.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *patterns: str) -> None:
        self._folder = folder
        self._say = say
        self._patterns = patterns or ("*",)
        self._read: dict[Path, int] = {file: file.stat().st_size for file in self._files()}
        self._rest: dict[Path, str] = {}

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Pass lines on until the end of the block."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(_INTERVAL_SECONDS):
                self.look()

        thread = threading.Thread(target=follow, name="log-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Pass on what has been written since the last look."""
        for file in self._files():
            try:
                self._look_into(file)
            except OSError:
                continue

    def _files(self) -> list[Path]:
        found = (self._folder.glob(f"{pattern}.log") for pattern in self._patterns)
        return sorted(itertools.chain.from_iterable(found))

    def _look_into(self, file: Path) -> None:
        size = file.stat().st_size
        start = self._read.get(file, 0)
        if size < start:  # rotated, and begun anew
            start = 0
        with file.open("rb") as opened:
            opened.seek(start)
            written = opened.read(_LONGEST_READ)
        self._read[file] = start + len(written)
        text = self._rest.pop(file, "") + written.decode("utf-8", "replace")
        *lines, self._rest[file] = text.split("\n")
        for line in lines:
            self._say(f"{file.stem:<{_NAME_WIDTH}} {line}")
