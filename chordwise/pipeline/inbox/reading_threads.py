"""Reads claimed files in two threads, one of which is for slow files."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Lock, Thread
from typing import TypeAlias

import structlog

from chordwise.readers.reader import Reader, ReadingInterruptedError
from chordwise.settings import ReaderSettings
from chordwise.storage.inbox_files import InboxFile

log = structlog.get_logger(__name__)

SLOW_SECONDS = 5.0
"""The time after which a file in the quick thread counts as slow."""
_LEAVING_SECONDS = 10.0


class ReadingTask:
    """Files that are read one after the other; no other task runs beside one that is `alone`.

    `outcomes` contains, for each processed file, whether it was submitted, or the error.
    """

    def __init__(
        self,
        files: Sequence[InboxFile],
        reader: Reader,
        submit: Submit,
        monotonic: Callable[[], float],
        *,
        alone: bool,
    ) -> None:
        self.files = files
        self.reader = reader
        self.alone = alone
        self.is_interrupted = False
        self.outcomes: dict[uuid.UUID, bool | BaseException] = {}
        self.ended = Event()
        self.begun_at = self.last_at = monotonic()
        self._monotonic = monotonic
        self._submit = submit
        self._current: InboxFile | None = None
        self._begun_ids: set[uuid.UUID] = set()
        self._is_stopping = False
        self._lock = Lock()
        self._thread = Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def begin(self, file: InboxFile) -> bool:
        """Return whether a file belongs to this task: not if it begins after a stop."""
        with self._lock:
            if self._is_stopping and file.id not in self._begun_ids:
                return False
            self._current = file
            self._begun_ids.add(file.id)
            self.begun_at = self.last_at = self._monotonic()
            return True

    def has_read(self) -> None:
        """Record that a document of the current file was read."""
        self.last_at = self._monotonic()

    def stop_after_current(self) -> InboxFile | None:
        """Stop the task from beginning further files; return the current one."""
        with self._lock:
            self._is_stopping = True
            return self._current

    @property
    def held(self) -> set[uuid.UUID]:
        """The ids of the files of this task; once it is stopping, only those that it has begun."""
        with self._lock:
            if not self._is_stopping:
                return {file.id for file in self.files}
            # A copy, because the task's thread adds outcomes.
            return self._begun_ids.union(list(self.outcomes))

    def interrupt(self) -> None:
        """Interrupt the reader; the task ends soon after."""
        self.stop_after_current()
        self.is_interrupted = True
        self.reader.interrupt()

    def _run(self) -> None:
        try:
            self._submit(self, self.reader)
        except BaseException as error:  # noqa: BLE001 - raised again with the outcome
            for file_id in self.held:
                self.outcomes.setdefault(file_id, error)
        finally:
            self.ended.set()


Submit: TypeAlias = Callable[[ReadingTask, Reader], None]


class ReadingThreads:
    """Two concurrent tasks: a file that is slow in the quick thread moves to the slow one.

    The files behind it are begun again in the quick thread. If the slow one is busy, the slow file
    is interrupted and begun again when that thread is free. All methods are for one thread.
    """

    def __init__(
        self, submit: Submit, settings: ReaderSettings, monotonic: Callable[[], float]
    ) -> None:
        self._submit = submit
        self._settings = settings
        self._monotonic = monotonic
        self._quick: ReadingTask | None = None
        self._slow: ReadingTask | None = None
        self._known_slow: set[uuid.UUID] = set()
        self._idle_readers: list[Reader] = []

    @property
    def is_free(self) -> bool:
        """Whether files that are not known to be slow can be begun."""
        is_alone = self._slow is not None and self._slow.alone
        return self._quick is None and not is_alone

    @property
    def tasks(self) -> list[ReadingTask]:
        """The running tasks."""
        return [task for task in (self._quick, self._slow) if task is not None]

    @property
    def held(self) -> set[uuid.UUID]:
        """The ids of the files that are being read, or wait for the busy slow thread."""
        waiting = self._known_slow if self._slow is not None else set[uuid.UUID]()
        return waiting.union(*(task.held for task in self.tasks))

    def is_slow(self, file: InboxFile) -> bool:
        """Return whether a file is known to be slow, and needs a separate task."""
        return file.id in self._known_slow

    def begin(self, files: Sequence[InboxFile], *, alone: bool) -> ReadingTask | None:
        """Begin to read files, or one slow file; return `None` if their thread is not free."""
        is_slow = self.is_slow(files[0])
        is_busy = self._slow is not None if is_slow else not self.is_free
        if is_busy or any(task.alone or alone for task in self.tasks):
            return None
        reader = self._idle_readers.pop() if self._idle_readers else Reader(self._settings)
        task = ReadingTask(files, reader, self._submit, self._monotonic, alone=alone)
        if is_slow:
            self._slow = task
        else:
            self._quick = task
        return task

    def ended(self) -> Iterator[tuple[InboxFile, bool | BaseException]]:
        """Yield the finished files, once each; postponed files are begun again later."""
        self._move_slow()
        for task in self.tasks:
            if not task.ended.is_set():
                continue
            self._quick = None if task is self._quick else self._quick
            self._slow = None if task is self._slow else self._slow
            self._idle_readers.append(task.reader)
            for file in task.files:
                outcome = task.outcomes.get(file.id)
                if isinstance(outcome, ReadingInterruptedError):
                    self._known_slow.add(file.id)
                elif outcome is not None:
                    self._known_slow.discard(file.id)
                    yield file, outcome

    def close(self) -> None:
        """Interrupt the running tasks, and end the reader processes."""
        for task in self.tasks:
            task.interrupt()
        for task in self.tasks:
            task.ended.wait(_LEAVING_SECONDS)
        for reader in (*self._idle_readers, *(task.reader for task in self.tasks)):
            reader.close()

    def _move_slow(self) -> None:
        task = self._quick
        if task is None or task.alone or task.ended.is_set() or task.is_interrupted:
            return
        if self._monotonic() - task.begun_at < SLOW_SECONDS:
            return
        if self._slow is None:
            self._slow, self._quick = task, None
            file, event = task.stop_after_current(), "inbox.slow"
        else:
            file, event = task.stop_after_current(), "inbox.slow_queued"
            task.interrupt()
        if file is not None:
            log.info(event, file=file.name, folder=file.folder)
