"""Tests that the examples of the README work: the program and the settings file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from chordwise import settings
from chordwise.cli import scheduled
from tests.house.checkout import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return [str(block) for block in re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)]


def test_the_program_prints_facts_with_their_places(tmp_path: Path) -> None:
    """It needs no key and no server, and its quotes are in its text."""
    outcome = subprocess.run(
        [sys.executable, "-c", blocks("python")[-1]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    lines = outcome.stdout.splitlines()
    assert outcome.stderr == ""
    assert lines[0].startswith("annual fee 48,600.00 EUR The annual fee is 48,600.00 EUR.")
    assert lines[1].startswith("notice period ninety days ")
    assert lines[-1].endswith(" False")


@pytest.fixture(params=blocks("toml"), ids=["folder and clock", "model"])
def loaded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> settings.Settings:
    (tmp_path / settings.FILE_NAME).write_text(request.param, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHORDWISE_MODEL", raising=False)
    return settings.load()


def test_a_settings_file_can_be_read(loaded: settings.Settings) -> None:
    model = loaded.model_named(loaded.model)

    assert loaded.inbox.folders or model.max_tokens_field == "max_tokens"
    scheduled.check_all(loaded)


def test_the_excerpt_quotes_the_samples() -> None:
    """The example output is real: its quotes are at the stated offsets of the samples."""
    excerpt = re.findall(r"(?ms)^```text\n(.*?)^```", README)[1]
    agreement = (ROOT / "samples" / "service-agreement.md").read_text("utf-8")
    shown = excerpt.split("service-agreement.md", 1)[1].partition("samples/")[0]

    quotes = re.findall(r"“([^”]+)” [^\[]*\[(\d+)–(\d+)\]", " ".join(shown.split()))

    assert len(quotes) == 1
    assert [agreement[int(start) : int(end)] for _, start, end in quotes] == [q[0] for q in quotes]
