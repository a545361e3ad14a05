"""When a file that may still be written is complete: unchanged for a while."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What changes when a file is written to or replaced."""

    inode: int
    size: int
    modified_ns: int


Found: TypeAlias = tuple[PurePath, tuple[Fingerprint, ...]]
"""A file in a folder, with the fingerprints of itself and of its side-car."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A file as it was last seen, its side-car included; `quiet_since` is in seconds."""

    path: PurePath
    prints: tuple[Fingerprint, ...]
    quiet_since: float

    @property
    def age(self) -> tuple[int, bytes]:
        """What files are put in order by: the oldest first."""
        return self.prints[0].modified_ns, bytes(self.path)


class Sightings:
    """The files that are waited for, at most `most` at a time, so that memory stays bounded."""

    def __init__(self, quiet_seconds: float, most: int) -> None:
        self._quiet_seconds = quiet_seconds
        self._most = most
        self._seen: dict[PurePath, Sighting] = {}

    def __len__(self) -> int:
        """Return how many files are waited for."""
        return len(self._seen)

    @property
    def has_room(self) -> bool:
        """Whether a look for further files is worth while."""
        return len(self._seen) < max(1, self._most // 2)

    def replace(self, found: Iterable[Found], now: float) -> int:
        """Wait for the files that a scan found, oldest first; return how many had no room.

        Whatever the scan did not find is forgotten, and whatever changed has to be quiet again.
        """
        before, self._seen = self._seen, {}
        left_out = 0
        for path, prints in found:
            if len(self._seen) >= self._most:
                left_out += 1
                continue
            known = before.get(path)
            unchanged = known is not None and known.prints == prints
            since = known.quiet_since if known is not None and unchanged else now
            self._seen[path] = Sighting(path=path, prints=prints, quiet_since=since)
        return left_out

    def disturb(self, path: PurePath, now: float) -> None:
        """Note that something happened to a file."""
        known = self._seen.get(path)
        if known is not None:
            self._seen[path] = Sighting(path=path, prints=known.prints, quiet_since=now)

    def forget(self, path: PurePath) -> None:
        """Wait for a file no longer."""
        self._seen.pop(path, None)

    def ripe(self, now: float) -> list[Sighting]:
        """Return the files that have been quiet for long enough, the oldest first."""
        until = now - self._quiet_seconds
        return sorted(
            (each for each in self._seen.values() if each.quiet_since <= until),
            key=lambda each: each.age,
        )
