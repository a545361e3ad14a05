"""Counts the files that a chunk walks through: `python -m benchmarks.walk`.

A document of one chunk is taken in, analyzed and stored with its result. Each function of the
package is counted at its first call, in the order of these calls: `files` are those that contain
them, and `returns` how often the order comes back to a file that it has left. Functions that ran in
a document before (caches, connections) are counted, too, because a reader meets them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import FrameType

from sqlalchemy import select

from benchmarks import provider, stack
from benchmarks.stack import MeasurementError
from chordwise.client.client import Client
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from worker.tasks import analyze_slice
from worker.threads import ChunkThreads

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("chordwise/", "worker/")
_OTHERS = ("chordwise/llm/", "chordwise/domain/", "chordwise/prompts/")


class Walk:
    """Records the files of functions in the order of their first calls, in all threads."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], None] = {}

    def begin(self) -> None:
        """Forget what was recorded."""
        self._functions.clear()

    def record(self, frame: FrameType, event: str, _argument: object) -> None:
        """Take part in the profile of a thread."""
        code = frame.f_code
        path = code.co_filename.removeprefix(f"{_ROOT}/")
        if event == "call" and path.startswith(_PACKAGES) and code.co_name != "<module>":
            self._functions.setdefault((path, code.co_name))

    def files(self, besides: Sequence[str] = ()) -> Sequence[str]:
        """Return the files in order, one after the other; a file stands again at each return."""
        paths = (path for path, _ in list(self._functions))
        return [path for path, _ in groupby(p for p in paths if not p.startswith(tuple(besides)))]


def main() -> None:
    """Measure a chunk, and print the numbers and the files."""
    with (
        provider.running(0.0) as server,
        stack.running(stack.provider_settings(server, 1), timeout=120) as running,
        Client(config=running.folder / "chordwise.toml", home=running.home) as client,
    ):
        (running.folder / "a.txt").write_text("Document of the walk, and the end.\n")
        with running.without_workers():
            walk = _walked(client, running.folder / "a.txt")
    for title, besides in (("with everything", ()), ("without llm, domain, prompts", _OTHERS)):
        files = walk.files(besides)
        print(f"{title}: {len(set(files))} files, {len(files) - len(set(files))} returns")
    print("\n".join(walk.files()))


def _walked(client: Client, document: Path) -> Walk:
    """Take in a document and analyze its chunk in this process."""
    walk = Walk()
    threading.setprofile(walk.record)  # also of the threads of providers and stores
    threads = ChunkThreads(1)
    context = client._connection.context  # noqa: SLF001 - as a worker opens it
    run = client.submit(document, fresh=True)
    with context.database.read() as session:
        query = select(Chunk.id).join(Job, Job.id == Chunk.job_id).where(Job.run_id == run.id)
        chunk_ids = session.scalars(query).all()
    walk.begin()
    sys.setprofile(walk.record)
    try:
        outcomes = analyze_slice(context, threads, chunk_ids)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if outcomes != [ChunkOutcome.ENDED]:
        raise MeasurementError("The chunk was not analyzed.")
    return walk


if __name__ == "__main__":
    main()
