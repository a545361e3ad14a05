"""Whether other users of this machine could have written a settings file.

It says where documents and keys are sent, so it is checked as `ssh` and `git` check theirs: its
owner, who may write it, and who may put another file in its place.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chordwise.errors import ConfigurationError

_ROOT = 0
_MAX_LINKS = 40
_ACCESS_LIST = "system.posix_acl_access"


def require_trusted(file: Path, descriptor: int, *, is_named: bool) -> None:
    """Refuse an open settings file that belongs to another user, or that others may write.

    The same holds for the folders and symbolic links on the way to it. A file that the user has
    named (`is_named`) may belong to anyone; others must not be able to write it either, unless it
    lies on a read-only mount.

    Raises:
        ConfigurationError: The file is not trusted.
        OSError: A folder on the way cannot be looked at.
    """
    steps = [*_folders_and_links(file), _Step(file, descriptor, os.fstat(descriptor))]
    for step in steps:
        if not is_named and step.state.st_uid not in {_ROOT, os.geteuid()}:
            raise _owned_by_another(file, step)
        if step.is_writable_by_others() and not (is_named and step.is_on_read_only_mount()):
            raise _writable_by_others(file, step)


@dataclass(frozen=True, slots=True)
class _Step:
    """A folder or link on the way to a file, or the open file itself."""

    path: Path
    target: Path | int
    state: os.stat_result

    def is_writable_by_others(self) -> bool:
        """Tell whether anyone but the owner and root may write the file or replace an entry."""
        mode = self.state.st_mode
        if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            return False  # a link has no content; in a sticky folder, the owner of an entry counts
        if mode & stat.S_IWOTH:
            return True
        return bool(mode & stat.S_IWGRP) and not self._is_group_private()

    def is_on_read_only_mount(self) -> bool:
        """Tell whether nothing can be written there, whatever the mode says."""
        return bool(os.statvfs(self.target).f_flag & os.ST_RDONLY)

    def _is_group_private(self) -> bool:
        """Tell whether the group is the owner's or ours alone, as most Linux systems make one."""
        if _has_access_list(self.target):
            return False  # the bits of the group then stand for everyone in the list
        users = {self.state.st_uid, os.geteuid()}
        return any(_has_only(self.state.st_gid, user) for user in users)


def _has_access_list(target: Path | int) -> bool:
    if sys.platform == "linux":
        with suppress(OSError):  # the file system knows no such lists
            return _ACCESS_LIST in os.listxattr(target)
    return False


def _has_only(group_id: int, user_id: int) -> bool:
    """Tell whether a group is named as a user, who is its only member.

    Where neither has a name, as in many containers, the numbers have to be the same.
    """
    try:
        user = pwd.getpwuid(user_id).pw_name
        group = grp.getgrgid(group_id)
    except KeyError:
        return group_id == user_id and not _with_primary(group_id)
    return group.gr_name == user and {*group.gr_mem, *_with_primary(group_id)} <= {user, "root"}


def _with_primary(group_id: int) -> set[str]:
    return {each.pw_name for each in pwd.getpwall() if each.pw_gid == group_id}


def _folders_and_links(file: Path) -> Iterator[_Step]:
    """Yield every folder and symbolic link that leads to a file, as the kernel follows them."""
    folder, links = Path("/"), 0
    pending = list(reversed(file.absolute().parts[1:]))
    yield _Step(folder, folder, folder.lstat())
    while pending:
        name = pending.pop()
        place = folder.parent if name == ".." else folder / name
        state = place.lstat()
        if stat.S_ISREG(state.st_mode):
            return
        yield _Step(place, place, state)
        if not stat.S_ISLNK(state.st_mode):
            folder = place
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = place.readlink()
        folder = Path("/") if target.is_absolute() else folder
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _owned_by_another(file: Path, step: _Step) -> ConfigurationError:
    owner, own_id = _user(step.state.st_uid), os.geteuid()
    expected = f"neither to {_user(own_id)} nor to root" if own_id != _ROOT else "not to root"
    through = "" if step.path == file else f" is reached through {step.path}, which"
    return ConfigurationError(
        f"The settings file {file}{through} belongs to {owner}, {expected}.",
        f"It says where documents and keys are sent. If you trust its owner, name it: --config "
        f"{file} or CHORDWISE_CONFIG. If it should be yours: chown {own_id} {step.path}. "
        "Else put a chordwise.toml of your own into the working folder, which goes before it.",
    )


def _writable_by_others(file: Path, step: _Step) -> ConfigurationError:
    mode = stat.S_IMODE(step.state.st_mode)
    group = f"Members of the group {_group(step.state.st_gid)}"
    who = "All users of this machine" if mode & stat.S_IWOTH else group
    may = "write" if step.path == file else f"write to {step.path} and so replace"
    mend = f"chmod go-w {step.path}"
    if _has_access_list(step.target):
        mend = f"setfacl -b {step.path} && {mend}"
    return ConfigurationError(
        f"{who} may {may} the settings file {file} (mode {mode:04o}).",
        f"It says where documents and keys are sent. Take that right away: {mend}; or copy the "
        "file into a folder of your own and name it with --config.",
    )


def _user(user_id: int) -> str:
    try:
        return f"{pwd.getpwuid(user_id).pw_name} (uid {user_id})"
    except KeyError:
        return f"uid {user_id}"


def _group(group_id: int) -> str:
    try:
        return f"{grp.getgrgid(group_id).gr_name} (gid {group_id})"
    except KeyError:
        return f"gid {group_id}"
