"""Operation: Erase documents with everything that has their text."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Yes
from chordwise.domain.number_formats import counted
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline import erasure
from chordwise.rendering.screen import Screen, confirmed
from chordwise.storage.documents import Document
from chordwise.storage.erasures import Erasure

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetOptions:
    """The options of the command."""

    documents: Annotated[
        list[str] | None,
        typer.Argument(metavar="DOCUMENT", help="Names, ids or hashes of documents."),
    ] = None
    where: Annotated[
        str, typer.Option(metavar="CONDITION", help="A condition in SQL over the table documents.")
    ] = ""
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Documents that no run took since.")
    ] = None
    expired: Annotated[
        bool, typer.Option("--expired", help="Documents after the keep_days of their profiles.")
    ] = False
    files: Annotated[
        bool, typer.Option("--files", help="Also their files in done and failed of inboxes.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False
    yes: Yes = False
    as_json: AsJson = False


def forget(invocation: Invocation, options: ForgetOptions) -> ExitCode:
    """Erase documents with everything that has their text. Costs are kept.

    The database and the data folder are then searched for the text. Exit code 3: something remains.

    chordwise forget letters/anna.pdf --dry-run

    chordwise forget --where "source LIKE '%anna%'" --files
    """
    age = None if options.older_than is None else timedelta(days=options.older_than)
    ways = {"document": options.documents, "where": options.where, "older_than": age is not None}
    chosen = [way for way, value in {**ways, "expired": options.expired}.items() if value]
    if len(chosen) != 1:
        raise UsageError(
            "Name documents, or use one of --where, --older-than and --expired.",
            "Example: chordwise forget letters/anna.pdf --dry-run",
        )
    screen, occurrence = invocation.screen, invocation.occurrence
    settings = access.reach(invocation)
    with access.reading_context(settings) as context:
        with context.database.read() as session:
            names = options.documents or ()
            ids = erasure.find(session, settings, names=names, where=options.where, age=age)
            doomed, busy = erasure.plan(session, ids)
        if not _is_agreed(screen, doomed, busy, options):
            return ExitCode.SUCCESS
        eraser = erasure.Eraser(
            context=context,
            write=occurrence.write if occurrence else context.database.commit,
            selected_by=chosen[0],
            requested_by=f"schedule {occurrence.schedule}" if occurrence else getpass.getuser(),
            with_files=options.files,
        )
        receipts = eraser.forget(doomed)
    busy += {document.id for document in doomed} - {receipt.document_id for receipt in receipts}
    if occurrence is not None:
        occurrence.record({"forgotten": len(receipts), "worked_on": len(busy)})
    if options.as_json:
        screen.write_json(receipts=[receipt.as_json() for receipt in receipts], worked_on=busy)
    else:
        _show(screen, receipts)
    is_complete = not busy and not any(receipt.remaining for receipt in receipts)
    return ExitCode.SUCCESS if is_complete else ExitCode.INCOMPLETE


def _is_agreed(
    screen: Screen, doomed: Sequence[Document], busy: Sequence[UUID], options: ForgetOptions
) -> bool:
    """Show what goes, and ask; return false after a dry run.

    Raises:
        UsageError: There is no terminal to ask at.
        typer.Abort: The answer is no.
    """
    if options.dry_run and options.as_json:
        listed = [{"id": document.id, "source": document.source} for document in doomed]
        screen.write_json(documents=listed, worked_on=busy)
        return False
    for document in doomed[:_SHOWN]:
        screen.info(f"{document.source} ({document.id}): {document.character_count} characters")
    more = f", {len(doomed) - _SHOWN} of them not listed" if len(doomed) > _SHOWN else ""
    screen.info(
        f"{counted(len(doomed), 'document')}{more}, with all answers, facts, examples, cached "
        "answers, uploads, batches at the provider, and the files of schedules and deliveries "
        "that mention them."
    )
    for document_id in busy:
        screen.info(f"{document_id} is worked on: wait for its run and batch, or cancel the run.")
    if doomed and not options.yes and not options.dry_run:
        what = f"{counted(len(doomed), 'document')} for good"
        if not confirmed(f"Delete {what}?", f"This deletes {what}."):
            raise typer.Abort
    return not options.dry_run


def _show(screen: Screen, receipts: Sequence[Erasure]) -> None:
    for receipt in receipts:
        removed = ", ".join(f"{name} {number}" for name, number in receipt.removed.items())
        screen.info(f"Erased {receipt.document_id}, receipt {receipt.id}: {removed}.")
        if receipt.shared_with:
            rest = "the rest" if receipt.passages else "nothing"
            others = ", ".join(receipt.shared_with[:3])
            screen.info(f"  Other documents have some of its text: {others}; {rest} was searched.")
        if receipt.copies_kept:
            screen.info(f"  {counted(receipt.copies_kept, 'file')} of inboxes kept; see --files.")
        for place in receipt.remaining:
            screen.info(f"  Remains: {place['place']}: {place['reason']}")
