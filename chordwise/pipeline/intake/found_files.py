"""Takes in discovered files: reads each entry of the list, stores the result, closes the run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from chordwise.domain import document_flags
from chordwise.domain.states import ListedStatus
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.pipeline.intake.document_batches import BatchWriter, Offered
from chordwise.pipeline.intake.submit import AlsoOfBatch, Submission
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import failures
from chordwise.readers.discovery import STDIN_SOURCE, FoundFile
from chordwise.readers.reader import (
    WHOLE,
    Columns,
    ReadDocument,
    Reader,
    ReadText,
    Transcriber,
    UnreadDocument,
)
from chordwise.remote import path_of
from chordwise.settings import Settings
from chordwise.storage.documents import Document
from chordwise.storage.intakes import Intake, IntakeEntry, ListedFile, SizedItems
from chordwise.storage.jobs import Job
from chordwise.storage.record import in_ids

MAX_ATTEMPTS = 3
"""The number of readers that may die while they read a file before it is quarantined."""
Found: TypeAlias = ReadDocument | UnreadDocument


class FileSource:
    """Reads discovered files, and standard input up to the size limit."""

    def __init__(self, reader: Reader, stdin: BinaryIO) -> None:
        self._reader = reader
        self._stdin = stdin

    def read(
        self,
        file: FoundFile,
        columns: Columns = WHOLE,
        name: str = "",
        transcriber: Transcriber | None = None,
    ) -> Iterator[Found]:
        """Yield the documents in a file, each with its text or the reason that there is none.

        `columns` are the columns that are read from tables; other files are not affected. `name`
        is displayed instead of the path. `transcriber` reads pages without text.

        Raises:
            ChordwiseError: `transcriber` raised an error other than `ReadError`.
        """
        if file.failure is not None:
            yield UnreadDocument(source=file.source, error=file.failure)
        elif file.path is None:
            yield from self._reader.documents_from(self._stdin, file.source, columns, transcriber)
        else:
            yield from self._reader.read_documents(
                file.path,
                columns,
                follow_symlinks=file.follow_symlinks,
                source=name,
                transcriber=transcriber,
            )


class Entries:
    """The list entries of files, for readers if the settings leave files to them.

    Only the process itself can read standard input. An entry is made when it is taken from here.
    """

    def __init__(self, settings: Settings, files: SizedItems[FoundFile]) -> None:
        self._files = files
        is_here = settings.intake.read == "here" or any(file.path is None for file in files)
        self._status = ListedStatus.LISTED if is_here else ListedStatus.WAITING

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[IntakeEntry]:
        """Yield the entries in the order of the files."""
        for file in self._files:
            yield replace(entry_of(file), status=self._status)


def entry_of(file: FoundFile, name: str = "") -> IntakeEntry:
    """Return the list entry of a file, whose path is absolute."""
    if file.path is None or file.failure is not None:
        return IntakeEntry(source=file.source, error=file.failure)
    size, modified_ns = _fingerprint(file)
    return IntakeEntry(
        source=name or printable(str(file.path)),
        raw_path=os.fsencode(file.path.absolute()),
        follow_symlinks=file.follow_symlinks,
        byte_count=size,
        modified_ns=modified_ns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a process does beside taking in the entries of a list.

    `is_stopped` is called between documents, and ends the intake. `on_taken` is called with each
    stored document, in another thread, and `also` writes more in its transaction. `refusal` says
    why an entry is not read; by default, those of an interrupted run are compared with their files.
    """

    is_stopped: Callable[[], bool] = lambda: False
    on_taken: Callable[[Offered], None] = lambda _offered: None
    also: AlsoOfBatch | None = None
    refusal: Callable[[ListedFile], ReadError | None] | None = None


_NO_HOOKS = Hooks()


def take_in(
    context: Context, submission: Submission, source: FileSource, hooks: Hooks = _NO_HOOKS
) -> bool:
    """Take in the remaining entries on the list of a run; return false if it was stopped.

    The run is closed in any case, so that the jobs of its documents continue. Files that are listed
    for readers are left to them.

    Raises:
        RunCancelledError: The run is cancelled; the rest is not read.
        LeaseLostError: Another process holds the intake of this run.
        ModelError: The model that reads scans is unavailable or paused; the rest is not read.
    """
    if context.settings.intake.read == "workers" and submission.is_left_to_readers():
        submission.leave()
        return True
    entries = _with_stored(context, submission.remaining_entries())
    try:
        return read_entries(submission, source, entries, hooks)
    finally:
        submission.close()


def read_entries(
    submission: Submission,
    source: FileSource,
    entries: Iterable[tuple[ListedFile, ReadDocument | None]],
    hooks: Hooks = _NO_HOOKS,
) -> bool:
    """Take in list entries in batches, with stored documents to analyze again; see `take_in`.

    Raises:
        ReadingInterruptedError: The reader was interrupted; what it had read is stored.
    """

    def store(batch: Sequence[Offered]) -> None:
        submission.take_in(batch, hooks.also)
        for offered in batch:
            hooks.on_taken(offered)

    with BatchWriter(store) as writer:
        for listed, stored in entries:
            if hooks.is_stopped():
                return False
            for offered in _offered(submission, source, listed, stored, hooks):
                writer.put(offered)
                if not offered.is_last and hooks.is_stopped():  # a file may be very long
                    return False
    return True


def _offered(
    submission: Submission,
    source: FileSource,
    listed: ListedFile,
    stored: ReadDocument | None,
    hooks: Hooks,
) -> Iterator[Offered]:
    """Yield the documents of an entry, the last one marked."""
    documents = _documents(submission, source, listed, stored, hooks)
    document: Found | None = next(documents)
    position = listed.documents_taken
    while document is not None:
        following = next(documents, None)
        yield Offered(
            document=document,
            entry_id=listed.id,
            is_last=following is None,
            position=position,
            name=listed.source,
            raw_path=listed.raw_path,
        )
        document, position = following, position + 1


def _documents(
    submission: Submission,
    source: FileSource,
    listed: ListedFile,
    stored: ReadDocument | None,
    hooks: Hooks,
) -> Iterator[Found]:
    """Yield the documents of a list entry that are to be taken in; at least one."""
    if stored is not None:
        yield stored
        return
    is_gone = listed.raw_path is None and listed.source != STDIN_SOURCE
    if listed.attempts > MAX_ATTEMPTS:
        failure = failures.unreadable(
            f"has ended the process that reads files {MAX_ATTEMPTS} times.",
            "It probably needs more memory than is available. Split it, or give the process more "
            "memory, and submit it again.",
            "quarantined",
        )
        error = failures.named(listed.source, failure)
        yield UnreadDocument(source=listed.source, error=error)
        return
    refusal = hooks.refusal or (_refusal if submission.is_resumed or is_gone else None)
    reason = None if refusal is None else refusal(listed)
    if reason is None:
        documents = source.read(
            _found_file(listed), submission.options.columns, listed.source, submission.transcriber
        )
        first = next(rest := islice(documents, listed.documents_taken, None), None)
        if first is not None:
            yield first
            yield from rest
            return
        reason = _changed(listed)
    yield UnreadDocument(source=listed.source, error=failures.named(listed.source, reason))


def _found_file(listed: ListedFile) -> FoundFile:
    path = None if listed.raw_path is None else path_of(os.fsdecode(listed.raw_path))
    return FoundFile(source=listed.source, path=path, follow_symlinks=listed.follow_symlinks)


def _refusal(listed: ListedFile) -> ReadError | None:
    """Return the reason that an entry of an interrupted run can no longer be taken in."""
    if listed.raw_path is None:
        return failures.unreadable(
            "came from standard input, or its stored text was deleted; it cannot be read again.",
            "Submit it in a run of its own.",
            "not_resumable",
        )
    now = _fingerprint(_found_file(listed))
    before = (listed.byte_count, listed.modified_ns)
    return _changed(listed) if None not in {*now, *before} and now != before else None


def _changed(listed: ListedFile) -> ReadError:
    part = f" {listed.documents_taken:,} documents of it are in the run."
    return failures.unreadable(
        f"has changed since the run found it.{part if listed.documents_taken else ''}",
        "Submit it in a run of its own.",
        "changed",
    )


def _fingerprint(file: FoundFile) -> tuple[int | None, int | None]:
    """Return size and modification time; `None` twice if the reader will report an error."""
    if file.path is None:
        return None, None
    try:
        status = file.status or file.path.stat(follow_symlinks=file.follow_symlinks)
    except (OSError, ValueError):
        return None, None
    return status.st_size, status.st_mtime_ns


STORED_AT_ONCE = 20
"""The number of stored texts that one statement reads."""


def _with_stored(
    context: Context, listed: Iterable[ListedFile]
) -> Iterator[tuple[ListedFile, ReadDocument | None]]:
    """Yield each entry with the stored document that it refers to, if any."""
    waiting: list[ListedFile] = []
    for entry in listed:
        waiting.append(entry)
        if entry.job_id is None or len(waiting) == STORED_AT_ONCE:
            yield from _with_documents(context, waiting)
            waiting = []
    yield from _with_documents(context, waiting)


def _with_documents(
    context: Context, listed: Sequence[ListedFile]
) -> Iterator[tuple[ListedFile, ReadDocument | None]]:
    job_ids = [entry.job_id for entry in listed if entry.job_id is not None]
    documents: Mapping[uuid.UUID, ReadDocument] = {}
    if job_ids:
        with context.database.read() as session:
            documents = stored_documents(session, job_ids)
    for entry in listed:
        yield entry, None if entry.job_id is None else documents.get(entry.job_id)


def stored_documents(
    session: Session, job_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, ReadDocument]:
    """Return the documents of jobs as the readers returned them; pruned documents are omitted."""
    rows = session.execute(
        select(Job.id, Intake, Document)
        .join(Intake, Intake.id == Job.intake_id)
        .join(Document, Document.id == Job.document_id)
        .where(in_ids(Job.id, job_ids))
        .options(undefer(Document.text))
    )
    return {job_id: _as_read(intake, document) for job_id, intake, document in rows}


def _as_read(intake: Intake, document: Document) -> ReadDocument:
    return ReadDocument(
        source=intake.source,
        sha256=intake.sha256 or "",
        byte_count=intake.byte_count or 0,
        content=ReadText(
            text=document.text,
            media_type=document.media_type,
            title=document.title or "",
            flags=document_flags.from_json(document.flags),
        ),
    )
