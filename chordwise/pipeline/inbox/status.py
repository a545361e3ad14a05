"""The state of the inboxes: the files that wait in their folders, and the claimed ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from psycopg import Connection

from chordwise.domain.visible_text import printable
from chordwise.errors import ChordwiseError
from chordwise.pipeline.inbox import scan
from chordwise.pipeline.inbox.folders import Inbox, Inboxes, inboxes_of
from chordwise.pipeline.inbox.scan import Refused, check, profile_named
from chordwise.relations.relation import Relation, Row
from chordwise.remote import path_of
from chordwise.settings import Settings

RECENT_FILES = Relation(
    query="""SELECT
    f.name, f.profile, f.status, r.name AS run, f.reason, f.message, f.hint,
    f.created_at AS taken_at, coalesce(f.delivered_path, f.folder || '/' || f.name) AS path
FROM inbox_files AS f LEFT JOIN runs AS r ON r.id = f.run_id""",
    filters={"folder": "f.folder = %(folder)s"},
    order="f.id DESC",
)
FILE_COUNTS = Relation(
    # Files that were delivered more than a day ago do not count.
    query="""SELECT
    count(*) FILTER (WHERE status = 'done') AS done,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE status NOT IN ('done', 'failed')) AS in_analysis
FROM inbox_files""",
    filters={
        "folder": """folder = %(folder)s
    AND (delivered_at IS NULL OR delivered_at > clock_timestamp() - interval '1 day')"""
    },
)
OPEN_VERSIONS = Relation(
    query="SELECT raw_name, byte_count, modified_ns FROM inbox_files",
    filters={"folder": "folder = %(folder)s AND status NOT IN ('done', 'failed')"},
)

_MAX_REFUSED = 50
_MAX_ORPHANS = 20


def accounts(connection: Connection, settings: Settings, limit: int) -> list[Row]:
    """Return the account of each inbox in the settings: what waits, what was taken, what is wrong.

    `in_analysis` counts the claimed files; `done` and `failed` those delivered within a day. The
    files of `held_back`, which wait for an invalid profile, are included in `waiting`.
    `orphaned_side_cars` lists only the first side-cars without a file.

    Raises:
        ConfigurationError: The inboxes overlap, or a profile's folder is outside of them.
    """
    inboxes = inboxes_of(settings)
    return [_account(connection, settings, inboxes, inbox, limit) for inbox in inboxes.inboxes]


def _account(
    connection: Connection, settings: Settings, inboxes: Inboxes, inbox: Inbox, limit: int
) -> Row:
    refused: list[Row] = []

    def refuse(entry: Refused) -> None:
        if len(refused) < _MAX_REFUSED:
            refused.append({"path": printable(str(entry.path)), "reason": entry.reason})

    of_folder = {"folder": str(inbox.folder)}
    claimed = {tuple(row.values()) for row in OPEN_VERSIONS.read(connection, of_folder)}
    waiting = Counter(
        inboxes.profile_of(path_of(file[0]))
        for file in scan.files(inbox.folder, refuse)
        if scan.version(inbox.folder, file) not in claimed
    )
    orphans = sorted(printable(str(path)) for path in scan.orphaned_side_cars(inbox.folder))
    bound = {name for at, name in inboxes.bindings.items() if at.is_relative_to(inbox.folder)}
    return {
        "folder": printable(str(inbox.folder)),
        "done_folder": printable(str(inbox.done)),
        "failed_folder": printable(str(inbox.failed)),
        "profiles": sorted(bound),
        "waiting": waiting.total(),
        **FILE_COUNTS.one(connection, of_folder),
        "refused": refused,
        "held_back": list(_held_back(settings, waiting)),
        "orphaned_side_cars": orphans[:_MAX_ORPHANS],
        "orphaned_side_car_count": len(orphans),
        "recent": RECENT_FILES.read(connection, of_folder, limit=limit),
    }


def _held_back(settings: Settings, waiting: Mapping[str, int]) -> Iterator[Row]:
    for profile, files in sorted(waiting.items()):
        try:
            check(settings, profile_named(settings, profile))
        except ChordwiseError as error:
            yield {"profile": profile, "files": files, "message": error.what, "hint": error.hint}
