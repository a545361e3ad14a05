"""Inboxes, and moves of files that a kill at any time leaves complete in exactly one place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from chordwise.domain.inbox import DONE, FAILED, MARK, names_like, profile_of
from chordwise.errors import ConfigurationError, ReadError
from chordwise.pipeline.exports.writers import sync_folder
from chordwise.readers import contents
from chordwise.remote import RemotePath, path_of
from chordwise.settings import Settings
from chordwise.settings.profiles import folders_of

_SLICE = 1024 * 1024
_PERMISSIONS = 0o777
_SAME_TIME_NS = 2_000_000_000
"""The coarsest unit of modification times that a file system stores, of FAT."""
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def hidden_path(path: Path, token: str) -> Path:
    """Return the hidden name of a file while it is moved."""
    return path.with_name(f"{MARK}{token}")


def move(source: Path, target: Path, token: str) -> None:
    """Move a file to a free name, across file systems if necessary; nothing is overwritten.

    After a kill, another call completes the move.

    Raises:
        FileExistsError: Another file has the name; nothing was moved.
    """
    if isinstance(source, RemotePath) and isinstance(target, RemotePath):
        _move_remotely(source, target)
        return
    mark = hidden_path(target, token)
    try:
        _name(source, target)
    except FileExistsError:
        if not is_copy(source, target):
            raise
        mark.unlink(missing_ok=True)
        source.unlink()
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        mark.unlink(missing_ok=True)  # left by an interrupted attempt
        try:
            copy(source, mark)
            _name(mark, target)
        finally:
            mark.unlink(missing_ok=True)
        sync_folder(target.parent)
        source.unlink()


def _move_remotely(source: RemotePath, target: RemotePath) -> None:
    if source == target:
        return
    if not target.exists():
        source.move(target)
    elif is_copy(source, target):
        source.unlink()
    else:
        raise FileExistsError(errno.EEXIST, "exists already", str(target))


def move_numbered(source: Path, target: Path, token: str) -> None:
    """Move a file to a name, or to a numbered variant of it if it is taken."""
    for name in names_like(target.name):
        with contextlib.suppress(FileExistsError):
            move(source, target.with_name(name), token)
            return


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 hash of a regular file in hexadecimal; `None` if it cannot be read."""
    try:
        with contents.opened(path, sys.maxsize, follow_symlinks=False) as file:
            return contents.content_of_file(file, sys.maxsize).sha256
    except ReadError:
        return None


def is_copy(first: Path, second: Path) -> bool:
    """Return whether two paths are the same file, or one is a `copy` of the other."""
    if not isinstance(first, RemotePath):  # copies in a bucket get new times
        if first.samefile(second):
            return True
        if abs(first.stat().st_mtime_ns - second.stat().st_mtime_ns) >= _SAME_TIME_NS:
            return False
    sha256 = sha256_of(first)
    return sha256 is not None and sha256 == sha256_of(second)


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
    folders = [
        path if isinstance(path, RemotePath) else (base / path).resolve()
        for path in (path_of(folder).expanduser() for folder in settings.inbox.folders)
    ]
    inboxes = tuple(Inbox(folder=folder) for folder in dict.fromkeys(folders))
    for inbox in inboxes:
        for other in inboxes:
            _refuse_overlap(inbox, other)
    return Inboxes(inboxes=inboxes, bindings=_bindings(settings, inboxes))


def _refuse_overlap(inbox: Inbox, other: Inbox) -> None:
    if isinstance(inbox.folder, RemotePath) and not inbox.folder.is_in_bucket:
        what = f"inbox.folders: {inbox.folder} is not a folder in a bucket or on a server."
        raise ConfigurationError(what, "Name a folder in it; done and failed are beside it.")
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
    for path in bindings.keys() & additions.keys():
        if any(path.is_relative_to(inbox) for inbox in inboxes):
            raise ConfigurationError(
                f"profiles.{bindings[path]} and profiles.{additions[path]} are both for {path}.",
                "Give one of them another folder; where none is set, it is the profile's name.",
            )
