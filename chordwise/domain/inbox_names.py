"""The names around a file of an inbox: side-car, note, free names, and its profile."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath

SIDE_CAR = ".chordwise.toml"
NOTE = ".json"
DONE = "done"
FAILED = "failed"
MARK = ".chordwise-"
"""How the names begin under which a file lies hidden while it is copied between file systems."""
_MAX_BYTES = 255


def side_car_name(name: str) -> str:
    """Return the name of the side-car of a file."""
    return f"{name}{SIDE_CAR}"


def side_car_owner(name: str) -> str | None:
    """Return the name of the file that a side-car is for, in whatever case; `None` for others."""
    return (name[: -len(SIDE_CAR)] or None) if name.lower().endswith(SIDE_CAR) else None


def note_name(name: str) -> str:
    """Return the name of the note beside a file; that of a very long name is shortened."""
    return f"{_cut(name, len(NOTE))}{NOTE}"


def names_like(name: str) -> Iterator[str]:
    """Yield the name itself, then `NAME (2).EXT` and so on, none longer than a name may be."""
    yield name
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - of a name, not of a path
    for number in itertools.count(2):
        end = f" ({number}){extension}"
        yield f"{_cut(stem, len(os.fsencode(end)))}{end}"


def profile_of(folder: PurePath, bindings: Mapping[PurePath, str]) -> str:
    """Return the profile of the deepest bound folder that holds this one; empty for none."""
    for each in (folder, *folder.parents):
        if each in bindings:
            return bindings[each]
    return ""


def is_inside(relative: PurePath) -> bool:
    """Tell whether a relative path stays below the folder that it counts from."""
    return not relative.is_absolute() and bool(relative.parts) and ".." not in relative.parts


def _cut(name: str, reserved_bytes: int) -> str:
    """Return as much of a name as leaves so many bytes free; whole characters only."""
    encoded = os.fsencode(name)
    most = _MAX_BYTES - reserved_bytes
    if len(encoded) <= most:
        return name
    while encoded[most] & 0xC0 == 0x80:  # noqa: PLR2004 - the middle of a character in UTF-8
        most -= 1
    return os.fsdecode(encoded[:most])
