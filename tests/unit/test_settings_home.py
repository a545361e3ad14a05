"""Where the data is, told although other settings are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.settings import FILE_NAME, find_home, load
from tests.fakes.commands import run

WRONG = 'colour = "red"\n[worker]\nconcurrency = 0\n'
BROKEN = 'model = "open\n[worker]\nhome = "other"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, without any variable of ours."""
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("rest", ["", WRONG, BROKEN])
def test_the_home_has_the_precedence_of_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    """The flag goes before the variable, that before the file, and that before the default."""
    default = find_home()
    assert default == load().home

    (folder / FILE_NAME).write_text(rest, "utf-8")
    assert find_home() == default
    (folder / FILE_NAME).write_text(f'home = "of the file"\n{rest}', "utf-8")
    assert find_home() == Path("of the file")
    monkeypatch.setenv("CHORDWISE_HOME", "of the variable")
    assert find_home() == Path("of the variable")
    assert find_home(home=Path("of the flag")) == Path("of the flag")


@pytest.mark.parametrize("content", [b"home = 5\n", b'home = "a\n', b'home = "\xff"\n'])
def test_a_home_that_cannot_be_read_does_not_count(folder: Path, content: bytes) -> None:
    default = find_home()

    (folder / FILE_NAME).write_bytes(content)

    assert find_home() == default


def test_a_file_that_is_missing_is_no_wrong_entry(folder: Path) -> None:
    """It may have named another home, whose stack is meant."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        find_home(folder / "gone.toml")


def test_wrong_settings_do_not_keep_a_stack_from_being_stopped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said all the same, and other commands are refused as before."""
    (folder / FILE_NAME).write_text(f'home = "data"\n{WRONG}', "utf-8")

    assert run(["down"]) == ExitCode.SUCCESS

    shown = capsys.readouterr().err
    assert "worker.concurrency" in shown
    assert "Stopping the services of data anyway." in shown
    assert "No services are running for data." in shown
    assert run(["runs"]) == ExitCode.CONFIGURATION
