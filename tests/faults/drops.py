"""Files that are dropped into a watched folder, with their hashes."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from tests.fakes.dropping import Folders, identity, sha256
from tests.fakes.processes import wait_until

STABILITY_SECONDS = 1.0
QUIET_SECONDS = 2.0
# The time from the end of the stability delay to the row that docs/inbox.md guarantees.
PROMISED_SECONDS = 2.0
# From the drop to the end of its run, without the time of the analysis.
WAITING_SECONDS = STABILITY_SECONDS + PROMISED_SECONDS + QUIET_SECONDS

_SETTINGS = f"""
[inbox]
stability_seconds = {STABILITY_SECONDS}
quiet_seconds = {QUIET_SECONDS}
"""
_NOTE, _SIDE_CAR = ".json", ".chordwise.toml"


@dataclass(slots=True, kw_only=True)
class Drops:
    """The inbox of an experiment, with done/ and failed/.

    `contents` counts the dropped contents by hash; each has to be in one of the three places (I6).
    """

    folders: Folders
    contents: Counter[str] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def drop(self, name: str | bytes, content: str | bytes = "") -> Path:
        """Rename a complete file into the inbox; its name may contain folders."""
        staged = self.folders.root / f"staged-{next(self._numbers)}"
        staged.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.put(staged, name)

    def put(self, staged: Path, name: str | bytes) -> Path:
        """Rename an existing file into the inbox."""
        path = self.folders.inbox / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.expect(staged)
        staged.rename(path)
        return path

    def expect(self, path: Path) -> None:
        """Record that this content was dropped."""
        self.contents[sha256(path)] += 1

    def withdraw(self, path: Path) -> None:
        """Record that the user removes this content, or is about to overwrite it."""
        self.contents -= Counter([sha256(path)])

    def counts(self) -> Counter[str]:
        """Return the counts of the contents in inbox, done/ and failed/, by hash."""
        folders = self.folders
        places = (folders.inbox, folders.done, folders.failed)
        files = {identity(file): file for place in places for file in contents_of(place)}
        return Counter(sha256(file) for file in files.values())

    def notes(self, name: str = "") -> list[JsonObject]:
        """Return the notes of all delivered files, or of those that were dropped as `name`."""
        notes: list[JsonObject] = [json.loads(note.read_text("utf-8")) for note in self._notes()]
        return [note for note in notes if not name or note["file"] == name]

    def outcomes(self) -> dict[str, str]:
        """Return `done`, or the reason of the first failure, by delivered name."""
        return {str(note["file"]): _outcome(note) for note in self.notes()}

    def wait_until_delivered(
        self, count: int, seconds: float, story: Callable[[], str] = str
    ) -> None:
        """Wait until `count` files have notes in done/ or failed/.

        Raises:
            AssertionError: The time is over; `story` adds details.
        """
        try:
            wait_until(lambda: self.delivered_count() >= count, seconds, "deliveries")
        except AssertionError as error:
            progress = f"{self.delivered_count()} of {count} files are delivered"
            raise AssertionError(f"{progress}\n{story()}") from error

    def delivered_count(self) -> int:
        return sum(1 for _ in self._notes())

    def _notes(self) -> Iterator[Path]:
        for place in (self.folders.done, self.folders.failed):
            yield from place.rglob(f"*{_NOTE}")


def contents_of(place: Path) -> Iterator[Path]:
    """Yield the regular files of a place, without notes, side-cars and hidden files."""
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder) / name
            is_ours = name.startswith(".") or name.endswith((_NOTE, _SIDE_CAR))
            if not is_ours and path.is_file() and not path.is_symlink():
                yield path


def _outcome(note: JsonObject) -> str:
    intakes = json_values.objects(note["intakes"])
    reasons = [str(intake["reason"] or intake["outcome"]) for intake in intakes]
    return "done" if note["outcome"] == "done" else str(note["reason"] or reasons[0])


def open_inbox(folder: Path, more: str = "") -> Drops:
    """Add an inbox to the settings in a folder; `more` are further lines of its table."""
    folders = Folders(root=folder)
    with (folder / "chordwise.toml").open("a", encoding="utf-8") as config:
        config.write(f'{_SETTINGS}folders = ["{folders.inbox}"]\n{more}\n')
    folders.inbox.mkdir(exist_ok=True)
    return Drops(folders=folders)
