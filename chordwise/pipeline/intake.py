"""Taking in what was found: read each file, store it or why not, and always close the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from chordwise.pipeline.submit import Submission, TakenIn
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reading import WHOLE, Columns, ReadDocument, Reader, UnreadDocument


class FileSource:
    """Reads what discovery found; standard input as well, up to the limit."""

    def __init__(self, reader: Reader, stdin: BinaryIO) -> None:
        self._reader = reader
        self._stdin = stdin

    def read(
        self, file: FoundFile, columns: Columns = WHOLE
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents in a file, each with its text or why there is none.

        `columns` say how tables are read; all other files are read as ever.
        """
        if file.failure is not None:
            yield UnreadDocument(source=file.source, error=file.failure)
        elif file.path is None:
            yield from self._reader.documents_from(self._stdin, file.source, columns)
        else:
            yield from self._reader.read_documents(
                file.path, columns, follow_symlinks=file.follow_symlinks
            )


def take_in(
    submission: Submission,
    found: Iterable[FoundFile],
    source: FileSource,
    *,
    on_taken: Callable[[FoundFile, TakenIn], None],
    is_stopped: Callable[[], bool],
) -> None:
    """Take in what is in one file after the other until `is_stopped`.

    The run is closed whatever happens, so that what was taken in goes on.

    Raises:
        RunCancelledError: The run is cancelled; the rest is not read.
        ServiceUnavailableError: The database cannot be reached.
    """
    try:
        for file in found:
            if is_stopped():
                break
            for each in source.read(file, submission.columns):
                on_taken(file, submission.take_in(each))
                if is_stopped():  # a file may hold very many
                    break
    finally:
        submission.close()
