"""Small disks that an experiment can fill, and a second file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A file system of a few megabytes; `folder` is its root."""

    folder: Path

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as output:
            try:
                while True:
                    output.write(bytes(4_096))
            except OSError:
                return

    def make_room(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


@contextmanager
def mounted(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small file system inside the block; skip the test without permission."""
    top = Path(tempfile.mkdtemp(prefix="cw-disk-"))
    top.chmod(0o755)
    folder = top / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        shutil.rmtree(top)
        pytest.skip("only root may mount a small disk")
    yield SmallDisk(folder=folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - from the PATH
    shutil.rmtree(top)


@contextmanager
def another_file_system(than: Path) -> Iterator[Path]:
    """Make a folder on another file system inside the block; skip the test if there is none."""
    memory = Path("/dev/shm")  # noqa: S108 - a new folder in it
    if not memory.is_dir() or memory.stat().st_dev == than.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
