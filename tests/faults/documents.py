"""Documents for experiments: any number of chunks, each different, with a canary."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.dropping import sha256

# The 400 tokens per chunk of `tests.fakes.configuration`, in characters.
_CHUNK_CHARACTERS = 1_550


@dataclass(slots=True, kw_only=True)
class Documents:
    """The documents of an experiment, with the hashes of their contents.

    Each contains `canary`, which must not appear in a log or in the broker.
    """

    folder: Path
    canary: str = field(default_factory=lambda: f"canary {secrets.token_hex(6)} sings")
    digests: dict[Path, str] = field(default_factory=dict)

    def write(self, chunks: int = 12, *, saying: str = "") -> Path:
        """Write a document of about `chunks` chunks that begins with `saying`."""
        number = len(self.digests) + 1
        path = self.folder / f"document-{number}.txt"
        path.write_text(f"{saying} {self.text(number, chunks)}".strip(), "utf-8")
        self.digests[path] = sha256(path)
        return path

    def text(self, number: int, chunks: int = 1) -> str:
        sentences = [f"This is document {number}, in which a {self.canary} in the dark."]
        characters, day = len(sentences[0]), 0
        while characters < max(1, chunks - 0.5) * _CHUNK_CHARACTERS or day == 0:
            day += 1
            sentences.append(
                f"On day {day} the council of town {number} voted {day % 7} times about pier {day}."
            )
            characters += len(sentences[-1]) + 1
            if chunks == 1 and day > 2:
                break
        return " ".join(sentences)

    def changed(self) -> list[Path]:
        """Return the documents that are missing or have changed."""
        return [
            path
            for path, digest in self.digests.items()
            if not path.is_file() or sha256(path) != digest
        ]
