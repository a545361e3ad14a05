"""Starts a program as an unprivileged user who can still enter the folders of root.

Run as a file, with the standard library only:
`python -I -S unprivileged.py UID GID PROGRAM ARGUMENT…`. PostgreSQL refuses to run as root, but
its data and programs may be below a folder that only root may enter. The permissions of that
folder are left unchanged; instead, by ambient capabilities (capabilities(7)), the program keeps
CAP_DAC_OVERRIDE and loses all other privileges of root. It keeps none where root cannot set
capabilities, such as in a container without CAP_SETPCAP.
"""

from __future__ import annotations

import ctypes
import os
import sys

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
    uid, gid, *command = arguments
    if sys.platform == "linux":
        _change_user_on_linux(int(uid), int(gid))
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


def _change_user_on_linux(uid: int, gid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_POSSIBLE_CAPABILITY + 1):
        if capability != _CAP_DAC_OVERRIDE:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    may_keep_any = libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0
    _change_user(uid, gid)
    if may_keep_any:
        _keep_dac_override(libc)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _keep_dac_override(libc: ctypes.CDLL) -> None:
    mask = 1 << _CAP_DAC_OVERRIDE
    sets = (_Sets * 2)(_Sets(mask, mask, mask), _Sets(0, 0, 0))
    _check(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), sets))
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _check(outcome: int) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        sys.exit(f"CAP_DAC_OVERRIDE cannot be kept: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
