"""Chordwise's own store: where the files of the inboxes lie while they are analyzed."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from chordwise.domain.inbox_names import side_car_name
from chordwise.embedded import home
from chordwise.embedded.home import write_private
from chordwise.storage.record import new_id

ORIGIN = ".origin"


class Store:
    """A folder below CHORDWISE_HOME with a sub-folder for each file; one watcher at a time."""

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().resolve() / "inbox"
        self._lock: int | None = None
        self._id: uuid.UUID | None = None

    def acquire(self) -> bool:
        """Become the one watcher of this home, until `release` or our end; tell whether we are.

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
        """The id that tells this store's rows from those of others; made up once."""
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
        """Return where a file lies; its name tells the reader what kind of file it is."""
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
        for entry in self.folder.iterdir():
            try:
                yield uuid.UUID(entry.name)
            except ValueError:
                continue
