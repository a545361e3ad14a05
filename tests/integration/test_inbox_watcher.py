"""The thread that watches: what the operating system tells, and what it cannot tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from chordwise.settings import InboxSettings, Settings
from scheduler.inbox import watched
from tests.fakes.pipeline import SCRIPTED, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until

PATIENCE_SECONDS = 20.0


@pytest.fixture
def inbox(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    """Watch a folder, with the full look so rare that only events count."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    watch = InboxSettings(folders=(folder,), stability_seconds=0.2)
    changes = {"inbox": watch, "model": SCRIPTED}
    pipeline = a_pipeline(settings.model_copy(update=changes), quoting_the_text, repeat_last=True)
    with watched(pipeline.context, Event()):
        yield folder


def is_taken(inbox: Path, name: bytes) -> None:
    """Drop a file, and wait until it has been taken."""
    path = inbox / os.fsdecode(name)
    path.write_bytes(b"Somebody called this file " + name)
    wait_until(lambda: not path.exists(), PATIENCE_SECONDS, f"{name!r} is taken")


def test_a_name_that_is_no_utf8_does_not_end_the_events(inbox: Path) -> None:
    """F06: the library gives up over such a name; the file is taken, and so is what comes later."""
    for name in (b"first.txt", b"\xff\xfe.txt", b"later.txt", b"\xfe.txt", b"last.txt"):
        is_taken(inbox, name)

    assert list(inbox.iterdir()) == []
