"""A released prompt template never changes: answers name the version that asked for them."""

from __future__ import annotations

import hashlib

from tests.house.checkout import ROOT

RELEASED = ROOT / "chordwise" / "prompts" / "released"


def listed() -> dict[str, str]:
    """Return the checksum of each released template, as it was when it was released."""
    lines = (RELEASED / "SHA256SUMS").read_text("utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def test_released_templates_are_as_they_were_released() -> None:
    """A better prompt is a new file with the next number, and its line in SHA256SUMS."""
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(RELEASED.glob("*.toml"))
    }

    assert found == listed()
