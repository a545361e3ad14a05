"""Reads the files that runs leave to readers, beside other processes on any hosts."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from chordwise.errors import ChordwiseError, LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.intake.found_files import FileSource, Hooks, read_entries
from chordwise.pipeline.intake.submit import Submission, join
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.reader import Reader
from chordwise.remote import RemotePath, lexists, path_of
from chordwise.storage import intakes
from chordwise.storage.intakes import ListedFile

log = structlog.get_logger(__name__)

_AT_ONCE = 10
"""The files that a claim takes: few, so that the last ones are shared among all readers."""
_PAUSE_SECONDS = 60.0


class ListReader:
    """Reads files of one run after another with a reader of its own.

    The files are held by a token, which the heartbeat extends: if the process is killed, another
    one reads them again. A run whose folders do not exist here is left to other hosts.
    """

    def __init__(self, context: Context, is_stopped: Callable[[], bool]) -> None:
        self._context = context
        self._is_stopped = is_stopped
        self._token = uuid.uuid4()
        self._submission: Submission | None = None
        self._skipped_until: dict[uuid.UUID, float] = {}
        self._failure: Exception | None = None
        self.reader = Reader(context.settings.readers)
        context.leases.keep_token(ListedFile, self._token)

    def close(self) -> None:
        """Release the files that are being read, and end the reader."""
        self.reader.close()
        self._release()
        self._context.leases.drop_token(self._token)

    def work(self) -> bool:
        """Read a few files of a run; return whether there were any.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
            ReadingInterruptedError: The reader was interrupted.
        """
        if self._failure is not None:  # the heartbeat extends what it has left
            self._release(is_counted=not isinstance(self._failure, ServiceUnavailableError))
            self._failure = None
        with self._context.database.read() as session:
            run_id = intakes.next_for_readers(session, self._skipped())
        if run_id is None:
            self._leave()
            return False
        try:
            self._read(run_id)
        except ServiceUnavailableError as error:
            self._failure = error
            raise
        except LeaseLostError as error:
            log.info("reader.lost", run_id=str(run_id), reason=error.what)
            self._release()
            self._leave()
        except ChordwiseError as error:  # such as a cancelled run, or a model that is paused
            log.warning("reader.postponed", run_id=str(run_id), reason=error.what)
            self._skip(run_id)
        except Exception as error:
            self._failure = error
            raise
        return True

    def _read(self, run_id: uuid.UUID) -> None:
        if self._submission is None or self._submission.run_id != run_id:
            self._leave()
            self._submission = join(self._context, run_id, self._token)
            if self._submission is None:
                return
        lease = self._context.lease
        with self._context.database.write() as session:
            files = intakes.claim_files(session, run_id, self._token, lease, _AT_ONCE)
        if not all(map(_is_visible, files)):
            log.info("reader.no_folder", run=self._submission.name)
            self._skip(run_id)
            return
        source = FileSource(self.reader, io.BytesIO())
        entries = [(file, None) for file in files]
        read_entries(self._submission, source, entries, Hooks(is_stopped=self._is_stopped))
        if not self._submission.is_left_to_readers():
            self._submission.close()
            self._submission = None

    def _skip(self, run_id: uuid.UUID) -> None:
        self._release()
        self._leave()
        self._skipped_until[run_id] = time.monotonic() + _PAUSE_SECONDS

    def _skipped(self) -> Sequence[uuid.UUID]:
        now = time.monotonic()
        self._skipped_until = {run: end for run, end in self._skipped_until.items() if end > now}
        return list(self._skipped_until)

    def _release(self, *, is_counted: bool = False) -> None:
        with self._context.database.write() as session:
            intakes.release_files(session, self._token, is_counted=is_counted)

    def _leave(self) -> None:
        if self._submission is not None:
            self._submission.leave()
            self._submission = None


def _is_visible(file: ListedFile) -> bool:
    """Return whether a file can be read here, or at least its folder exists."""
    path = path_of(os.fsdecode(file.raw_path or b""))
    return isinstance(path, RemotePath) or lexists(path.parent)
