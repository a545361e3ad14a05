"""The files of an inbox, related names such as the side-car, and which ones no longer change."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

SIDE_CAR = ".chordwise.toml"
NOTE = ".json"
DONE = "done"
FAILED = "failed"
MARK = ".chordwise-"
"""The prefix of the hidden name of a file while it is moved."""
_MAX_BYTES = 255


def side_car_name(name: str) -> str:
    """Return the name of the side-car of a file."""
    return f"{name}{SIDE_CAR}"


def side_car_owner(name: str) -> str | None:
    """Return the name of the file that a side-car belongs to, ignoring case; otherwise `None`."""
    return (name[: -len(SIDE_CAR)] or None) if name.lower().endswith(SIDE_CAR) else None


def name_of_note(name: str) -> str:
    """Return the name of the note beside a file; a very long name is shortened."""
    return f"{_cut(name, len(NOTE))}{NOTE}"


def names_like(name: str) -> Iterator[str]:
    """Yield the name itself, then `NAME (2).EXT` and so on, each within the length limit."""
    yield name
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    for number in itertools.count(2):
        end = f" ({number}){extension}"
        yield f"{_cut(stem, len(os.fsencode(end)))}{end}"


def profile_of(folder: PurePath, bindings: Mapping[PurePath, str]) -> str:
    """Return the profile of the deepest bound folder that contains `folder`; empty if none does."""
    upward = (folder, *folder.parents)
    return next((bindings[candidate] for candidate in upward if candidate in bindings), "")


def is_inside(relative: PurePath) -> bool:
    """Return whether a relative path stays below its base folder."""
    return not relative.is_absolute() and bool(relative.parts) and ".." not in relative.parts


def _cut(name: str, reserved_bytes: int) -> str:
    encoded = os.fsencode(name)
    limit = _MAX_BYTES - reserved_bytes
    if len(encoded) <= limit:
        return name
    while encoded[limit] & 0xC0 == 0x80:  # noqa: PLR2004 - the middle of a character in UTF-8
        limit -= 1
    return os.fsdecode(encoded[:limit])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The attributes that change when a file is written to or replaced."""

    inode: int
    size: int
    modified_ns: int


Found: TypeAlias = tuple[PurePath, tuple[Fingerprint, ...]]
"""A file in a folder, with the fingerprints of itself and of its side-car."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The last observed state of a file and its side-car; `quiet_since` is in seconds."""

    path: PurePath
    prints: tuple[Fingerprint, ...]
    quiet_since: float

    @property
    def age(self) -> tuple[int, bytes]:
        """The sort key of files, the oldest first."""
        return self.prints[0].modified_ns, bytes(self.path)


class Sightings:
    """The observed files, at most `limit` at a time, so that memory use is bounded."""

    def __init__(self, quiet_seconds: float, limit: int) -> None:
        self._quiet_seconds = quiet_seconds
        self._limit = limit
        self._seen: dict[PurePath, Sighting] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def has_room(self) -> bool:
        """Whether less than half of the capacity is used, so that a further scan is useful."""
        return len(self._seen) < max(1, self._limit // 2)

    def replace(self, files: Iterable[Found], now: float) -> int:
        """Observe the files that a scan found, oldest first; return how many had no room."""
        before, self._seen = self._seen, {}
        left_out = 0
        for path, prints in files:
            if len(self._seen) >= self._limit:
                left_out += 1
                continue
            known = before.get(path)
            if known is None or known.prints != prints:
                known = Sighting(path=path, prints=prints, quiet_since=now)
            self._seen[path] = known
        return left_out

    def restart_quiet_period(self, path: PurePath, now: float) -> None:
        """Restart the quiet period of a file."""
        if known := self._seen.get(path):
            self._seen[path] = Sighting(path=path, prints=known.prints, quiet_since=now)

    def forget(self, path: PurePath) -> None:
        """Stop observing a file."""
        self._seen.pop(path, None)

    def complete_files(self, now: float) -> list[Sighting]:
        """Return the files that have been quiet for long enough, the oldest first."""
        until = now - self._quiet_seconds
        quiet = (sighting for sighting in self._seen.values() if sighting.quiet_since <= until)
        return sorted(quiet, key=lambda sighting: sighting.age)
