"""Discovery of the files that command arguments name: files, folders, patterns, stdin."""

from __future__ import annotations

import fnmatch
import itertools
import os
import pickle
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError, UsageError
from chordwise.readers import failures
from chordwise.readers.contents import read_error_for
from chordwise.remote import (
    FolderEntry,
    RemoteEntry,
    RemoteError,
    is_remote,
    lexists,
    path_of,
    scandir,
)

STDIN = "-"
STDIN_SOURCE = "stdin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file to read, or to account for with its `failure`; `path` is `None` for stdin.

    Only links that the user named are followed. `status` is the state of a remote file when it was
    listed.
    """

    source: str
    path: Path | None = None
    follow_symlinks: bool = True
    failure: ReadError | None = None
    status: os.stat_result | None = None


def discover(arguments: Sequence[str]) -> Iterator[FoundFile]:
    """Return the files in the order of the arguments, folders sorted, each file once.

    Raises:
        UsageError: An argument matches nothing; raised before the first file is returned.
    """
    files = [_first_of(_files_of(argument), argument) for argument in arguments]
    return _deduplicated(itertools.chain.from_iterable(files))


def _first_of(files: Iterator[FoundFile], argument: str) -> Iterator[FoundFile]:
    first = next(files, None)
    if first is not None:
        return itertools.chain([first], files)
    what = f"{printable(argument)} matches no file"
    if has_wildcard(argument) and not path_of(folder := split(argument)[0]).is_dir():
        what += f": there is no folder {printable(folder)}"
    raise UsageError(
        f"{what}.",
        "Check the name of the bucket or host, and of the folder."
        if is_remote(argument)
        else "Name files, folders, patterns in quotes, or - for standard input.",
    )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UsageError(
            f"The list of files cannot be stored on disk: {error}.",
            "Free space in the folder for temporary files, or name another one in SQLITE_TMPDIR.",
        ) from error


def _deduplicated(files: Iterator[FoundFile]) -> Iterator[FoundFile]:
    # A temporary database of SQLite is in memory while it is small.
    with closing(sqlite3.connect("", check_same_thread=False)) as seen:
        seen.execute("CREATE TABLE paths (path BLOB PRIMARY KEY) WITHOUT ROWID")
        for file in files:
            path = STDIN if file.path is None else os.path.realpath(file.path)
            with _explained():
                added = seen.execute("INSERT OR IGNORE INTO paths VALUES (?)", [os.fsencode(path)])
            if added.rowcount:
                yield file


class FileList:
    """A list of any length, on disk except for a small one; files are read from it in order."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE files (number INTEGER PRIMARY KEY, file BLOB)")
        self._length = 0

    def append(self, file: FoundFile) -> None:
        """Add a file."""
        row = (self._length, pickle.dumps(file))
        with _explained():
            self._database.execute("INSERT INTO files VALUES (?, ?)", row)
        self._length += 1

    def __len__(self) -> int:
        """Return the number of files."""
        return self._length

    def __iter__(self) -> Iterator[FoundFile]:
        """Yield the files in order."""
        query = "SELECT file FROM files ORDER BY number"
        for (file,) in self._database.execute(query):
            yield pickle.loads(file)  # noqa: S301 - written above


def _files_of(argument: str) -> Iterator[FoundFile]:
    if argument == STDIN:
        return iter([FoundFile(source=STDIN_SOURCE)])
    if "\0" in argument or not argument:
        return iter(())
    path = path_of(argument)
    try:
        if not lexists(path):
            folder, pattern = split(argument) if has_wildcard(argument) else ("", ())
            return _walk(folder, pattern) if folder and path_of(folder).is_dir() else iter(())
        if path.is_dir():
            return _walk(argument)
    except RemoteError as error:
        return iter([_failed(argument, read_error_for(error))])
    return iter([FoundFile(source=printable(argument), path=path)])


def _walk(folder: str, pattern: tuple[str, ...] = ()) -> Iterator[FoundFile]:
    """Yield files from top to bottom, sorted by the bytes of names, never leaving the folder."""
    boundary = os.path.realpath(folder)
    # A stack instead of recursion: folders may be nested deeper than Python's recursion.
    waiting: list[tuple[FolderEntry, tuple[str, ...]]] = []
    yield from _list(folder, (), waiting)
    while waiting:
        entry, path = waiting.pop()
        if entry.is_dir(follow_symlinks=False):
            if may_hold(path, pattern):
                yield from _list(entry.path, path, waiting)
        elif not matches(path, pattern):
            continue
        elif entry.is_symlink():
            yield from _link(entry.path, boundary)
        else:
            # The reader checks the kind again, and rejects anything but a regular file.
            yield FoundFile(
                source=printable(entry.path),
                path=path_of(entry.path),
                follow_symlinks=False,
                status=entry.status if isinstance(entry, RemoteEntry) else None,
            )


def _list(
    folder: str,
    path: tuple[str, ...],
    waiting: list[tuple[FolderEntry, tuple[str, ...]]],
) -> Iterator[FoundFile]:
    try:
        with scandir(folder) as entries:
            listed = [entry for entry in entries if not is_ignored(entry.name)]
    except OSError as error:
        yield _failed(folder, read_error_for(error))
        return
    listed.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
    waiting.extend((entry, (*path, entry.name)) for entry in listed)


def _link(link: str, boundary: str) -> Iterator[FoundFile]:
    """Follow a link to a file inside the folder; folders are found by their own names."""
    if is_remote(link):
        what, hint = "is a symbolic link on a server.", "Name its target as an argument."
        yield _failed(link, failures.refused(what, hint, "symlink"))
        return
    try:
        target = os.path.realpath(link, strict=True)
    except OSError as error:
        yield _failed(link, read_error_for(error))
        return
    if os.path.commonpath((boundary, target)) != boundary:
        what, hint = "is a symbolic link out of its folder.", "Name its target as an argument."
        yield _failed(link, failures.refused(what, hint, "symlink"))
    elif not Path(target).is_dir():
        yield FoundFile(source=printable(link), path=Path(target), follow_symlinks=False)


def _failed(path: str, error: ReadError) -> FoundFile:
    source = printable(path)
    # Not resolved: the same target may be refused under several names.
    return FoundFile(
        source=source,
        path=path_of(path),
        follow_symlinks=False,
        failure=failures.named(source, error),
    )


_ANY_DEPTH = "**"


def has_wildcard(argument: str) -> bool:
    """Return whether an argument may be a pattern, if it does not name a file."""
    return any(sign in argument for sign in "*?[")


def split(argument: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder to search and the pattern for paths below it, by segments."""
    segments = path_of(argument).parts
    fixed = list(itertools.takewhile(lambda segment: not has_wildcard(segment), segments))
    # Two adjacent ** are equivalent to one, and much slower.
    pattern = [segment for segment, _ in itertools.groupby(segments[len(fixed) :])]
    folder = os.path.join(*fixed) if fixed else "."  # noqa: PTH118 - stays a string
    return str(type(path_of(argument))(folder)), tuple(pattern)


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
        if path_of(folder).is_dir():
            return False
        hint = "Create or mount its folder where the scheduler runs; it may be empty."
        raise UsageError(error.what, hint) from error
    return True


def spellings(path: str) -> Sequence[str]:
    """Return the names under which documents at a path can be stored: as it was typed, or whole.

    `.` stands for all documents whose names are relative.
    """
    if is_remote(path):
        return (path.rstrip("/"),)
    whole = os.path.normpath(absolute(path))
    relative = os.path.relpath(whole)
    return tuple(dict.fromkeys((whole, printable(relative), printable(f"./{relative}"))))


def absolute(path: str) -> str:
    """Return a path argument made absolute; `-` is kept, and patterns stay patterns."""
    return path if path == STDIN or is_remote(path) else printable(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - it may be a pattern
