"""What the README shows can be run: the program as it stands, and the settings file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from chordwise import settings
from tests.house.checkout import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def block(language: str) -> str:
    """Return the only block of a language."""
    (found,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)
    return str(found)


def test_the_program_prints_facts_with_their_places(tmp_path: Path) -> None:
    """The example needs no key and no server, and its quotes stand in its text."""
    outcome = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    lines = outcome.stdout.splitlines()
    assert outcome.stderr == ""
    assert lines[0].startswith("48,600.00 EUR The annual fee is 48,600.00 EUR.")
    assert lines[1].startswith("ninety days ")
    assert lines[-1].endswith(" True")


def test_the_settings_file_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example names a model that the settings then know."""
    file = tmp_path / settings.FILE_NAME
    file.write_text(block("toml"), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHORDWISE_MODEL", raising=False)

    loaded = settings.load()

    assert loaded.model_named(loaded.model).max_tokens_field == "max_tokens"


def test_the_excerpt_quotes_the_samples() -> None:
    """The first screen shows what really comes out: its quotes stand where it says."""
    excerpt = re.findall(r"(?ms)^```text\n(.*?)^```", README)[0]
    agreement = (ROOT / "samples" / "service-agreement.md").read_text("utf-8")
    shown = excerpt.split("service-agreement.md", 1)[1]

    quotes = re.findall(r"“([^”]+)” \[(\d+)–(\d+)\]", " ".join(shown.split()))

    assert len(quotes) == 2
    assert [agreement[int(start) : int(end)] for _, start, end in quotes] == [q[0] for q in quotes]
