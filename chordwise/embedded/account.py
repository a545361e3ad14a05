"""Under which user a server runs: our own, or for root an unprivileged one."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chordwise.errors import ConfigurationError

_LAUNCHER = Path(__file__).with_name("unprivileged.py")


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
        """Make a folder of ours the account's own."""
        if self.is_other:
            os.chown(folder, self.uid, self.gid)


def account_for(data: Path) -> Account:
    """Return the user for a server that refuses root: who owns its data, else `nobody`.

    Raises:
        ConfigurationError: We are root, and there is no unprivileged user.
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid(), is_other=False)
    if data.exists() and data.stat().st_uid != 0:
        return Account(uid=data.stat().st_uid, gid=data.stat().st_gid, is_other=True)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and there is no user named nobody.",
            "Run Chordwise as an ordinary user, or set CHORDWISE_DATABASE_URL.",
        ) from error
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid, is_other=True)
