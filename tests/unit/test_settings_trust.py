"""A settings file says where keys are sent: others must not have been able to write it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError
from chordwise.settings import find_home, load
from tests.fakes.commands import run

STRANGER = 54_321
IS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a settings file of our own."""
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_HOME", "CHORDWISE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    written(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def written(folder: Path) -> Path:
    """Write a settings file into a new folder, whatever the umask is."""
    folder.mkdir(mode=0o755)
    file = folder / "chordwise.toml"
    file.write_text('model = "theirs"\nhome = "/somewhere"\n', "utf-8")
    file.chmod(0o644)
    folder.chmod(0o755)
    return file


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path belong to another user; without root's rights, be another one ourselves."""
    if IS_ROOT:
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


def refused(config: Path | None = None) -> str:
    """Return what is said of a file that is refused, by all that read it."""
    with pytest.raises(ConfigurationError) as caught:
        load(config)
    with pytest.raises(ConfigurationError):
        find_home(config)
    return f"{caught.value.what} {caught.value.hint}"


def test_a_file_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the file and its owner, and says what can be done."""
    file = folder / "chordwise.toml"
    give_away(file, monkeypatch)

    said = refused()

    assert f"The settings file {file} belongs to" in said
    assert f"--config {file}" in said
    assert "chown" in said


def test_the_command_ends_with_78(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of such a file is used, and a file that is named may belong to another user."""
    file = folder / "chordwise.toml"
    give_away(file, monkeypatch)

    assert run(["config"]) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "belongs to" in shown.err
    assert run(["config", "--config", str(file)]) == 0
    monkeypatch.setenv("CHORDWISE_CONFIG", str(file))
    assert run(["config"]) == 0


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_file_that_all_may_write_is_refused(folder: Path, mode: int, *, is_named: bool) -> None:
    file = folder / "chordwise.toml"
    file.chmod(mode)

    said = refused(file if is_named else None)

    assert f"All users of this machine may write the settings file {file}" in said
    assert f"chmod go-w {file}" in said


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a file to a group")
@pytest.mark.parametrize("place", ["chordwise.toml", "."])
def test_a_group_of_others_may_not_write(folder: Path, place: str) -> None:
    (folder / place).chmod(0o775)
    os.chown(folder / place, -1, STRANGER)

    assert f"group gid {STRANGER}" in refused()


def test_a_group_of_the_user_alone_may_write(folder: Path) -> None:
    """So files are made where each user has a group of the same name and a umask of 002."""
    user = pwd.getpwuid(os.geteuid())
    if [each.pw_name for each in pwd.getpwall() if each.pw_gid == user.pw_gid] != [user.pw_name]:
        pytest.skip("this user shares the group with others")
    for path in (folder, folder / "chordwise.toml"):
        os.chown(path, -1, user.pw_gid)
        path.chmod(0o775)

    assert load().model == "theirs"


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a file away")
def test_a_file_that_is_mounted_into_a_container_is_read_when_it_is_named(folder: Path) -> None:
    """Its owner has no name there, nor has the group of this owner, which may write it."""
    file = folder / "chordwise.toml"
    for path, mode in ((file, 0o664), (folder, 0o775)):
        os.chown(path, STRANGER, STRANGER)
        path.chmod(mode)

    assert load(file).model == "theirs"
    refused()


@pytest.mark.parametrize("is_named", [False, True])
def test_a_folder_in_which_others_may_replace_the_file_is_refused(
    tmp_path: Path, folder: Path, *, is_named: bool
) -> None:
    """Also one further up; in a sticky one, as /tmp is, no other user replaces our file."""
    file = folder / "chordwise.toml"
    tmp_path.chmod(0o777)
    assert f"may write to {tmp_path} and so replace" in refused(file if is_named else None)

    tmp_path.chmod(0o777 | stat.S_ISVTX)

    assert load(file if is_named else None).model == "theirs"


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner can put another file in place of ours."""
    if not IS_ROOT:
        pytest.skip("needs root to give a folder away")
    give_away(tmp_path, monkeypatch)

    assert f"is reached through {tmp_path}, which belongs to" in refused()


def test_links_are_followed_as_the_system_does(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a link leads through counts, and so does whose link it is."""
    open_to_all = tmp_path / "shared"
    target = written(open_to_all)
    file = folder / "chordwise.toml"
    file.unlink()
    file.symlink_to("../shared/chordwise.toml")
    assert load().model == "theirs"

    open_to_all.chmod(0o777)
    assert f"may write to {open_to_all}" in refused()
    open_to_all.chmod(0o777 | stat.S_ISVTX)
    assert load().model == "theirs"

    give_away(target, monkeypatch)
    assert "belongs to" in refused()


@pytest.mark.skipif(not IS_ROOT, reason="needs root to make a link of another user")
def test_a_link_of_another_user_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be turned to another file of ours, one by one."""
    (folder / "chordwise.toml").rename(tmp_path / "mine.toml")
    (folder / "chordwise.toml").symlink_to(tmp_path / "mine.toml")

    give_away(folder / "chordwise.toml", monkeypatch)

    assert "belongs to" in refused()


def test_a_pipe_in_its_place_blocks_no_command(folder: Path) -> None:
    """It is no file, and is not opened to wait for a writer."""
    (folder / "chordwise.toml").unlink()
    os.mkfifo(folder / "chordwise.toml")

    assert load().model == "extractive"
    with pytest.raises(ConfigurationError, match="does not exist"):
        load(folder / "chordwise.toml")
