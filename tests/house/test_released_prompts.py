"""Tests that released prompt templates never change, because answers name their version."""

from __future__ import annotations

import hashlib

from tests.house.checkout import ROOT

RELEASED = ROOT / "chordwise" / "prompts" / "released"


def test_released_templates_are_unchanged() -> None:
    """An improved prompt is a new file with the next number, and a new line in SHA256SUMS."""
    sums = (RELEASED / "SHA256SUMS").read_text("utf-8")
    hashes = {
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in RELEASED.glob("*.toml")
    }

    assert hashes == set(sums.splitlines())
