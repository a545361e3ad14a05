"""Drives the watch of an inbox step by step, with a controlled clock and a scripted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from chordwise.pipeline.inbox.watch import InboxWatch
from chordwise.pipeline.jobs import shared_jobs
from chordwise.settings import InboxSettings, Profile, Settings
from tests.fakes.dropping import Folders
from tests.fakes.pipeline import SCRIPTED, Pipeline, a_pipeline, quoting_the_text

LETTER = "Anna writes to Berta. She wants to know when the ferry leaves."
OTHER = "Berta answers Anna. The ferry leaves at noon."
NOW = datetime(2026, 11, 25, 2, 13, tzinfo=UTC)
STABILITY_SECONDS = 5.0
QUIET_SECONDS = 10.0
# A tick waits until each file is read completely.
READING_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class WatchedInbox:
    """An inbox with its watch, and the work of the workers."""

    folders: Folders
    pipeline: Pipeline
    now: float = 0.0
    watch: InboxWatch = field(init=False)

    def __post_init__(self) -> None:
        self.folders.inbox.mkdir(parents=True, exist_ok=True)
        self.begin()

    def begin_anew(self) -> None:
        """Start another watch, as the next process does after a kill and the end of its leases."""
        self.watch.stop_reading()  # a kill also ends the reader
        self.pipeline.execute("UPDATE inbox_files SET lease_until = NULL")
        self.pipeline.execute("UPDATE runs SET lease_until = now() - interval '1 second'")
        self.begin()

    def begin(self) -> None:
        self.watch = self.begin_worker(lists=True)

    def begin_worker(self, *, lists: bool = False) -> InboxWatch:
        """Return the watch of another process, which may only read files."""
        return InboxWatch(
            self.pipeline.context,
            monotonic=lambda: self.now,
            now=lambda: NOW,
            reading_turn_seconds=READING_SECONDS,
            lists=lists,
        )

    def close(self) -> None:
        self.watch.close()

    def drop(self, name: str, content: str) -> Path:
        path = self.folders.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        self.watch.record_changes([path])
        return path

    @property
    def unclaimed(self) -> list[Path]:
        """The files of the inbox that no watch has claimed."""
        claimed = self.pipeline.rows("SELECT name FROM inbox_files WHERE delivered_at IS NULL")
        files = (path for path in self.folders.inbox.rglob("*") if path.is_file())
        names = {str(name) for (name,) in claimed}
        return [file for file in files if str(file.relative_to(self.folders.inbox)) not in names]

    @property
    def left(self) -> list[Path]:
        """The entries of the inbox, without the folders of profiles."""
        profiles = {self.folders.inbox / name for name in self.pipeline.context.settings.profiles}
        return [path for path in self.folders.inbox.iterdir() if path not in profiles]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.watch.tick()

    def take(self) -> None:
        """Wait until all files are complete, so that they are claimed and submitted."""
        self.watch.tick()
        self.wait(STABILITY_SECONDS)

    def work(self) -> None:
        """Do the work of the workers for all waiting jobs, and serve the jobs that share them."""
        waiting = "SELECT array_agg(id ORDER BY id) FROM jobs WHERE status IN ('queued', 'running')"
        job_ids = self.pipeline.value(waiting)
        for job_id in job_ids if isinstance(job_ids, list) else ():
            self.pipeline.work_on(job_id)
        with self.pipeline.context.database.write() as session:
            shared_jobs.end_followers(self.pipeline.context, session)

    def deliver(self) -> None:
        self.take()
        self.work()
        self.wait(1)


def watched(
    tmp_path: Path,
    settings: Settings,
    profiles: Mapping[str, Profile] | None = None,
    **more: object,
) -> WatchedInbox:
    """Return an inbox below the test's folder, whose model quotes the text.

    `more` are further settings of the inbox.
    """
    return watching(
        tmp_path,
        settings,
        lambda changed: a_pipeline(changed, quoting_the_text, repeat_last=True),
        profiles,
        **more,
    )


def watching(
    tmp_path: Path,
    settings: Settings,
    open_pipeline: Callable[[Settings], Pipeline],
    profiles: Mapping[str, Profile] | None = None,
    **more: object,
) -> WatchedInbox:
    folders = Folders(root=tmp_path)
    values = {
        "folders": (folders.inbox,),
        "stability_seconds": STABILITY_SECONDS,
        "quiet_seconds": QUIET_SECONDS,
        **more,
    }
    inbox = InboxSettings.model_validate(values)
    changes = {"inbox": inbox, "profiles": profiles or {}, "model": SCRIPTED}
    pipeline = open_pipeline(settings.model_copy(update=changes))
    return WatchedInbox(folders=folders, pipeline=pipeline)


def intake(note: object) -> dict[str, object]:
    assert isinstance(note, dict)
    (entry,) = note["intakes"]
    return dict(entry)


def jobs(of_intake: dict[str, object]) -> list[dict[str, object]]:
    listed = of_intake["jobs"]
    assert isinstance(listed, list)
    return listed
