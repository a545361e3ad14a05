"""The user that a server runs as: our own, or for root an unprivileged one."""

from __future__ import annotations

import hashlib
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chordwise.errors import ConfigurationError

_LAUNCHER = Path(__file__).with_name("unprivileged.py")
# The range of systemd's DynamicUser=, which distributions give to no account (systemd.exec(5)).
_UNNAMED_UIDS = range(61_184, 65_520)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, by numbers. `is_other`: not the one that this process runs as."""

    uid: int
    gid: int
    is_other: bool

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs this command as the account."""
        if not self.is_other:
            return list(command)
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(self.uid), str(self.gid)]
        return [*launcher, *command]

    def take(self, folder: Path) -> None:
        """Make a folder, with everything in it, the account's own."""
        if not self.is_other or folder.stat().st_uid == self.uid:
            return
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(place, name), self.uid, self.gid, follow_symlinks=False)
        os.chown(folder, self.uid, self.gid)  # last: until then an interrupted call is repeated


def account_for(data: Path) -> Account:
    """Return the user that a server which refuses root runs as: our own, or for root another one.

    For root it is the owner of the data. New data, and data of `nobody`, gets a user id of its own
    that no account of the system has: every service that runs as `nobody` could read its data.
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid(), is_other=False)
    if data.exists():
        owner = data.stat()
        if owner.st_uid not in {0, _nobody().pw_uid}:
            return Account(uid=owner.st_uid, gid=owner.st_gid, is_other=True)
    uid = _unused_uid(data)
    return Account(uid=uid, gid=uid, is_other=True)


def named_account() -> Account:
    """Return a user that the system has a name for: our own, or for root `nobody`.

    `initdb` looks its user up by name. What it writes must lie in a folder that only root may
    enter, until it belongs to the user of `account_for`.

    Raises:
        ConfigurationError: We are root, and there is no user named `nobody`.
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid(), is_other=False)
    nobody = _nobody()
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid, is_other=True)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and there is no user named nobody.",
            "Run Chordwise as an ordinary user, or set CHORDWISE_DATABASE_URL.",
        ) from error


def _unused_uid(data: Path) -> int:
    """Return a user id without an account, always the same one for the same folder."""
    digest = hashlib.sha256(bytes(data.absolute())).digest()
    first = int.from_bytes(digest[:4], "big")
    for step in range(len(_UNNAMED_UIDS)):
        uid = _UNNAMED_UIDS[(first + step) % len(_UNNAMED_UIDS)]
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    return _nobody().pw_uid  # every number has an account
