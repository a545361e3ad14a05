"""Forgets documents: deletes everything that has their text, and searches for what remains."""

from __future__ import annotations

import json
import shlex
import uuid
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import partial
from itertools import accumulate, groupby, pairwise
from os import fsdecode
from pathlib import Path
from typing import IO, TypeAlias

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.inbox import name_of_note, side_car_name
from chordwise.domain.json_values import JsonObject
from chordwise.domain.number_formats import counted
from chordwise.domain.passages import Passages
from chordwise.embedded.home import home_at
from chordwise.errors import ChordwiseError, UsageError
from chordwise.pipeline.deliveries.receivers.file import AnswerFolder
from chordwise.pipeline.inbox import folders
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runtime.context import ReadingContext, Write
from chordwise.remote import lexists, path_of
from chordwise.settings import Settings
from chordwise.storage import clock, documents, erasures
from chordwise.storage.batches import Batch
from chordwise.storage.database import without_statement_timeout
from chordwise.storage.documents import Document
from chordwise.storage.erasures import ChangedDocumentError, Erasure, Texts
from chordwise.storage.record import in_ids
from chordwise.storage.schedules import Schedule, ScheduleRun

# The number of characters of the documents that are searched for together.
_TOGETHER = 20_000_000
_PIECE, _OVERLAP = 1024 * 1024, 2_000
_OUTPUT = ("-o", "--output", "--out")
_NAMED = text("""
    SELECT d.id FROM documents d
    WHERE :name IN (CAST(d.id AS text), d.sha256, d.source)
        OR d.id IN (SELECT document_id FROM intakes WHERE source = :name)
    ORDER BY d.id""")
_ENDING = text("""
    SELECT DISTINCT document_id, source FROM intakes
    WHERE document_id IS NOT NULL AND regexp_replace(source, '^.*[/\\\\#]', '') = :name
    ORDER BY source""")
# A document is kept while one of its intakes is a reason to keep it.
_OLD = text("""
    SELECT document_id FROM intakes i JOIN runs r ON r.id = i.run_id
    WHERE document_id IS NOT NULL GROUP BY document_id
    HAVING bool_and(coalesce(i.created_at < now() - interval '1 day' * coalesce(
        CAST(CAST(:days AS jsonb) ->> (r.options ->> 'profile') AS float), :default), false))
    ORDER BY document_id""")
# The files of intakes, and whether documents that are kept are in them as well.
_FILES = text("""
    SELECT DISTINCT f.sha256, CASE WHEN f.id IS NULL THEN i.raw_path ELSE f.raw_destination END,
        EXISTS (
            SELECT FROM intakes o LEFT JOIN inbox_intakes t ON t.intake_id = o.id
            WHERE o.run_id = i.run_id AND coalesce(NOT o.document_id = ANY(:ids), true)
                AND (o.raw_path = i.raw_path OR t.inbox_file_id = f.id)),
        f.id IS NULL
    FROM intakes i
    LEFT JOIN inbox_intakes s ON s.intake_id = i.id
    LEFT JOIN inbox_files f ON f.id = s.inbox_file_id
    WHERE i.document_id = :id""")
_KEPT = "kept"
_MAX_NAMED = 5
OTHERS_IN_FILE, CHANGED_FILE = "the file has other documents", "the file was changed since"


def find(
    session: Session,
    settings: Settings,
    *,
    names: Sequence[str] = (),
    where: str = "",
    age: timedelta | None = None,
) -> list[uuid.UUID]:
    """Return the documents with these names, ids or hashes; or those that meet a condition in SQL.

    Without both, return those that no run took in within `age`, or else within the `keep_days` of
    its profile; a profile without `keep_days` keeps its documents. The role of readers evaluates
    the condition.

    Raises:
        UsageError: A name is unknown, or the condition is wrong.
    """
    document_ids: list[uuid.UUID] = []
    for name in names:
        ids = session.scalars(_NAMED, {"name": name}).all()
        document_ids += ids or [_only_document(session, name)]
    if where:
        query = f"SELECT id FROM documents WHERE ({where}\n) ORDER BY id"  # noqa: S608 - by readers
        with user_sql.run_query(settings.require_sql_url(), query) as result:
            return [uuid.UUID(str(row[0])) for row in result.rows]
    if not names:
        days = {name: profile.keep_days for name, profile in settings.profiles.items()}
        default = None if age is None else age / timedelta(days=1)
        values = {"days": json.dumps(days if age is None else {}), "default": default}
        document_ids += session.scalars(_OLD, values)
    return document_ids


def _only_document(session: Session, name: str) -> uuid.UUID:
    """Return the document whose name ends with this one, after a folder or a table."""
    rows = session.execute(_ENDING, {"name": name}).all()
    if not rows:
        hint = "Give its name, its id or its hash; `chordwise results` shows names."
        raise UsageError(f"There is no document “{name}”.", hint)
    if len({row.document_id for row in rows}) > 1:
        sources = ", ".join(row.source for row in rows[:_MAX_NAMED])
        raise UsageError(f"Several documents are called “{name}”.", f"Give one of: {sources}.")
    return uuid.UUID(str(rows[0].document_id))


def plan(session: Session, ids: Sequence[uuid.UUID]) -> tuple[Sequence[Document], list[uuid.UUID]]:
    """Return the documents to forget, and those that are worked on now."""
    busy = erasures.busy(session, ids)
    free = in_ids(Document.id, ids) & ~in_ids(Document.id, busy)
    return session.scalars(select(Document).where(free).order_by(Document.id)).all(), sorted(busy)


_Removal: TypeAlias = tuple[str, str, Collection[uuid.UUID], Callable[[], object]]
"""The kind and the place of a text outside of the tables, the documents that it is of, and a
function that removes it or returns the reason not to.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eraser:
    """Forgets documents and writes their receipts; `write` runs a transaction.

    `with_files` also deletes files that inboxes have moved to `done` and `failed`.
    """

    context: ReadingContext
    write: Write
    selected_by: str
    requested_by: str
    with_files: bool

    def forget(self, doomed: Sequence[Document]) -> list[Erasure]:
        """Forget documents, and search for what is left of them; return the receipts.

        A document that is taken in again meanwhile is kept and has no receipt. Files are removed
        first, since the rows name them; repeating the command after a kill continues.
        """
        ends = accumulate(document.character_count for document in doomed)
        pairs = zip(ends, doomed, strict=True)
        return [
            receipt
            for _, group in groupby(pairs, lambda pair: pair[0] // _TOGETHER)
            for receipt in self._forget_together([document for _, document in group])
        ]

    def _forget_together(self, doomed: Sequence[Document]) -> Sequence[Erasure]:
        removed: dict[uuid.UUID, Counter[str]] = defaultdict(Counter)
        remaining: dict[uuid.UUID, list[JsonObject]] = defaultdict(list)
        with self.context.database.read() as session:
            passages = Passages({d.id: documents.text_of(session, d.id) for d in doomed})
            removals = list(self._removals(session, doomed, passages))
        for kind, place, ids, remove in removals:
            try:
                reason = remove()
            except (ChordwiseError, OSError) as error:
                reason = str(error)
            for id_ in ids:
                if reason:
                    remaining[id_].append({"place": place, "reason": str(reason)})
                else:
                    removed[id_][kind] += 1
        self.write(lambda session: erasures.forget_values(session, [d.id for d in doomed]))
        receipts: list[Erasure] = []
        for document in doomed:
            receipt = Erasure(
                document_id=document.id,
                sha256=document.sha256,
                selected_by=self.selected_by,
                requested_by=self.requested_by,
                remaining=remaining[document.id],
                copies_kept=removed[document.id].pop(_KEPT, 0),
            )
            with suppress(ChangedDocumentError):
                self.write(partial(_erase, receipt, removed[document.id]))
                receipts.append(receipt)
        if receipts:
            self._verify(receipts, passages)
        return receipts

    def _removals(
        self, session: Session, doomed: Sequence[Document], passages: Texts
    ) -> Iterator[_Removal]:
        for path, ids in self._exports(session, doomed, passages):
            yield "exports", str(path), ids, path.unlink
        for document in doomed:
            of = [document.id]
            for path, remove in self._files(session, document.id, [d.id for d in doomed]):
                yield "files" if remove else _KEPT, str(path), of, remove or str
            batches, unknown = erasures.batches_of(session, document.id)
            for batch in batches:
                place = f"batch {batch.provider_id or batch.upload_id} of {batch.provider}"
                yield "batches", place, of, partial(self._delete_batch, batch)
            if unknown:
                reason = f"{counted(unknown, 'question')} of batches whose rows were deleted"
                yield "batches", "batches at the provider", of, partial(str, reason)

    def _exports(
        self, session: Session, doomed: Sequence[Document], passages: Texts
    ) -> Iterator[tuple[Path, set[uuid.UUID]]]:
        """Yield the files of schedules and deliveries that mention documents, with their ids."""
        names = {name: d.id for d in doomed for name in (d.source, str(d.id))}
        for path in {*_scheduled_files(session), *self._delivered_files()}:
            ids = set(names.values()) if path.suffix == ".parquet" else set()  # it is compressed
            for piece in texts_in(path):
                ids |= passages.repeated_in(piece)
                ids.update(id_ for name, id_ in names.items() if _mentions(piece, name))
            if ids:
                yield path, ids

    def _files(
        self, session: Session, id_: uuid.UUID, ids: Sequence[uuid.UUID]
    ) -> Iterator[tuple[Path, Callable[[], str] | None]]:
        """Yield uploads and files of inboxes, each with how it is removed, unless it is kept."""
        uploads = home_at(self.context.settings.home).web / "uploads"
        rows = session.execute(_FILES, {"id": id_, "ids": ids})
        for sha256, raw_path, has_others, is_upload in rows:
            path = path_of(fsdecode(raw_path or b""))
            remove = partial(_remove_file, path, sha256, OTHERS_IN_FILE if has_others else "")
            if not is_upload:
                yield path, remove if self.with_files else None
            elif path.is_relative_to(uploads):  # the files of users are not touched
                yield path, remove

    def _delete_batch(self, batch: Batch) -> None:
        api = self.context.models.batch_api(batch.model_name)
        api.delete(batch.provider_id or "", batch.upload_id or "")

    def _delivered_files(self) -> Iterator[Path]:
        receiver = self.context.settings.deliveries.get("file")
        if isinstance(receiver, AnswerFolder):
            for account in receiver.folder_of(self.context.settings).glob("*.account.json"):
                stem = account.name.removesuffix("account.json")
                answers = (account.with_name(stem + extension) for extension in ExportFormat)
                yield from filter(Path.is_file, answers)

    def _verify(self, receipts: Sequence[Erasure], passages: Texts) -> None:
        """Search all tables and the home for the passages, and complete the receipts."""
        database = self.context.database
        with database.write() as session:
            shared = erasures.share(session, passages)
            erasures.sweep(session, passages)
        with database.autocommit() as connection, without_statement_timeout(connection):
            erasures.vacuum(connection, {table for r in receipts for table in r.removed})
        with database.write() as session:
            hits = erasures.search(session, passages)
        home = home_at(self.context.settings.home)
        for path in home.path.rglob("*"):  # the tables of PostgreSQL have been searched
            if path.is_file() and not path.is_relative_to(home.postgres):
                hits.update((id_, str(path)) for id_ in _ids_in(path, passages))
        numbers = passages.numbers()
        for receipt in receipts:
            id_ = receipt.document_id
            reported: list[JsonObject] = [
                {"place": place, "reason": "has some of the text", "count": count}
                for (key, place), count in hits.items()
                if key == id_
            ]
            receipt.remaining = [*receipt.remaining, *reported]
            receipt.shared_with, receipt.passages = shared.get(id_, []), numbers[id_]
        self.write(partial(_complete, receipts))


def _remove_file(path: Path, sha256: str | None, reason: str) -> str:
    """Delete an upload, or a file of an inbox with this hash and what is beside it."""
    if not reason and sha256 and lexists(path) and folders.sha256_of(path) != sha256:
        reason = CHANGED_FILE
    beside = (name_of_note(path.name), side_car_name(path.name)) if sha256 else ()
    for name in (path.name, *beside) if not reason else ():
        path.with_name(name).unlink(missing_ok=True)
    return reason


def _mentions(piece: str, name: str) -> bool:
    """Return whether a text has a name that is not the end or the beginning of another one."""
    parts = piece.split(name)
    return any(
        not (before[-1:].isalnum() or before.endswith((".", "_", "-", "/", "\\")))
        and not after[:1].isalnum()
        for before, after in pairwise(parts)
    )


def _ids_in(path: Path, passages: Texts) -> set[uuid.UUID]:
    """Return whose passages a file has: perhaps those of all, if it cannot be read."""
    try:
        return {id_ for piece in texts_in(path) for id_ in passages.repeated_in(piece)}
    except FileNotFoundError:
        return set()
    except OSError:
        return set(passages.numbers())


def _erase(receipt: Erasure, files: Counter[str], session: Session) -> int:
    receipt.removed = {**files, **erasures.erase(session, receipt.document_id)}
    session.add(receipt)
    return 1


def _complete(receipts: Sequence[Erasure], session: Session) -> int:
    session.add_all(receipts)
    now = clock.read(session)
    for receipt in receipts:
        receipt.verified_at = now
    return len(receipts)


def _scheduled_files(session: Session) -> Iterator[Path]:
    """Yield the files that commands of schedules have written."""
    columns = (ScheduleRun.run, ScheduleRun.due_at, ScheduleRun.outcome, Schedule.folder)
    for run, due_at, outcome, folder in session.execute(select(*columns).join(Schedule)):
        words = shlex.split(run.replace("{due}", f"{due_at.astimezone(UTC):%Y%m%d-%H%M}"))
        names = [word for before, word in pairwise(words) if before in _OUTPUT]
        names += [word.partition("=")[2] for word in words if word.partition("=")[0] in _OUTPUT]
        names.append(json_values.text((outcome or {}).get("file")))
        yield from filter(Path.is_file, (Path(folder) / name for name in names if name))


def texts_in(path: Path) -> Iterator[str]:
    """Yield the text of a file, or of each file in an archive, in overlapping pieces.

    Raises:
        OSError: It cannot be read.
    """
    if not zipfile.is_zipfile(path):
        yield from _pieces(path.open("rb"))
        return
    # An archive may be damaged, or have a password.
    with suppress(zipfile.BadZipFile, RuntimeError), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield from _pieces(archive.open(name))


def _pieces(file: IO[bytes]) -> Iterator[str]:
    before = ""
    with file:
        while content := file.read(_PIECE):
            piece = before + content.decode(errors="replace")
            yield piece
            before = piece[-_OVERLAP:]
