"""Patterns with `*`, `?`, `[…]` and `**` that the shell has left to us."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Sequence
from pathlib import PurePath

_MAGIC = "*?["
_ANY_DEPTH = "**"


def has_wildcard(argument: str) -> bool:
    """Tell whether an argument that names no file may be a pattern."""
    return any(sign in argument for sign in _MAGIC)


def split(argument: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder to search and the pattern for paths below it, segment by segment."""
    segments = PurePath(argument).parts
    fixed = list(itertools.takewhile(lambda segment: not has_wildcard(segment), segments))
    # Two neighbouring ** mean the same as one, and cost much more.
    pattern = [segment for segment, _ in itertools.groupby(segments[len(fixed) :])]
    return os.path.join(*fixed) if fixed else ".", tuple(pattern)  # noqa: PTH118 - stays a string


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a path, or a folder that it lies in, fits the pattern (as in a shell)."""
    if not pattern:
        return True
    if pattern[0] == _ANY_DEPTH:
        return any(matches(path[start:], pattern[1:]) for start in range(len(path) + 1))
    if not path:
        return False
    return fnmatch.fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def may_hold(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether something below the folder can fit the pattern."""
    if not pattern or not folder or pattern[0] == _ANY_DEPTH:
        return True
    return fnmatch.fnmatchcase(folder[0], pattern[0]) and may_hold(folder[1:], pattern[1:])
