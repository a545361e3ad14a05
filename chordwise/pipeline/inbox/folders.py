"""Moves files so that a kill at any moment leaves each of them whole in exactly one place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from chordwise.domain.inbox_names import DONE, FAILED, MARK, names_like, profile_of, side_car_name
from chordwise.embedded import home
from chordwise.embedded.home import write_private
from chordwise.errors import ConfigurationError
from chordwise.pipeline.exports.writers import sync_folder
from chordwise.settings import Settings
from chordwise.settings.sections import folders_of
from chordwise.storage.record import id_in, new_id

Rename: TypeAlias = Callable[[Path, Path], None]
_COPYING = ".copying"
_SLICE = 1024 * 1024
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def mark_beside(path: Path, token: str) -> Path:
    """Return the hidden name under which a file lies while it is copied."""
    return path.with_name(f"{MARK}{token}")


def take(source: Path, target: Path, token: str, rename: Rename = os.rename) -> None:
    """Move a file to an unused name, across file systems where necessary.

    There it first gets a hidden name, so that no other process takes it meanwhile; `finish_taking`
    goes on after a kill, and whatever raises leaves it under one of the three names.
    """
    try:
        rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = mark_beside(source, token)
        os.rename(source, mark)  # noqa: PTH104 - atomic, within the folder
        finish_taking(mark, target)


def finish_taking(mark: Path, target: Path) -> None:
    """Copy what was marked, and remove it once the copy is whole and on the disk."""
    if not target.exists():
        copying = target.with_name(_COPYING)
        copying.unlink(missing_ok=True)  # of an attempt that was cut off
        try:
            copy(mark, copying)
            os.rename(copying, target)  # noqa: PTH104 - atomic, and under our lock
        finally:
            copying.unlink(missing_ok=True)
        sync_folder(target.parent)
    mark.unlink()


def place(source: Path, target: Path, token: str) -> None:
    """Move a file to a name that must be free; what lies there is never overwritten.

    Raises:
        FileExistsError: The name is taken; the file is where it was.
    """
    try:
        _name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = mark_beside(target, token)
        mark.unlink(missing_ok=True)  # of an attempt that was cut off
        try:
            copy(source, mark)
            _name(mark, target)
        finally:
            mark.unlink(missing_ok=True)
        sync_folder(target.parent)
        source.unlink()


def place_freely(source: Path, target: Path, token: str) -> None:
    """Move a file to a name, or to one like it where that is taken."""
    for name in names_like(target.name):
        try:
            place(source, target.with_name(name), token)
        except FileExistsError:
            continue
        return


def is_copy(first: Path, second: Path) -> bool:
    """Return whether two names lead to one file, or one is a `copy` of the other."""
    try:
        return first.samefile(second) or (
            first.stat().st_mtime_ns == second.stat().st_mtime_ns
            and sha256_of(first) == sha256_of(second)
        )
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Make a copy that is on the disk, with the times and permissions; links are not followed."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, _SLICE)
        writing.flush()
        os.fsync(writing.fileno())
    shutil.copystat(source, target, follow_symlinks=False)


def _name(source: Path, target: Path) -> None:
    """Rename within a file system, but never onto something."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No links here, or not to a file of another user.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
        os.rename(source, target)  # noqa: PTH104 - fails with EXDEV as the link did
    else:
        source.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One inbox: an absolute path without links."""

    folder: Path

    @property
    def done(self) -> Path:
        """Where files go whose analyses have all succeeded."""
        return self.folder.parent / DONE

    @property
    def failed(self) -> Path:
        """Where all others go."""
        return self.folder.parent / FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The inboxes in the order of the settings, and the folders that profiles are bound to."""

    inboxes: tuple[Place, ...]
    bindings: Mapping[PurePath, str]

    def profile_of(self, file: Path) -> str:
        """Return the profile that a file belongs to; empty where none binds."""
        return profile_of(file.parent, self.bindings)

    def holding(self, file: Path) -> Place | None:
        """Return the inbox that a path lies in."""
        found = (each for each in self.inboxes if file.is_relative_to(each.folder))
        return next(found, None)


def places(settings: Settings) -> Places:
    """Return what the settings say, made absolute; nothing is created.

    Raises:
        ConfigurationError: Inboxes that overlap each other, a profile's folder outside of them, or
            the same one for two profiles while inboxes are watched.
    """
    base = settings.base_folder
    folders = [(base / each.expanduser()).resolve() for each in settings.inbox.folders]
    inboxes = tuple(Place(folder=each) for each in dict.fromkeys(folders))
    for inbox in inboxes:
        for other in inboxes:
            _refuse_overlap(inbox, other)
    return Places(inboxes=inboxes, bindings=_bindings(settings, inboxes))


def _refuse_overlap(inbox: Place, other: Place) -> None:
    within = inbox is not other and other.folder.is_relative_to(inbox.folder)
    if within or inbox.folder in {other.done, other.failed}:
        raise ConfigurationError(
            f"inbox.folders: {other.folder} and {inbox.folder} overlap.",
            "An inbox lies neither in another one nor where another one's done files go.",
        )


def _bindings(settings: Settings, inboxes: tuple[Place, ...]) -> dict[PurePath, str]:
    folders = [each.folder for each in inboxes]
    found: dict[PurePath, str] = {}
    for name, profile in settings.profiles.items():
        try:
            own: dict[PurePath, str] = {
                each.resolve(): name for each in folders_of(name, profile, folders)
            }
        except ValueError as error:
            hint = "Name a sub-folder, or an absolute path."
            raise ConfigurationError(f"{error}.", hint) from error
        if settings.inbox.enabled:
            _refuse_rivals(found, own, folders)
        found |= own
    return found


def _refuse_rivals(
    found: Mapping[PurePath, str], own: Mapping[PurePath, str], inboxes: Iterable[Path]
) -> None:
    """Refuse a folder of an inbox for a second profile: its files can belong to one only."""
    for each in found.keys() & own.keys():
        if any(each.is_relative_to(inbox) for inbox in inboxes):
            raise ConfigurationError(
                f"profiles.{found[each]} and profiles.{own[each]} are both for {each}.",
                "Give one of them another folder; where none is set, it is the profile's name.",
            )


ORIGIN = ".origin"


class Store:
    """A folder below CHORDWISE_HOME with a sub-folder for each file; one watcher at a time."""

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().resolve() / "inbox"
        self._lock: int | None = None
        self._id: uuid.UUID | None = None

    def acquire(self) -> bool:
        """Become the one watcher of this home until `release` or exit; return whether it worked.

        Raises:
            ConfigurationError: The folder cannot be created.
            OSError: It cannot be written to.
        """
        home.make_folder(self.folder)
        if self._lock is None:
            descriptor = os.open(
                self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def release(self) -> None:
        """Let another process watch."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def id(self) -> uuid.UUID:
        """The permanent id that distinguishes the rows of this store from those of others."""
        if self._id is None:
            file = self.folder / ".id"
            if not file.exists():
                write_private(file, str(new_id()))
            self._id = uuid.UUID(file.read_text("utf-8").strip())
        return self._id

    def folder_of(self, file_id: uuid.UUID) -> Path:
        """Return the sub-folder of a file."""
        return self.folder / str(file_id)

    def path_of(self, file_id: uuid.UUID, name: str) -> Path:
        """Return the path of a file; its name shows the reader the kind of the file."""
        return self.folder_of(file_id) / name

    def side_car_of(self, file_id: uuid.UUID, name: str) -> Path:
        """Return where its side-car lies, if there is one."""
        return self.folder_of(file_id) / side_car_name(name)

    def begin(self, file_id: uuid.UUID, source: Path) -> None:
        """Make the sub-folder, and note in it where the file comes from.

        Raises:
            OSError: There is no room, or no right to write.
        """
        folder = self.folder_of(file_id)
        folder.mkdir(mode=0o700, parents=True)
        (folder / ORIGIN).write_bytes(os.fsencode(source))

    def origin(self, file_id: uuid.UUID) -> Path | None:
        """Return where a file came from, as noted beside it."""
        try:
            return Path(os.fsdecode((self.folder_of(file_id) / ORIGIN).read_bytes()))
        except OSError:
            return None

    def end(self, file_id: uuid.UUID) -> None:
        """Remove the sub-folder, from which the file has gone; a file in it would stop this."""
        folder = self.folder_of(file_id)
        if folder.exists():
            (folder / ORIGIN).unlink(missing_ok=True)
            folder.rmdir()

    def ids(self) -> Iterator[uuid.UUID]:
        """Yield the ids of all sub-folders."""
        found = (id_in(entry.name) for entry in self.folder.iterdir())
        yield from (each for each in found if each is not None)
