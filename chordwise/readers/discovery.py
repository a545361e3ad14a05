"""Discovery of the files that command arguments name: files, folders, patterns, stdin."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError, UsageError
from chordwise.readers import failures
from chordwise.readers.contents import read_error_for

STDIN = "-"
STDIN_SOURCE = "stdin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file to read, or to account for with its `failure`; `path` is `None` for stdin.

    Only links that the user named are followed.
    """

    source: str
    path: Path | None = None
    follow_symlinks: bool = True
    failure: ReadError | None = None


def discover(arguments: Sequence[str]) -> Iterator[FoundFile]:
    """Return the files in the order of the arguments, folders sorted, each file once.

    Raises:
        UsageError: An argument matches nothing; raised before the first file is returned.
    """
    files = [_first_of(_files_of(argument), argument) for argument in arguments]
    return _deduplicated(itertools.chain.from_iterable(files))


def _first_of(files: Iterator[FoundFile], argument: str) -> Iterator[FoundFile]:
    first = next(files, None)
    if first is None:
        raise UsageError(
            _no_match_message(argument),
            "Name files, folders, patterns in quotes, or - for standard input.",
        )
    return itertools.chain([first], files)


def _no_match_message(argument: str) -> str:
    if has_wildcard(argument):
        folder, _ = split(argument)
        if not Path(folder).is_dir():
            return f"{printable(argument)} matches no file: there is no folder {printable(folder)}."
    return f"{printable(argument)} matches no file."


def _deduplicated(files: Iterator[FoundFile]) -> Iterator[FoundFile]:
    seen: set[str] = set()
    for file in files:
        identity = STDIN if file.path is None else os.path.realpath(file.path)
        if identity not in seen:
            seen.add(identity)
            yield file


def _files_of(argument: str) -> Iterator[FoundFile]:
    if argument == STDIN:
        return iter([FoundFile(source=STDIN_SOURCE)])
    if "\0" in argument or not argument:
        return iter(())
    path = Path(argument)
    if path.is_dir():
        return _Walk(argument).files()
    if os.path.lexists(path):
        return iter([FoundFile(source=printable(argument), path=path)])
    return _matching(argument) if has_wildcard(argument) else iter(())


def _matching(argument: str) -> Iterator[FoundFile]:
    folder, pattern = split(argument)
    if not Path(folder).is_dir():
        return iter(())
    return _Walk(folder, pattern).files()


class _Walk:
    """The walk of one folder from top to bottom, sorted by the bytes of names, never leaving it."""

    def __init__(self, folder: str, pattern: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._pattern = pattern
        self._boundary = os.path.realpath(folder)

    def files(self) -> Iterator[FoundFile]:
        # A stack instead of recursion: folders may be nested deeper than Python's recursion.
        waiting: list[tuple[os.DirEntry[str], tuple[str, ...]]] = []
        yield from self._list(self._folder, (), waiting)
        while waiting:
            entry, path = waiting.pop()
            if entry.is_dir(follow_symlinks=False):
                if may_hold(path, self._pattern):
                    yield from self._list(entry.path, path, waiting)
            elif matches(path, self._pattern):
                yield from self._file(entry)

    def _list(
        self,
        folder: str,
        path: tuple[str, ...],
        waiting: list[tuple[os.DirEntry[str], tuple[str, ...]]],
    ) -> Iterator[FoundFile]:
        try:
            with os.scandir(folder) as entries:
                listed = [entry for entry in entries if not is_ignored(entry.name)]
        except OSError as error:
            yield _failed(folder, read_error_for(error))
            return
        listed.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
        waiting.extend((entry, (*path, entry.name)) for entry in listed)

    def _file(self, entry: os.DirEntry[str]) -> Iterator[FoundFile]:
        if entry.is_symlink():
            yield from self._link(entry.path)
        else:
            # The reader checks the kind again, and rejects anything but a regular file.
            yield FoundFile(
                source=printable(entry.path), path=Path(entry.path), follow_symlinks=False
            )

    def _link(self, link: str) -> Iterator[FoundFile]:
        """Follow a link to a file inside the folder; folders are found by their own names."""
        try:
            target = os.path.realpath(link, strict=True)
        except OSError as error:
            yield _failed(link, read_error_for(error))
            return
        if os.path.commonpath((self._boundary, target)) != self._boundary:
            what, hint = "is a symbolic link out of its folder.", "Name its target as an argument."
            yield _failed(link, failures.refused(what, hint, "symlink"))
        elif not Path(target).is_dir():
            yield FoundFile(source=printable(link), path=Path(target), follow_symlinks=False)


def _failed(path: str, error: ReadError) -> FoundFile:
    source = printable(path)
    # Not resolved: the same target may be refused under several names.
    return FoundFile(
        source=source, path=Path(path), follow_symlinks=False, failure=failures.named(source, error)
    )


_ANY_DEPTH = "**"


def has_wildcard(argument: str) -> bool:
    """Return whether an argument may be a pattern, if it does not name a file."""
    return any(sign in argument for sign in "*?[")


def split(argument: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder to search and the pattern for paths below it, by segments."""
    segments = PurePath(argument).parts
    fixed = list(itertools.takewhile(lambda segment: not has_wildcard(segment), segments))
    # Two adjacent ** are equivalent to one, and much slower.
    pattern = [segment for segment, _ in itertools.groupby(segments[len(fixed) :])]
    return os.path.join(*fixed) if fixed else ".", tuple(pattern)  # noqa: PTH118 - stays a string


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path, or a folder that contains it, matches the pattern (as in a shell)."""
    if not pattern:
        return True
    if pattern[0] == _ANY_DEPTH:
        return any(matches(path[start:], pattern[1:]) for start in range(len(path) + 1))
    if not path:
        return False
    return fnmatch.fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def may_hold(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path below the folder can match the pattern."""
    if not pattern or not folder or pattern[0] == _ANY_DEPTH:
        return True
    return fnmatch.fnmatchcase(folder[0], pattern[0]) and may_hold(folder[1:], pattern[1:])


_STARTS = (".", "~$", "~lock.")
_ENDS = (
    *(".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload"),
    *(".tmp", ".temp", ".swp", "~", ".chordwise.toml"),
)
_NAMES = (
    *("thumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "@eadir", "#recycle"),
    *("$recycle.bin", "system volume information", "chordwise.toml"),
)


def is_ignored(name: str) -> bool:
    """Return whether a name inside a folder is hidden, temporary, or internal to a program."""
    lowered = name.lower()
    return lowered.startswith(_STARTS) or lowered.endswith(_ENDS) or lowered in _NAMES


def matches_any_file(path: str) -> bool:
    """Return whether a path matches any file; false for an existing but empty folder.

    Raises:
        UsageError: The path, or the folder of its pattern, does not exist.
    """
    try:
        next(discover([path]))
    except UsageError as error:
        folder = split(path)[0] if has_wildcard(path) else path
        if Path(folder).is_dir():
            return False
        hint = "Create or mount its folder where the scheduler runs; it may be empty."
        raise UsageError(error.what, hint) from error
    return True


def absolute(path: str) -> str:
    """Return a path argument made absolute; `-` is kept, and patterns stay patterns."""
    return path if path == STDIN else printable(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - it may be a pattern
