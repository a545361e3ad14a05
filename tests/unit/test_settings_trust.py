"""Tests of rejecting settings files that other users may have written."""

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
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_HOME", "CHORDWISE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    written(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def written(folder: Path) -> Path:
    """Write a settings file into a new folder, regardless of the umask."""
    folder.mkdir(mode=0o755)
    file = folder / "chordwise.toml"
    file.write_text('model = "theirs"\n', "utf-8")
    file.chmod(0o644)
    folder.chmod(0o755)
    return file


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the owner of a path; without root privileges, change the effective user instead."""
    if IS_ROOT:
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


def refused(config: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(config)
    with pytest.raises(ConfigurationError):
        find_home(config)
    return f"{caught.value.what} {caught.value.hint}"


def test_a_file_of_another_user_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in such a file is used; a file named explicitly may belong to another user."""
    file = folder / "chordwise.toml"
    give_away(file, monkeypatch)

    said = refused()

    assert f"The settings file {file} belongs to" in said
    assert f"--config {file}" in said
    assert "chown" in said
    assert run(["config"]) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "belongs to" in shown.err
    assert run(["config", "--config", str(file)]) == 0
    monkeypatch.setenv("CHORDWISE_CONFIG", str(file))
    assert run(["config"]) == 0


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a folder or a link away")
def test_a_folder_or_link_of_another_user_is_rejected(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner can replace the file, or redirect the link to any other file of this user."""
    file = folder / "chordwise.toml"
    file.rename(tmp_path / "mine.toml")
    file.symlink_to(tmp_path / "mine.toml")
    give_away(file, monkeypatch)
    assert "belongs to" in refused()

    file.unlink()
    (tmp_path / "mine.toml").rename(file)
    give_away(tmp_path, monkeypatch)
    assert f"is reached through {tmp_path}, which belongs to" in refused()


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_world_writable_file_is_rejected(folder: Path, mode: int, *, is_named: bool) -> None:
    file = folder / "chordwise.toml"
    file.chmod(mode)

    said = refused(file if is_named else None)

    assert f"All users of this machine may write the settings file {file}" in said
    assert f"chmod go-w {file}" in said


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a file to a group")
@pytest.mark.parametrize("place", ["chordwise.toml", "."])
def test_a_file_writable_by_a_shared_group_is_rejected(folder: Path, place: str) -> None:
    (folder / place).chmod(0o775)
    os.chown(folder / place, -1, STRANGER)

    assert f"group gid {STRANGER}" in refused()


def test_a_file_writable_by_the_users_private_group_is_accepted(folder: Path) -> None:
    """Files have this mode if each user has a group of the same name and a umask of 002."""
    user = pwd.getpwuid(os.geteuid())
    if [account.pw_name for account in pwd.getpwall() if account.pw_gid == user.pw_gid] != [
        user.pw_name
    ]:
        pytest.skip("this user shares the group with others")
    for path in (folder, folder / "chordwise.toml"):
        os.chown(path, -1, user.pw_gid)
        path.chmod(0o775)

    assert load().model == "theirs"


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a file away")
def test_a_file_mounted_into_a_container_is_read_if_it_is_named(folder: Path) -> None:
    """Its owner and the group with write permission have no names there."""
    file = folder / "chordwise.toml"
    for path, mode in ((file, 0o664), (folder, 0o775)):
        os.chown(path, STRANGER, STRANGER)
        path.chmod(mode)

    assert load(file).model == "theirs"
    refused()


@pytest.mark.parametrize("is_named", [False, True])
def test_a_folder_in_which_others_may_replace_the_file_is_rejected(
    tmp_path: Path, folder: Path, *, is_named: bool
) -> None:
    """Parent folders count; in a sticky folder such as /tmp, others cannot replace the file."""
    file = folder / "chordwise.toml"
    tmp_path.chmod(0o777)
    assert f"may write to {tmp_path} and so replace" in refused(file if is_named else None)

    tmp_path.chmod(0o777 | stat.S_ISVTX)

    assert load(file if is_named else None).model == "theirs"


def test_the_target_folder_of_a_link_is_checked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_named_pipe_does_not_block_a_command(folder: Path) -> None:
    (folder / "chordwise.toml").unlink()
    os.mkfifo(folder / "chordwise.toml")

    assert load().model == "extractive"
    with pytest.raises(ConfigurationError, match="does not exist"):
        load(folder / "chordwise.toml")
