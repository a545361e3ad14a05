"""Scans inboxes: which files are complete, which can be taken, and which are refused."""

from __future__ import annotations

import fcntl
import heapq
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from chordwise.domain.inbox import Fingerprint, Found, side_car_name, side_car_owner
from chordwise.errors import ReadError, UsageError
from chordwise.pipeline.intake.run_options import parse_toml, require_answerable, run_options
from chordwise.readers import contents
from chordwise.readers.discovery import is_ignored
from chordwise.remote import FolderEntry, RemoteError, RemotePath, path_of, scandir
from chordwise.settings import Profile, Settings
from chordwise.settings.profiles import OF_TYPES
from chordwise.settings.sections import problems
from chordwise.storage.inbox_files import InboxFile, Version

LINK = "is a symbolic link; put the file itself there"
HARD_LINK = "has another hard link, through which it could change; put a copy there"
NOT_A_FILE = "is not a regular file"
FORBIDDEN = "cannot be read; change its permissions"
MISSING_FOLDER = "does not exist; the scheduler creates it when it starts"
FORBIDDEN_FOLDER = "cannot be listed; change its permissions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An entry of an inbox that is not taken, and the reason."""

    path: Path
    reason: str


def files(folder: Path, refuse: Callable[[Refused], None]) -> Iterator[Found]:
    """Yield the files of an inbox that can be taken, unordered.

    Sub-folders are scanned, links are not followed. `refuse` is called with each refused entry.
    """
    if isinstance(folder, RemotePath):
        yield from _remote_files(folder, refuse)
        return
    for entry in _entries(folder, refuse):
        path = Path(entry.path)
        if is_ignored(entry.name):
            continue
        if (reason := refusal(path)) is not None:
            refuse(Refused(path=path, reason=reason))
        elif (prints := fingerprints(path)) is not None:
            yield path, prints


def oldest(candidates: Iterable[Found], limit: int) -> list[Found]:
    """Return at most `limit` files, the oldest first."""
    return heapq.nsmallest(
        limit, candidates, key=lambda file: (file[1][0].modified_ns, bytes(file[0]))
    )


def version(folder: Path, file: Found) -> Version:
    """Return the version of a file in an inbox."""
    path, (fingerprint, *_) = file
    return os.fsencode(path.relative_to(folder)), fingerprint.size, fingerprint.modified_ns


def is_same_version(file: InboxFile, path: Path) -> bool:
    """Return whether a path in the folder of a claimed file is a file of its version."""
    fingerprint = _fingerprint(path)
    if fingerprint is None:
        return False
    is_same = (fingerprint.size, fingerprint.modified_ns) == (file.byte_count, file.modified_ns)
    if isinstance(path, RemotePath):
        return is_same
    # A symbolic link instead of a sub-folder could lead out of the inbox.
    is_same = is_same and refusal(path) not in {LINK, NOT_A_FILE}
    return is_same and path.parent.resolve().is_relative_to(file.folder)


def orphaned_side_cars(folder: Path) -> Iterator[Path]:
    """Yield the side-cars of an inbox whose file is missing, unordered; it may still arrive."""
    for entry in _entries(folder, lambda _: None):
        owner, path = side_car_owner(entry.name), path_of(entry.path)
        if owner is None or is_ignored(owner):
            continue
        if entry.name != side_car_name(owner) or not _is_there(path.with_name(owner)):
            yield path


def fingerprints(path: Path) -> tuple[Fingerprint, ...] | None:
    """Return the fingerprints of a file and of its side-car; `None` if the file is missing."""
    fingerprint = _fingerprint(path)
    if fingerprint is None:
        return None
    beside = _fingerprint(path.with_name(side_car_name(path.name)))
    return (fingerprint,) if beside is None else (fingerprint, beside)


def refusal(path: Path) -> str | None:
    """Return the reason that a file must not be taken; `None` if it may be taken."""
    try:
        status = path.lstat()
    except OSError:
        return None  # the file is gone, so there is nothing to refuse
    if stat.S_ISLNK(status.st_mode):
        return LINK
    if not stat.S_ISREG(status.st_mode):
        return NOT_A_FILE
    if status.st_nlink > 1:
        return HARD_LINK
    return None if os.access(path, os.R_OK) else FORBIDDEN


def is_being_written(path: Path) -> bool:
    """Return whether a process on this machine has the file open for writing.

    The kernel grants a read lease only if no process has the file open for writing. The result is
    false if leases are not supported, such as on network shares and on systems other than Linux.
    """
    if sys.platform != "linux" or isinstance(path, RemotePath):
        return False
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return False
    try:
        # If a process opens the file while the lease is held, the kernel sends a signal: SIGURG is
        # ignored by default, while the usual SIGIO would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _entries(folder: Path, refuse: Callable[[Refused], None]) -> Iterator[FolderEntry]:
    """Yield all entries that are not folders, including those with ignored names."""
    waiting = [folder]  # a stack instead of recursion: folders may be nested deeply
    while waiting:
        current = waiting.pop()
        try:
            with scandir(current) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                    elif not is_ignored(entry.name):
                        waiting.append(path_of(entry.path))
        except FileNotFoundError:
            if current == folder:  # a sub-folder may be removed during the scan
                refuse(Refused(path=current, reason=MISSING_FOLDER))
        except OSError:
            refuse(Refused(path=current, reason=FORBIDDEN_FOLDER))


def _remote_files(folder: RemotePath, refuse: Callable[[Refused], None]) -> Iterator[Found]:
    """Yield the files of a remote inbox; a listing has the state of all files of its folder."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            entries = {entry.name: entry for entry in current.entries()}
        except OSError as error:
            hint = error.hint if isinstance(error, RemoteError) else ""
            refuse(Refused(path=current, reason=f"{error.strerror}. {hint}".strip()))
            continue
        for name, entry in entries.items():
            if is_ignored(name):
                continue
            if entry.is_dir():
                waiting.append(current / name)
            elif not stat.S_ISREG(entry.status.st_mode):
                refuse(
                    Refused(path=current / name, reason=LINK if entry.is_symlink() else NOT_A_FILE)
                )
            else:
                both = (entry, entries.get(side_car_name(name)))
                yield current / name, tuple(_print_of(one.status) for one in both if one)


def _is_there(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # unknown, so assume that it exists


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        return _print_of(path.lstat())
    except RemoteError:  # it may be there
        raise
    except OSError:
        return None


def _print_of(status: os.stat_result) -> Fingerprint:
    return Fingerprint(inode=status.st_ino, size=status.st_size, modified_ns=status.st_mtime_ns)


_MAX_PROBLEMS = 5
_NAMED_SUFFIXES = frozenset({".toml", ".json"})


def profile_named(settings: Settings, name: str) -> Profile:
    """Return a profile; the defaults for an empty name, or for a profile that no longer exists."""
    return settings.profiles.get(name, Profile())


def with_side_car(profile: Profile, side_car: Path, base: Path) -> Profile:
    """Return the profile with its entries overridden by those of a side-car.

    `base` is the folder of `chordwise.toml`; a side-car may only name files below it.

    Raises:
        UsageError: The side-car is not valid TOML, has unknown entries, or has forbidden ones.
    """
    entries = _settings_in(side_car)
    if "folder" in entries:
        raise UsageError("The side-car sets folder.", "folder is only valid in [profiles].")
    try:
        overrides = Profile.model_validate(entries)
    except ValidationError as error:
        reasons = "; ".join(problems(error)[:_MAX_PROBLEMS])
        hint = "See docs/inbox.md."
        if entries.get("budget_usd") == 0:
            hint = 'budget_usd = "" removes the budget of the profile.'
        raise UsageError(f"The side-car is invalid: {reasons}.", hint) from error
    if entries.get("learned_examples") and not profile.learned_examples:
        what = "The side-car enables learned examples, which its profile switches off."
        raise UsageError(what, "They contain parts of other documents; enable them in the profile.")
    files = {
        "schema": overrides.schema_file,
        "labels_file": overrides.labels_file,
        "examples": overrides.examples_file,
    }
    for name, file in files.items():
        if isinstance(file, Path) and not _is_reference_allowed(file, base.resolve()):
            raise UsageError(
                f"The side-car's {name} is not a TOML or JSON file below the folder of "
                "chordwise.toml, or is hidden.",
                "Name it relative to that folder.",
            )
    merged = overrides.over(profile)
    _require_types(overrides, merged)
    return merged


def _is_reference_allowed(file: Path, base: Path) -> bool:
    """Return whether a side-car may name a file: not hidden, of a known type, and below `base`."""
    target = (base / file).resolve()
    if file.is_absolute() or not target.is_relative_to(base):
        return False
    is_hidden = any(part.startswith(".") for part in target.relative_to(base).parts)
    return target.suffix.lower() in _NAMED_SUFFIXES and not is_hidden


def check(settings: Settings, profile: Profile) -> None:
    """Reject a profile with which no run could be opened.

    Raises:
        UsageError: The profile contradicts itself, or its schema cannot be used.
        ConfigurationError: `require_answerable` refuses it.
    """
    require_answerable(settings, run_options(settings, profile))


def _require_types(overrides: Profile, merged: Profile) -> None:
    """Reject a schema or labels of the side-car that none of the requested types uses."""
    for name, needed in OF_TYPES.items():
        if getattr(overrides, name) and merged.types and needed not in merged.types:
            noun = "schema is" if name == "schema_file" else "labels are"
            types = " and ".join(merged.types)
            raise UsageError(
                f"The side-car's {noun} for {needed}s, but the requested types are {types}.",
                f'Add "{needed}" to the types of the side-car.',
            )


def _settings_in(side_car: Path) -> dict[str, object]:
    try:
        with contents.opened(side_car, 1, follow_symlinks=False) as file:
            return {**parse_toml(file.read().decode("utf-8-sig"))}
    except ReadError as error:
        raise UsageError(f"The side-car {error.what}", error.hint) from error
    except UnicodeDecodeError as error:
        raise UsageError("The side-car is not UTF-8 text.") from error
    except (ValueError, RecursionError) as error:
        what = f"The side-car is not valid TOML: {error}."
        raise UsageError(what, "See docs/inbox.md.") from error
