"""Reads files of the store in threads: a quick lane, and beside it one for a file that is slow."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import TypeAlias

import structlog

from chordwise.readers.reading import Reader, ReadingInterruptedError
from chordwise.settings import ReaderSettings
from chordwise.storage.inbox_files import InboxFile

log = structlog.get_logger(__name__)

SLOW_SECONDS = 5.0
"""How long a file may hold the quick lane up."""
_LEAVING_SECONDS = 10.0

Submit: TypeAlias = Callable[[InboxFile, Reader], bool]


class Task:
    """A file that is being read; `alone` means that no other one is read meanwhile."""

    def __init__(
        self, file: InboxFile, reader: Reader, submit: Submit, begun_at: float, *, alone: bool
    ) -> None:
        self.file = file
        self.reader = reader
        self.begun_at = begun_at
        self.alone = alone
        self.is_interrupted = False
        self.ended = Event()
        self._submit = submit
        self._is_submitted = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def result(self) -> bool:
        """Return whether the file was submitted, or raise what kept it from that."""
        if self._error is not None:
            raise self._error
        return self._is_submitted

    @property
    def was_put_off(self) -> bool:
        """Whether it was ended before it was through."""
        return isinstance(self._error, ReadingInterruptedError)

    def interrupt(self) -> None:
        """End the reading soon."""
        self.is_interrupted = True
        self.reader.interrupt()

    def _run(self) -> None:
        try:
            self._is_submitted = self._submit(self.file, self.reader)
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error
        finally:
            self.ended.set()


class Lanes:
    """Two files at once: where the one in the quick lane is slow, it leaves that lane.

    It goes on in the slow lane; where another slow file is there, it is put off until that has
    ended, and then begun anew. All methods are for one thread.
    """

    def __init__(
        self, submit: Submit, settings: ReaderSettings, monotonic: Callable[[], float]
    ) -> None:
        self._submit = submit
        self._settings = settings
        self._monotonic = monotonic
        self._quick: Task | None = None
        self._slow: Task | None = None
        self._known_slow: set[uuid.UUID] = set()
        self._idle_readers: list[Reader] = []

    @property
    def is_free(self) -> bool:
        """Whether a file that nothing is known of can be begun."""
        is_alone = self._slow is not None and self._slow.alone
        return self._quick is None and not is_alone

    @property
    def tasks(self) -> list[Task]:
        """The files that are being read."""
        return [task for task in (self._quick, self._slow) if task is not None]

    @property
    def held(self) -> int:
        """How many files are being read, or wait for the slow lane."""
        return len({*self._known_slow, *(task.file.id for task in self.tasks)})

    def begin(self, file: InboxFile, *, alone: bool) -> Task | None:
        """Begin to read a file; `None` where its lane is not free."""
        is_slow = file.id in self._known_slow
        is_busy = self._slow is not None if is_slow else not self.is_free
        if is_busy or any(task.alone or alone for task in self.tasks):
            return None
        if any(task.file.id == file.id for task in self.tasks):
            return None
        reader = self._idle_readers.pop() if self._idle_readers else Reader(self._settings)
        task = Task(file, reader, self._submit, self._monotonic(), alone=alone)
        if is_slow:
            self._slow = task
        else:
            self._quick = task
        return task

    def ended(self) -> Iterator[Task]:
        """Yield, once each, the tasks that are through; those that were put off are begun later."""
        self._sort_out()
        for task in self.tasks:
            if not task.ended.is_set():
                continue
            self._quick = None if task is self._quick else self._quick
            self._slow = None if task is self._slow else self._slow
            self._idle_readers.append(task.reader)
            if task.was_put_off:
                self._known_slow.add(task.file.id)
                continue
            self._known_slow.discard(task.file.id)
            yield task

    def close(self) -> None:
        """End what is being read, and the processes of the readers."""
        for task in self.tasks:
            task.interrupt()
        for task in self.tasks:
            task.ended.wait(_LEAVING_SECONDS)
        for reader in (*self._idle_readers, *(task.reader for task in self.tasks)):
            reader.close()

    def _sort_out(self) -> None:
        """Clear the quick lane of a file that is slow."""
        task = self._quick
        if task is None or task.alone or task.ended.is_set() or task.is_interrupted:
            return
        if self._monotonic() - task.begun_at < SLOW_SECONDS:
            return
        if self._slow is None:
            self._slow, self._quick = task, None
            log.info("inbox.slow", file=task.file.name, folder=task.file.folder)
        else:
            task.interrupt()
            log.info("inbox.slow_waits", file=task.file.name, folder=task.file.folder)
