"""The folders of an inbox for tests: their files by name and by content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from chordwise.domain.json_values import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """An inbox with the folders done/ and failed/ beside it."""

    root: Path

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def done(self) -> Path:
        return self.root / "done"

    @property
    def failed(self) -> Path:
        return self.root / "failed"

    def note(self, delivered: Path) -> JsonObject:
        content: JsonObject = json.loads(
            delivered.with_name(f"{delivered.name}.json").read_text("utf-8")
        )
        return content

    def hashes(self) -> Counter[str]:
        """Return how often each content occurs in inbox, done and failed together (I6).

        A file with two names, as a killed process may leave it, counts once.
        """
        places = (self.inbox, self.done, self.failed)
        files = (file for place in places for file in place.rglob("*"))
        by_identity = {identity(file): sha256(file) for file in files if _is_content(file)}
        return Counter(by_identity.values())


def identity(file: Path) -> tuple[int, int]:
    """Return the device and inode of a file, which all of its names share."""
    status = file.stat()
    return status.st_dev, status.st_ino


def sha256(path: Path) -> str:
    """Return the hash of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_content(file: Path) -> bool:
    return file.suffix == ".txt" and file.is_file()
