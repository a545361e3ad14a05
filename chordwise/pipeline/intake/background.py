"""Intake in the background of a process that serves requests, such as the web pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Event, Lock, Thread

import structlog

from chordwise.errors import ChordwiseError
from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.found_files import FileSource, Hooks
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.reader import Reader, ReadingInterruptedError

log = structlog.get_logger(__name__)

_AT_ONCE = 2
_LEAVING_SECONDS = 5.0


class BackgroundIntakes:
    """Takes in documents for two runs at once, each in a thread with a separate reader.

    Entries that are not taken in when it is closed stay on the lists of their runs, which can be
    resumed.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turns = BoundedSemaphore(_AT_ONCE)
        self._stopped = Event()
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._readers: set[Reader] = set()

    def take_in(self, submission: Submission) -> None:
        """Start to take in the remaining list entries of a run, and return immediately."""
        thread = Thread(target=self._take_in, args=(submission,), name="intake", daemon=True)
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop after the documents that are being stored, and interrupt the readers."""
        self._stopped.set()
        with self._lock:
            threads, readers = list(self._threads), list(self._readers)
        for reader in readers:
            reader.interrupt()
        for thread in threads:
            thread.join(_LEAVING_SECONDS)

    def _take_in(self, submission: Submission) -> None:
        with self._turns, self._reader() as reader:
            try:
                source = FileSource(reader, io.BytesIO())
                is_stopped = self._stopped.is_set
                found_files.take_in(self._context, submission, source, Hooks(is_stopped=is_stopped))
            except ReadingInterruptedError:
                log.info("intake.interrupted", run=submission.name)
            except ChordwiseError as error:
                log.warning("intake.interrupted", run=submission.name, reason=error.what)
            except Exception:  # the thread has no caller that handles it
                log.exception("intake.defect", run=submission.name)

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        with Reader(self._context.settings.readers) as reader:
            with self._lock:
                self._readers.add(reader)
            try:
                yield reader
            finally:
                with self._lock:
                    self._readers.discard(reader)
