"""The state of the inboxes: the files in their folders, and the files taken from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from chordwise.domain.states import InboxStatus
from chordwise.domain.visible_text import printable
from chordwise.errors import ChordwiseError
from chordwise.pipeline.inbox import scan
from chordwise.pipeline.inbox.folders import Inbox, Inboxes, inboxes_of
from chordwise.pipeline.inbox.scan import Refused, check, profile_named
from chordwise.settings import Settings
from chordwise.storage import inbox_files
from chordwise.storage.record import copied

_DAY = timedelta(days=1)
_MAX_REFUSED = 50
_MAX_ORPHANS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFile:
    """An entry of an inbox that is not taken, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """The number of files that wait for an invalid profile, and the error.

    `profile` is empty for files that belong to no profile.
    """

    profile: str
    files: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentFile:
    """A file that was taken, and its status."""

    name: str
    profile: str
    status: str
    run: str | None
    path: str
    reason: str | None
    message: str | None
    hint: str | None
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxAccount:
    """One inbox: its files that wait, that are in the store, and that were delivered within a day.

    The files of `held_back` are included in `waiting`. `orphaned_side_cars` lists only the first
    side-cars without a file; `orphaned_side_car_count` counts all of them.
    """

    folder: str
    done_folder: str
    failed_folder: str
    profiles: Sequence[str]
    waiting: int
    in_store: int
    done: int
    failed: int
    refused: Sequence[RefusedFile]
    held_back: Sequence[HeldBack]
    orphaned_side_cars: Sequence[str]
    orphaned_side_car_count: int
    recent: Sequence[RecentFile]


def accounts(session: Session, settings: Settings, most_recent: int) -> list[InboxAccount]:
    """Return the account of each inbox in the settings.

    Raises:
        ConfigurationError: The inboxes overlap, or a profile's folder is outside of them.
    """
    known = inboxes_of(settings)
    return [_account(session, settings, known, inbox, most_recent) for inbox in known.inboxes]


def _account(
    session: Session, settings: Settings, known: Inboxes, inbox: Inbox, most_recent: int
) -> InboxAccount:
    refused: list[RefusedFile] = []

    def refuse(each: Refused) -> None:
        if len(refused) < _MAX_REFUSED:
            refused.append(RefusedFile(path=printable(str(each.path)), reason=each.reason))

    waiting = Counter(map(known.profile_of, scan.files(inbox.folder, refuse)))
    counts = inbox_files.counts(session, str(inbox.folder), _DAY)
    done, failed = counts.pop(InboxStatus.DONE, 0), counts.pop(InboxStatus.FAILED, 0)
    orphans = sorted(printable(str(each)) for each in scan.orphaned_side_cars(inbox.folder))
    bound = {name for at, name in known.bindings.items() if at.is_relative_to(inbox.folder)}
    return InboxAccount(
        folder=printable(str(inbox.folder)),
        done_folder=printable(str(inbox.done)),
        failed_folder=printable(str(inbox.failed)),
        profiles=sorted(bound),
        waiting=waiting.total(),
        in_store=sum(counts.values()),
        done=done,
        failed=failed,
        refused=refused,
        held_back=_held_back(settings, waiting),
        orphaned_side_cars=orphans[:_MAX_ORPHANS],
        orphaned_side_car_count=len(orphans),
        recent=_recent(session, inbox.folder, most_recent),
    )


def _held_back(settings: Settings, waiting: Mapping[str, int]) -> list[HeldBack]:
    found = []
    for name, files in sorted(waiting.items()):
        try:
            check(settings, profile_named(settings, name))
        except ChordwiseError as error:
            each = HeldBack(profile=name, files=files, message=error.what, hint=error.hint)
            found.append(each)
    return found


def _recent(session: Session, folder: Path, limit: int) -> list[RecentFile]:
    return [
        copied(
            RecentFile,
            file,
            run=run,
            path=file.delivered_path or file.stored_path,
            taken_at=file.created_at,
        )
        for file, run in inbox_files.newest(session, str(folder), limit)
    ]
