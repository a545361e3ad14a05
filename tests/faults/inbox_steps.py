"""`python -m tests.faults.inbox_steps FOLDER` kills a watch of an inbox before every step.

A step is a call that changes files below the folder, or a commit. For each step a forked child
drops a file with its side-car, watches, and is killed right before the step; another child
continues. The output is a line of JSON for each step with the final places of the files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from chordwise import settings as settings_module
from chordwise.pipeline.inbox.watch import InboxWatch
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import open_context
from tests.fakes.dropping import Folders

CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "open")
MAX_STEPS = 200
SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class Killer:
    """Kills this process right before step number `at`."""

    below: tuple[str, ...]
    at: int
    count: int = 0

    def hear(self, name: str, arguments: tuple[object, ...]) -> None:
        """Count an audit event of the interpreter if it is a step."""
        if name in CHANGES and self._is_ours(arguments) and not self._only_reads(name, arguments):
            self.step()

    def step(self, *_: object) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, arguments: tuple[object, ...]) -> bool:
        paths = (str(argument) for argument in arguments[:2] if isinstance(argument, str | Path))
        return any(path.startswith(self.below) for path in paths)

    def _only_reads(self, name: str, arguments: tuple[object, ...]) -> bool:
        flags = arguments[2] if name == "open" else os.O_WRONLY
        return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR)


def watch_until_delivered(folders: Folders, count: int) -> None:
    """Watch until this many files are delivered; submitted work succeeds at once."""
    context = open_context(settings_module.load(), "test")
    deadline = time.monotonic() + SECONDS
    watch = InboxWatch(
        context,
        monotonic=time.monotonic,
        now=lambda: datetime.now(UTC),  # noqa: TID251 - the clock
    )
    while len(notes(folders)) < count or not is_delivered(context):
        assert time.monotonic() < deadline, "not delivered in time"
        watch.tick()
        succeed(context)
        time.sleep(0.02)  # noqa: TID251 - polling with a deadline
    watch.close()


def is_delivered(context: Context) -> bool:
    open_files = "SELECT count(*) FROM inbox_files WHERE status NOT IN ('done', 'failed')"
    with context.database.engine.connect() as connection:
        return bool(connection.execute(text(open_files)).scalar_one() == 0)


def succeed(context: Context) -> None:
    """Do the work of the workers outside of sessions, whose commits do not count as steps."""
    engine: Engine = context.database.engine
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET status = 'succeeded' WHERE status IN ('queued', 'running')")
        )


def notes(folders: Folders) -> list[str]:
    files = (*folders.done.rglob("*.json"), *folders.failed.rglob("*.json"))
    return [str(note) for note in files]


def in_child(do: Callable[[], None]) -> int:
    """Run a function in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        except Exception:  # noqa: BLE001 - the outermost handler of the child
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def armed(folders: Folders, step: int) -> None:
    killer = Killer(below=(str(folders.root),), at=step)
    event.listen(Session, "before_commit", killer.step)
    event.listen(Session, "after_commit", killer.step)
    sys.addaudithook(killer.hear)
    watch_until_delivered(folders, step)


def main() -> int:
    """Kill before each step until no further step is reached."""
    folders = Folders(root=Path(sys.argv[1]))
    places = (folders.inbox, folders.done, folders.failed)
    inner = folders.inbox / "letters"
    inner.mkdir(parents=True, exist_ok=True)
    for step in range(1, MAX_STEPS):
        (inner / "a.txt.chordwise.toml").write_text(f"instructions = 'number {step}'", "utf-8")
        (inner / "a.txt").write_text(f"Letter number {step}. It has two sentences.", "utf-8")
        first = in_child(lambda step=step: armed(folders, step))  # type: ignore[misc]  # bound here
        count = folders.hashes().total()
        second = in_child(lambda step=step: watch_until_delivered(folders, step))  # type: ignore[misc]  # bound here
        line = {
            "step": step,
            "killed": first == -signal.SIGKILL,
            "went_on": second == 0,
            "files_after_kill": count,
            "files": folders.hashes().total(),
            "contents": len(folders.hashes()),
            "side_cars": sum(len(list(place.rglob("*.chordwise.toml"))) for place in places),
            "notes": len(notes(folders)),
            "hidden": [str(path) for place in places for path in place.rglob(".chordwise-*")],
        }
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()
        if first == 0 or second != 0:
            return second
    return 1


if __name__ == "__main__":
    sys.exit(main())
