"""Moves files so that a kill at any time leaves each file complete in exactly one place."""

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

from chordwise.domain.identifiers import id_in
from chordwise.domain.inbox import DONE, FAILED, MARK, names_like, profile_of, side_car_name
from chordwise.embedded import home
from chordwise.embedded.home import write_private
from chordwise.errors import ConfigurationError
from chordwise.pipeline.exports.writers import sync_folder
from chordwise.settings import Settings
from chordwise.settings.profiles import folders_of
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.record import new_id

Rename: TypeAlias = Callable[[Path, Path], None]
_COPYING = ".copying"
_SLICE = 1024 * 1024
_PERMISSIONS = 0o777
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def hidden_path(path: Path, token: str) -> Path:
    """Return the hidden name of a file while it is copied."""
    return path.with_name(f"{MARK}{token}")


def take(source: Path, target: Path, token: str, rename: Rename = os.rename) -> None:
    """Move a file to an unused name, across file systems if necessary.

    Across file systems the source is first renamed to a hidden name, so that no other process takes
    it in the meantime; `finish_taking` continues after a kill. After an exception the file has one
    of the three names.
    """
    try:
        rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = hidden_path(source, token)
        os.rename(source, mark)  # noqa: PTH104 - atomic, within the folder
        finish_taking(mark, target)


def finish_taking(mark: Path, target: Path) -> None:
    """Copy a marked file, and remove it after the complete copy is synced to disk."""
    if not target.exists():
        copying = target.with_name(_COPYING)
        copying.unlink(missing_ok=True)  # left by an interrupted attempt
        try:
            copy(mark, copying)
            os.rename(copying, target)  # noqa: PTH104 - atomic, and this process holds the lock
        finally:
            copying.unlink(missing_ok=True)
        sync_folder(target.parent)
    mark.unlink()


def move(source: Path, target: Path, token: str) -> None:
    """Move a file to a name that must be free; an existing file is never overwritten.

    Raises:
        FileExistsError: The name is taken; the file was not moved.
    """
    try:
        _name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark = hidden_path(target, token)
        mark.unlink(missing_ok=True)  # left by an interrupted attempt
        try:
            copy(source, mark)
            _name(mark, target)
        finally:
            mark.unlink(missing_ok=True)
        sync_folder(target.parent)
        source.unlink()


def move_numbered(source: Path, target: Path, token: str) -> None:
    """Move a file to a name, or to a numbered variant of it if it is taken."""
    for name in names_like(target.name):
        try:
            move(source, target.with_name(name), token)
        except FileExistsError:
            continue
        return


def is_copy(first: Path, second: Path) -> bool:
    """Return whether two paths are the same file, or one is a `copy` of the other."""
    try:
        return first.samefile(second) or (
            first.stat().st_mtime_ns == second.stat().st_mtime_ns
            and sha256_of(first) == sha256_of(second)
        )
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Copy a file with its times and permissions, synced to disk; links are not followed.

    The copy belongs to this process's user, so it gets no set-user-ID or set-group-ID bits.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, _SLICE)
        writing.flush()
        status = os.fstat(reading.fileno())
        os.fchmod(writing.fileno(), status.st_mode & _PERMISSIONS)
        os.utime(writing.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(writing.fileno())


def _name(source: Path, target: Path) -> None:
    """Rename a file within a file system without replacing an existing one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The file system has no hard links, or forbids them to files of other users.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
        os.rename(source, target)  # noqa: PTH104 - fails with EXDEV as the link did
    else:
        source.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """One inbox; `folder` is an absolute path without symbolic links."""

    folder: Path

    @property
    def done(self) -> Path:
        """The folder for files whose analyses all succeeded."""
        return self.folder.parent / DONE

    @property
    def failed(self) -> Path:
        """The folder for all other files."""
        return self.folder.parent / FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Inboxes:
    """The inboxes in the order of the settings, and the folders that are bound to profiles."""

    inboxes: tuple[Inbox, ...]
    bindings: Mapping[PurePath, str]

    def profile_of(self, file: Path) -> str:
        """Return the profile of a file; empty if its folder is bound to none."""
        return profile_of(file.parent, self.bindings)

    def holding(self, file: Path) -> Inbox | None:
        """Return the inbox that contains a path."""
        return next((inbox for inbox in self.inboxes if file.is_relative_to(inbox.folder)), None)


def inboxes_of(settings: Settings) -> Inboxes:
    """Return the inboxes and bindings of the settings as absolute paths; no folder is created.

    Raises:
        ConfigurationError: Inboxes overlap, a profile's folder is outside of them, or two profiles
            have the same folder while inboxes are watched.
    """
    base = settings.base_folder
    folders = [(base / folder.expanduser()).resolve() for folder in settings.inbox.folders]
    inboxes = tuple(Inbox(folder=folder) for folder in dict.fromkeys(folders))
    for inbox in inboxes:
        for other in inboxes:
            _refuse_overlap(inbox, other)
    return Inboxes(inboxes=inboxes, bindings=_bindings(settings, inboxes))


def _refuse_overlap(inbox: Inbox, other: Inbox) -> None:
    within = inbox is not other and other.folder.is_relative_to(inbox.folder)
    if within or inbox.folder in {other.done, other.failed}:
        raise ConfigurationError(
            f"inbox.folders: {other.folder} and {inbox.folder} overlap.",
            "An inbox must not be inside another inbox or its done folder.",
        )


def _bindings(settings: Settings, inboxes: tuple[Inbox, ...]) -> dict[PurePath, str]:
    folders = [inbox.folder for inbox in inboxes]
    bindings: dict[PurePath, str] = {}
    for name, profile in settings.profiles.items():
        try:
            additions: dict[PurePath, str] = {
                folder.resolve(): name for folder in folders_of(name, profile, folders)
            }
        except ValueError as error:
            hint = "Name a sub-folder, or an absolute path."
            raise ConfigurationError(f"{error}.", hint) from error
        if settings.inbox.enabled:
            _refuse_rivals(bindings, additions, folders)
        bindings |= additions
    return bindings


def _refuse_rivals(
    bindings: Mapping[PurePath, str], additions: Mapping[PurePath, str], inboxes: Iterable[Path]
) -> None:
    """Reject a folder of an inbox that is bound to two profiles."""
    for path in bindings.keys() & additions.keys():
        if any(path.is_relative_to(inbox) for inbox in inboxes):
            raise ConfigurationError(
                f"profiles.{bindings[path]} and profiles.{additions[path]} are both for {path}.",
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
        """Acquire the watcher lock of this home; return whether no other process holds it.

        The lock is held until `release`, or until the process ends.

        Raises:
            ConfigurationError: The folder cannot be created.
            OSError: The folder is not writable.
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
        """Release the watcher lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def id(self) -> uuid.UUID:
        """The permanent id that distinguishes the rows of this store from those of other stores."""
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
        """Return the path of a file; the name is kept, so that the reader sees its type."""
        return self.folder_of(file_id) / name

    def stored(self, file: InboxFile) -> Path:
        """Return the path of a file that has a row."""
        return self.path_of(file.id, file.relative.name)

    def side_car_of(self, file_id: uuid.UUID, name: str) -> Path:
        """Return the path of the side-car of a file; it may not exist."""
        return self.folder_of(file_id) / side_car_name(name)

    def create(self, file_id: uuid.UUID, source: Path) -> None:
        """Create the sub-folder of a file, and record the origin of the file in it.

        Raises:
            OSError: The disk is full, or the folder is not writable.
        """
        folder = self.folder_of(file_id)
        folder.mkdir(mode=0o700, parents=True)
        (folder / ORIGIN).write_bytes(os.fsencode(source))

    def origin(self, file_id: uuid.UUID) -> Path | None:
        """Return the recorded origin of a file; `None` if it cannot be read."""
        try:
            return Path(os.fsdecode((self.folder_of(file_id) / ORIGIN).read_bytes()))
        except OSError:
            return None

    def remove(self, file_id: uuid.UUID) -> None:
        """Remove the sub-folder of a file that was moved out.

        Raises:
            OSError: The sub-folder still contains a file.
        """
        folder = self.folder_of(file_id)
        if folder.exists():
            (folder / ORIGIN).unlink(missing_ok=True)
            folder.rmdir()

    def ids(self) -> Iterator[uuid.UUID]:
        """Yield the ids of all sub-folders."""
        ids = (id_in(entry.name) for entry in self.folder.iterdir())
        yield from (file_id for file_id in ids if file_id is not None)
