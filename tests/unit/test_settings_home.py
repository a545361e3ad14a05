"""Tests of finding the home folder, also with invalid settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.settings import FILE_NAME, find_home, load
from tests.fakes.commands import output_of, run

WRONG = 'colour = "red"\n[worker]\nconcurrency = 0\n'
BROKEN = 'model = "open\n[worker]\nhome = "other"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("rest", ["", WRONG, BROKEN])
def test_the_home_has_the_precedence_of_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    default = find_home()
    assert default == load().home

    (folder / FILE_NAME).write_text(rest, "utf-8")
    assert find_home() == default
    (folder / FILE_NAME).write_text(f'home = "of the file"\n{rest}', "utf-8")
    monkeypatch.setenv("CHORDWISE_CONFIG", FILE_NAME)
    assert find_home() == Path("of the file")
    monkeypatch.setenv("CHORDWISE_HOME", "of the variable")
    assert find_home() == Path("of the variable")
    assert find_home(home=Path("of the flag")) == Path("of the flag")


@pytest.mark.parametrize("toml", ['home = "data"\n', '[readers]\nocr_data = "data"\n'])
def test_a_file_that_was_only_found_names_no_files_for_programs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, toml: str
) -> None:
    """Such as a database that is part of a download, whose configuration starts programs."""
    (folder / FILE_NAME).write_text(toml, "utf-8")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    file = folder / FILE_NAME

    with pytest.raises(ConfigurationError, match="you have not named this file") as caught:
        load()
    assert run(["runs"]) == run(["up"]) == ExitCode.CONFIGURATION
    assert toml.startswith("[") or run(["down"]) == ExitCode.CONFIGURATION

    assert f"--config {file}" in caught.value.hint
    assert load(file).toml_file == file
    monkeypatch.setenv("CHORDWISE_CONFIG", str(file))
    assert load().toml_file == file


@pytest.mark.parametrize("content", [b"home = 5\n", b'home = "a\n', b'home = "\xff"\n'])
def test_an_invalid_home_is_ignored(folder: Path, content: bytes) -> None:
    """A missing file is an error: it may have named another home with the stack in question."""
    default = find_home()

    (folder / FILE_NAME).write_bytes(content)

    assert find_home() == default
    with pytest.raises(ConfigurationError, match="does not exist"):
        find_home(folder / "gone.toml")


def test_a_stack_can_be_stopped_with_invalid_settings(folder: Path) -> None:
    (folder / FILE_NAME).write_text(f'home = "data"\n{WRONG}', "utf-8")

    shown = output_of("down", "--config", FILE_NAME).err

    assert "worker.concurrency" in shown
    assert "Stopping the services of data anyway." in shown
    assert "No services are running for data." in shown
    assert run(["runs"]) == ExitCode.CONFIGURATION
