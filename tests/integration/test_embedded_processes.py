"""Tests of child processes, which are stopped by identity and never by number alone."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from signal import Signals

import pytest

from chordwise.embedded import processes
from chordwise.embedded.home import MAX_SOCKET_PATH_BYTES, home_at, lock_holder, locked, password_in
from chordwise.errors import ConfigurationError, ServiceUnavailableError

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
SLEEP = "import signal; signal.pause()"


def test_a_child_that_ignores_signals_is_killed_after_a_grace_period(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = processes.launch([sys.executable, "-c", STUBBORN + SLEEP], log=log)
    assert processes.wait_until(lambda: log.read_text(encoding="utf-8") != "", 10)

    assert processes.stop(child, (Signals.SIGTERM, 0.3))
    assert not processes.is_alive(child)


def test_a_child_has_a_separate_session(tmp_path: Path) -> None:
    """Ctrl-C in the terminal does not reach it."""
    child = processes.launch([sys.executable, "-c", SLEEP], log=tmp_path / "log")
    assert child is not None

    session = os.getsid(child.pid)

    processes.stop(child)
    assert session == child.pid


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match="no-such-program"):
        processes.launch([str(tmp_path / "no-such-program")], log=tmp_path / "log")


def test_a_pid_file_is_valid_only_for_the_right_command(tmp_path: Path) -> None:
    child = processes.launch([sys.executable, "-c", SLEEP, "mark"], log=tmp_path / "log")
    assert child is not None
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{child.pid}\n", encoding="utf-8")

    assert processes.wait_until(lambda: processes.find_by_pid_file(pid_file, "mark") == child, 10)
    assert processes.find_by_pid_file(pid_file, "another mark") is None
    processes.stop(child)
    assert processes.find_by_pid_file(pid_file, "mark") is None


def test_a_long_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (processes.MAX_LOG_BYTES + 1))

    child = processes.launch([sys.executable, "-c", "print('new')"], log=log)

    assert processes.wait_until(lambda: not processes.is_alive(child), 10)
    assert log.read_text(encoding="utf-8") == "new\n"
    assert (tmp_path / "log.1").stat().st_size == processes.MAX_LOG_BYTES


def test_a_new_home_is_private_and_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    home = home_at(tmp_path / "home")

    home.prepare()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (home.path, home.run)} == {0o700}


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="home cannot be created"):
        home_at(tmp_path / "home").prepare()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_home_writable_by_other_users_is_refused(tmp_path: Path, mode: int) -> None:
    """They could replace the data and the passwords; the error says what to do."""
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(ConfigurationError, match="Other users can write to") as caught:
        home_at(folder).prepare()

    assert f"chmod go-w {folder}" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    """This holds for root as well, although root could write to it."""
    os.chown(tmp_path, 65_534, 65_534)

    with pytest.raises(ConfigurationError, match="belongs to another user"):
        home_at(tmp_path).prepare()


def test_sockets_of_a_deep_home_are_in_a_private_folder(tmp_path: Path) -> None:
    """Their path is short enough, and a folder that is open to other users is refused."""
    home = home_at(tmp_path / ("deep" * 30))

    folder = home.sockets()

    assert len(bytes(folder)) < MAX_SOCKET_PATH_BYTES
    assert folder == home.sockets()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="open to others"):
        home.sockets()
    folder.rmdir()


def test_a_password_is_generated_once(tmp_path: Path) -> None:
    first = password_in(tmp_path / "password")

    assert first == password_in(tmp_path / "password")
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


def test_the_lock_reports_its_holder(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    home.prepare()

    with locked(home):
        holder = lock_holder(home)
        with pytest.raises(ServiceUnavailableError, match=f"process {os.getpid()}"), locked(home):
            pytest.fail("two held the lock")

    assert holder == processes.identify(os.getpid())
    assert lock_holder(home) is None
