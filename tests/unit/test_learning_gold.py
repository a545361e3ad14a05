"""Tests that gold and feedback files have limits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chordwise.errors import UsageError
from chordwise.pipeline.learning import feedback, gold


@pytest.mark.parametrize("read", [gold.read, feedback.read])
def test_only_a_regular_file_of_limited_size_is_read(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless device does not fill the memory, and a pipe without a writer does not block."""
    monkeypatch.setattr(gold, "_MAX_MEGABYTES", 0)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "large.csv").write_text("document,label\na,b\n")

    for path, reason in (
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "pipe.csv", "is a named pipe"),
        (tmp_path / "large.csv", "0 MB"),
        (tmp_path / "gone.csv", "does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(UsageError, match=f"cannot be read: the file {reason}|{reason}"):
            read(path)
