"""Starts a program as an unprivileged user who can still reach its data below folders of root.

Run as a file, with the standard library only:
`python -I -S unprivileged.py UID GID PATHS PROGRAM ARGUMENT…`, with one path per line. PostgreSQL
refuses to run as root, but its data and programs may be below a folder that only root may enter.
The permissions of that folder are left unchanged; instead, the program sees only these paths below
it (mount_namespaces(7)), and loses all privileges of root.

A container may forbid root to make mount namespaces. There, if a path is below a closed folder, the
program keeps CAP_DAC_OVERRIDE, by ambient capabilities (capabilities(7)), unless root cannot set
them either, without CAP_SETPCAP.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
# Without this, access(2), by which PostgreSQL looks for its programs, ignores the capabilities of
# users other than root.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_LAST_POSSIBLE_CAPABILITY = 63
_CLONE_NEWNS = 0x20000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def main(arguments: list[str]) -> None:
    """Become the user and run the program in place of this one."""
    uid, gid, paths, *command = arguments
    if sys.platform == "linux":
        _change_user_on_linux(int(uid), int(gid), list(map(Path, paths.splitlines())))
    else:
        _change_user(int(uid), int(gid))
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted here
    except OSError as error:
        sys.exit(
            f"{command[0]} cannot be started by user {uid}: {error.strerror}. Make the "
            "folders above it accessible to all users, or run Chordwise as an ordinary user."
        )


def _change_user(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _change_user_on_linux(uid: int, gid: int, paths: list[Path]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    closed = {folder for path in paths for folder in _closed_above(path)[:1]}
    keeps_one = bool(closed) and libc.unshare(_CLONE_NEWNS) != 0
    if closed and not keeps_one:
        _show_only(libc, closed, paths)
    for capability in range(_LAST_POSSIBLE_CAPABILITY + 1):
        if capability != _CAP_DAC_OVERRIDE or not keeps_one:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if keeps_one:
        keeps_one = libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0
    _change_user(uid, gid)
    if keeps_one:
        _keep_dac_override(libc)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _closed_above(path: Path) -> list[Path]:
    return [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 1]


def _show_only(libc: ctypes.CDLL, closed: set[Path], paths: list[Path]) -> None:
    """Replace closed folders, in this process's mounts, by folders with these paths alone."""
    _mount(libc, None, Path("/"), _MS_REC | _MS_PRIVATE)
    mounts = [(path, os.open(path, os.O_PATH)) for path in paths if closed & {*path.parents}]
    for folder in closed:
        _mount(libc, "tmpfs", folder, 0, "mode=755")
    for path, descriptor in mounts:
        path.mkdir(parents=True, exist_ok=True)
        _mount(libc, f"/proc/self/fd/{descriptor}", path, _MS_BIND)
        os.close(descriptor)
    os.chdir("/")


def _mount(libc: ctypes.CDLL, source: str | None, target: Path, flags: int, data: str = "") -> None:
    name = source.encode() if source else None
    _check(libc.mount(name, bytes(target), name, flags, data.encode() or None))


def _keep_dac_override(libc: ctypes.CDLL) -> None:
    mask = 1 << _CAP_DAC_OVERRIDE
    sets = (_Sets * 2)(_Sets(mask, mask, mask), _Sets(0, 0, 0))
    _check(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), sets))
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _check(outcome: int) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        sys.exit(f"The privileges of root cannot be given up: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
