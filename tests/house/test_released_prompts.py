"""Tests that released prompt templates never change, because answers name their version."""

from __future__ import annotations

import hashlib

from tests.house.checkout import ROOT

RELEASED = ROOT / "chordwise" / "prompts" / "released"


def listed() -> dict[str, str]:
    """Return the checksum of each template at its release."""
    lines = (RELEASED / "SHA256SUMS").read_text("utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def test_released_templates_are_unchanged() -> None:
    """An improved prompt is a new file with the next number, and a new line in SHA256SUMS."""
    hashes = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(RELEASED.glob("*.toml"))
    }

    assert hashes == listed()
