"""Returns files whose analyses have ended: moves them to done/ or failed/, each with its note."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TypeAlias

from sqlalchemy import Row

from chordwise.domain.inbox import is_inside, name_of_note, names_like, side_car_name
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import InboxStatus, JobStatus
from chordwise.domain.visible_text import printable
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.folders import Inbox
from chordwise.pipeline.runtime.context import Context
from chordwise.remote import RemotePath, lexists, opened_for_writing, path_of
from chordwise.storage import clock, inbox_files, leases
from chordwise.storage.inbox_files import Holder, InboxFile
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run

_NOTE_BYTES = 1024 * 1024
"""A larger note is kept in a temporary file until it is delivered."""
_ABSENT = {
    "changed": (
        "The file was changed after it was claimed.",
        "These answers are for its earlier content; the new one is analyzed separately.",
    ),
    "vanished": (
        "The file was removed, renamed or replaced after it was claimed.",
        "Leave files in the inbox until they are in done or failed.",
    ),
}
"""Message and hint by the reason that there is no file to move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutcome:
    """Whether all analyses of a file succeeded, and the note that reports the outcome.

    `first_failure` has the columns of the first error of a failed file whose row has no reason.
    """

    is_done: bool
    note: IO[str]
    first_failure: Mapping[str, str | None]


class FileDeliverer:
    """Moves files out of their inboxes, once each; after a kill, another call completes a move.

    A file gets a hidden name in its folder, is checked to be the version that was read, and then
    moved to the recorded destination: a user cannot replace it in between. Its note comes last.
    """

    def __init__(self, context: Context, holder: Holder) -> None:
        self._context = context
        self._holder = holder

    def deliver(self, files: Sequence[InboxFile]) -> list[Path | Exception]:
        """Move files to their destinations with their side-cars and notes; return the paths.

        For a file that cannot be moved now the result contains the error; the file is safe, and a
        later call continues with it. If another file is in its place, or none, only the note is
        delivered.

        Raises:
            ServiceUnavailableError: The database cannot be reached; a later call continues.
        """
        try:
            return self._deliver(files)
        except ServiceUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - one file must not block the others
            if len(files) > 1:
                return [self.deliver([file])[0] for file in files]
            with contextlib.suppress(OSError):  # its name again, unless another file has it
                folders.move(_hidden(files[0]), files[0].source, f"{files[0].id.hex}-back")
            return [error]

    def _deliver(self, files: Sequence[InboxFile]) -> list[Path | Exception]:
        moved: list[Path | Exception] = []
        ended: dict[uuid.UUID, Mapping[str, object]] = {}
        hidden_ids = {file.id for file in files if self._hide(file)}
        with self._written_notes(files) as outcomes:
            self._record_destinations(files, outcomes)
            for file in files:
                if file.id in hidden_ids:
                    self._move(file, outcomes[file.id])
                self._add_note(file, outcomes[file.id])
                moved.append(_destination(file))
                is_done = outcomes[file.id].is_done
                ended[file.id] = {
                    "status": InboxStatus.DONE if is_done else InboxStatus.FAILED,
                    "delivered_path": printable(str(_destination(file))),
                    **{name: getattr(file, name) for name in ("reason", "message", "hint")},
                    **outcomes[file.id].first_failure,
                }
            with self._context.database.write() as session:
                same = {"delivered_at": clock.database_now(), **inbox_files.NO_LEASE}
                inbox_files.change(session, self._holder, ended, same)
        return moved

    @contextmanager
    def _written_notes(
        self, files: Sequence[InboxFile]
    ) -> Iterator[Mapping[uuid.UUID, FileOutcome]]:
        """Write the notes of files in one transaction, which sees one snapshot of the database."""
        by_id: dict[uuid.UUID, FileOutcome] = {}
        ids = [file.id for file in files]
        with ExitStack() as stack:
            with self._context.database.read() as session:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                now, done_ids = clock.read(session), inbox_files.done(session, ids)
                for file, outcomes in _by_file(files, inbox_files.outcomes(session, ids)):
                    note = stack.enter_context(
                        SpooledTemporaryFile(_NOTE_BYTES, "w+", encoding="utf-8")
                    )
                    run = None if file.run_id is None else session.get_one(Run, file.run_id)
                    is_done = file.id in done_ids and file.reason in {None, *_ABSENT}
                    write(note, file, run, outcomes, now, is_done=is_done)
                    has_reason = is_done or file.reason is not None
                    failure = {} if has_reason else inbox_files.first_failure(session, file.id)
                    by_id[file.id] = FileOutcome(is_done=is_done, note=note, first_failure=failure)
            yield by_id

    def _record_destinations(
        self, files: Sequence[InboxFile], outcomes: Mapping[uuid.UUID, FileOutcome]
    ) -> None:
        """Choose free names for the files that have none, and record all, in one transaction."""
        paths: set[Path] = set()
        values: dict[uuid.UUID, Mapping[str, object]] = {}
        for file in files:
            if file.raw_destination is None:
                file.raw_destination = os.fsencode(_free_place(file, outcomes[file.id], paths))
            values[file.id] = {"raw_destination": file.raw_destination}
        with self._context.database.write() as session:
            leases.require_all(inbox_files.change(session, self._holder, values, {}), values)

    def _hide(self, file: InboxFile) -> bool:
        """Give a file its hidden name; return false, with a reason, if it is not there to move."""
        hidden, source = _hidden(file), file.source
        if isinstance(source, RemotePath):
            return _is_to_move(file)
        if file.raw_destination and _is_content(file, _destination(file)):
            return os.path.lexists(hidden)  # moved before a kill, or linked
        if not os.path.lexists(hidden):
            if scan.is_being_written(source):
                raise OSError(errno.EBUSY, "is being written", str(source))
            if not scan.is_same_version(file, source):
                Path(file.folder).stat()  # while the whole inbox is away, its files wait
                _record_absence(file)
                return False
            source.rename(hidden)
        if not _is_content(file, hidden):
            folders.move_numbered(hidden, source, f"{file.id.hex}-back")
            _record_absence(file)
            return False
        return True

    def _move(self, file: InboxFile, outcome: FileOutcome) -> None:
        hidden, source = _hidden(file), file.source
        if lexists(_destination(file)) and not folders.is_copy(hidden, _destination(file)):
            file.raw_destination = None  # taken since it was chosen
            self._record_destinations([file], {file.id: outcome})
        destination = _destination(file)
        destination.parent.mkdir(parents=True, exist_ok=True)
        side_car = source.with_name(side_car_name(source.name))
        if lexists(side_car):
            beside = destination.with_name(side_car_name(destination.name))
            folders.move_numbered(side_car, beside, f"{file.id.hex}-side-car")
        folders.move(hidden, destination, file.id.hex)

    def _add_note(self, file: InboxFile, outcome: FileOutcome) -> None:
        destination = _destination(file)
        note = destination.with_name(name_of_note(destination.name))
        mark = folders.hidden_path(note, f"{file.id.hex}-note")
        if lexists(note):  # written before a kill; its name was free when chosen
            mark.unlink(missing_ok=True)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        outcome.note.seek(0)
        with opened_for_writing(mark) as target:
            shutil.copyfileobj(outcome.note, target)
        folders.move_numbered(mark, note, f"{file.id.hex}-note-again")


def _by_file(
    files: Sequence[InboxFile], outcomes: Iterable[Outcome]
) -> Iterator[tuple[InboxFile, Iterable[Outcome]]]:
    """Yield each file with its outcomes, ordered by id like the outcomes."""
    nothing: tuple[None, Iterable[Outcome]] = None, ()
    groups = groupby(outcomes, lambda row: row[0])
    file_id, of_file = next(groups, nothing)
    for file in sorted(files, key=lambda row: row.id):
        if file.id == file_id:
            yield file, of_file
            file_id, of_file = next(groups, nothing)
        else:
            yield file, ()


def _hidden(file: InboxFile) -> Path:
    """Return the name of a file while it is moved; on a server, it keeps its name."""
    if isinstance(file.source, RemotePath):
        return file.source
    return folders.hidden_path(file.source, file.id.hex)


def _destination(file: InboxFile) -> Path:
    return path_of(os.fsdecode(file.raw_destination or b""))


def _is_to_move(file: InboxFile) -> bool:
    """Return whether a remote file is there to move; record the reason unless it was moved."""
    if scan.is_same_version(file, file.source):
        return True
    moved = _destination(file) if file.raw_destination else None
    if moved is None or not moved.exists() or moved.stat().st_size != file.byte_count:
        _record_absence(file)
    return False


def _is_content(file: InboxFile, path: Path) -> bool:
    """Return whether a path is a file with the content that was read, if any was."""
    if file.sha256 is None:
        return scan.is_same_version(file, path)
    sha256 = folders.sha256_of(path)
    if sha256 is None and path.is_file():
        raise OSError(errno.EIO, "cannot be read", str(path))
    return sha256 == file.sha256


def _record_absence(file: InboxFile) -> None:
    """Record why a file cannot be moved, unless a reason is known."""
    reason = "changed" if lexists(file.source) else "vanished"
    if file.reason is None:
        file.reason = reason
        file.message, file.hint = _ABSENT[reason]


def _free_place(file: InboxFile, outcome: FileOutcome, paths: set[Path]) -> Path:
    """Return a path that is free with its note and side-car, and add all three to `paths`."""
    inbox = Inbox(folder=path_of(file.folder))
    base = inbox.done if outcome.is_done else inbox.failed
    folder = base / file.relative.parent
    # A symbolic link in the path could lead out of the folder.
    if not (is_inside(file.relative) and folder.resolve().is_relative_to(base.resolve())):
        folder = base
    for name in names_like(file.relative.name):
        beside = {folder / sibling for sibling in (name, name_of_note(name), side_car_name(name))}
        if not paths & beside and not any(map(lexists, beside)):
            paths |= beside
            return folder / name
    raise AssertionError("there is always another name")


SCHEMA_VERSION = 1
_INDENT = 2
Outcome: TypeAlias = Row[uuid.UUID, Intake, Job | None, uuid.UUID | None, int | None]
"""A row of `inbox_files.outcomes`."""


def write(
    note: IO[str],
    file: InboxFile,
    run: Run | None,
    outcomes: Iterable[Outcome],
    now: datetime,
    *,
    is_done: bool,
) -> None:
    """Write the note of a file whose analyses have all ended; `is_done` if all succeeded.

    It is written incrementally, because a table may contain a hundred thousand documents. All
    outcomes must come from one snapshot of the database.
    """
    head: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "outcome": "done" if is_done else "failed",
        "file": file.name,
        "inbox": file.folder,
        "sha256": file.sha256,
        "byte_count": file.byte_count,
        "profile": file.profile or None,
        "taken_at": file.created_at.isoformat(),
        "delivered_at": now.isoformat(),
        "reason": file.reason,
        "message": file.message,
        "hint": file.hint,
        "run": run.name if run else None,
        "run_id": str(run.id) if run else None,
    }
    note.write(_indented_json(head).removesuffix("\n}") + ',\n  "intakes": [')
    before = ""
    for intake in _intakes(outcomes):
        note.write(f"{before}\n{_indented_json(intake, 2 * _INDENT)}")
        before = ","
    note.write("\n  ]\n}\n" if before else "]\n}\n")


def _indented_json(value: JsonObject, indent: int = 0) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=_INDENT)
    return " " * indent + text.replace("\n", "\n" + " " * indent)


def _intakes(rows: Iterable[Outcome]) -> Iterator[JsonObject]:
    for _, group in itertools.groupby(rows, key=lambda row: row[1].id):
        members = list(group)
        intake = members[0][1]
        jobs = [(row[2], row[4] or 0) for row in members if row[2] is not None]
        analyzed = [row[3] for row in members if row[3] is not None]
        yield {
            "id": str(intake.id),
            "source": intake.source,
            "outcome": intake.outcome,
            "reason": intake.reason,
            "message": intake.message,
            "hint": intake.hint,
            "document_id": _text(intake.document_id),
            "same_as_intake": _text(_first(intake, [job for job, _ in jobs], analyzed)),
            "jobs": [_job(job, claims) for job, claims in jobs],
        }


def _first(intake: Intake, jobs: Sequence[Job], analyzed: Sequence[uuid.UUID]) -> uuid.UUID | None:
    """Return the intake that this one repeats; `None` if any of its jobs was analyzed for it.

    This is an earlier intake of the same content in the run, or the intake whose answers are
    reused.
    """
    if of_run := [job.intake_id for job in jobs if job.intake_id != intake.id]:
        return of_run[0]
    return analyzed[0] if analyzed and intake.id not in analyzed else None


def _job(job: Job, claims: int) -> JsonObject:
    return {
        "id": str(job.id),
        "analysis_type": job.analysis_type,
        "status": job.status,
        "code": job.error_code,
        "message": job.error_message,
        "hint": job.hint,
        "attempts": max(job.attempts, claims),
        "reused_from": _text(job.reused_from) if job.status == JobStatus.SUCCEEDED else None,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
