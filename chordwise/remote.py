"""Files in buckets and on SFTP servers as paths; the only module that knows fsspec."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path, PosixPath, PurePath
from typing import IO, TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit
from zlib import crc32

from chordwise.domain.visible_text import printable
from chordwise.errors import ConfigurationError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CREDENTIALS = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "sftp": "the host in ~/.ssh/known_hosts, and the key in ~/.ssh",
}
"""What gives access, by the scheme of a URL."""
_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 60},
    },
    "gs": {"use_listings_cache": False},
    "az": {"use_listings_cache": False},
    "sftp": {"known_hosts": (), "connect_timeout": 10, "keepalive_interval": 15},
}
_TIMES = ("LastModified", "last_modified", "mtime", "created")
_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}
_BLOCK_BYTES = 8 * 1024 * 1024
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


class RemoteError(OSError):
    """A server or bucket that cannot be used now; `hint` is the next step."""

    def __init__(self, number: int, what: str, url: str, hint: str) -> None:
        super().__init__(number, what, url)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """An entry of a remote folder, with its state when the folder was listed."""

    name: str
    path: str
    status: os.stat_result

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a folder; a link never is."""
        del follow_symlinks
        return stat.S_ISDIR(self.status.st_mode)

    def is_symlink(self) -> bool:
        """Return whether it is a symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)


FolderEntry: TypeAlias = os.DirEntry[str] | RemoteEntry


def is_remote(name: str) -> bool:
    """Return whether a name is the URL of a remote file or folder."""
    scheme, separator, _ = name.partition(":/")  # pathlib makes one slash of two
    return bool(separator) and scheme in CREDENTIALS


def path_of(name: str | PurePath) -> Path:
    """Return the path with a name, which may be a URL."""
    if isinstance(name, RemotePath):
        return name
    return RemotePath(name) if is_remote(str(name)) else Path(name)


def lexists(path: Path) -> bool:
    """Return whether a path exists, without following links."""
    return path.exists() if isinstance(path, RemotePath) else os.path.lexists(path)


def scandir(folder: str | Path) -> AbstractContextManager[Iterator[FolderEntry]]:
    """Return the entries of a folder, as `os.scandir` does.

    Raises:
        OSError: The folder does not exist or cannot be listed.
    """
    path = path_of(folder)
    return nullcontext(iter(path.entries())) if isinstance(path, RemotePath) else os.scandir(folder)


def opened_for_writing(path: Path) -> AbstractContextManager[IO[str]]:
    """Open a text file for writing; a remote one appears when it is closed.

    Raises:
        OSError: The file cannot be written.
    """
    return path.writing() if isinstance(path, RemotePath) else path.open("w", encoding="utf-8")


class RemotePath(PosixPath):
    """A path such as `s3://bucket/folder/file`; methods that are not defined here do not work.

    All methods raise `OSError`, for a missing file `FileNotFoundError`. A bucket has no folders of
    its own: a path in it that is not an object counts as a folder, which may be empty.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}" if scheme in CREDENTIALS else super().__str__()

    @property
    def scheme(self) -> str:
        """The scheme of the URL."""
        return self.parts[0].removesuffix(":")

    @property
    def has_folders(self) -> bool:
        """Whether folders exist without files; they do not in buckets."""
        return self.scheme == "sftp"

    @property
    def is_in_bucket(self) -> bool:
        """Whether the path is below a bucket or a host."""
        return len(self.parts) > len(self._base.parts)

    def is_absolute(self) -> bool:
        return is_remote(str(self))

    def absolute(self) -> RemotePath:
        return self

    def expanduser(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        del strict
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        del follow_symlinks
        with self._connected() as (files, key):
            return _status(files.info(key))

    def lstat(self) -> os.stat_result:
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        del follow_symlinks
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_symlink(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        del follow_symlinks
        try:
            return stat.S_ISDIR(self.stat().st_mode)
        except FileNotFoundError:
            return not self.has_folders and self.is_in_bucket and self._base.exists()

    def entries(self) -> list[RemoteEntry]:
        """Return the entries of the folder; those of a bucket cannot have an empty name."""
        with self._connected() as (files, key):
            try:
                listed = files.ls(key, detail=True)
            except FileNotFoundError:
                if not self.is_dir():
                    raise
                return []
        names = [str(info["name"]).strip("/") for info in listed]
        return [
            RemoteEntry(name=name, path=str(self / name), status=_status(info))
            for full_name, info in zip(names, listed, strict=True)
            for name in [full_name.rpartition("/")[2]]
            if full_name == f"{key.strip('/')}/{name}"
        ]

    def pieces(self) -> Iterator[bytes]:
        """Yield the content."""
        with (
            self._connected() as (files, key),
            files.open(key, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as file,
        ):
            while piece := file.read(_BLOCK_BYTES):
                yield piece

    @contextmanager
    def writing(self) -> Iterator[IO[str]]:
        """Open a file that appears, or replaces another one, at the end of the block."""
        with (
            self._connected() as (files, key),
            files.open(key, "w", encoding="utf-8") as file,
        ):
            yield file

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        del mode, parents, exist_ok
        if self.has_folders:
            with self._connected() as (files, key):
                files.makedirs(key, exist_ok=True)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._connected() as (files, key):
                files.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def move(self, target: RemotePath) -> None:
        """Move a file; in a bucket it is copied, and removed unless it was changed meanwhile."""
        with self._connected() as (files, key):
            if self.has_folders:
                files.mv(key, target._key)
                return
            before = self.stat()
            files.cp_file(key, target._key)
            if self.stat() != before:
                target.unlink()
                raise OSError(errno.EBUSY, "was changed while it was moved", str(self))
            files.rm_file(key)

    @property
    def _base(self) -> RemotePath:
        return RemotePath(*self.parts[:2])

    @property
    def _key(self) -> str:
        return "/".join(["", *self.parts[2:]] if self.has_folders else self.parts[1:])

    @contextmanager
    def _connected(self) -> Iterator[tuple[AbstractFileSystem, str]]:
        """Return the file system and the name in it; errors become `OSError`s with the URL."""
        try:
            yield file_system(str(self._base)), self._key
        except (ConfigurationError, RemoteError):
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "does not exist", str(self)) from error
        except Exception as error:
            is_denied = isinstance(error, PermissionError)
            if not is_denied:
                file_system.cache_clear()  # the next call connects again
            reason = printable(str(error)).partition("\n")[0] or "no answer in time"
            what = "may not be used" if is_denied else "cannot be reached"
            raise RemoteError(
                errno.EACCES if is_denied else errno.EIO,
                f"{what}: {reason}",
                str(self),
                f"Check the name, the network and the credentials: {CREDENTIALS[self.scheme]}.",
            ) from error


@lru_cache
def file_system(base: str) -> AbstractFileSystem:
    """Return the connection to a bucket or server such as `s3://bucket`.

    Raises:
        ConfigurationError: The extra is not installed, or the URL has a password.
    """
    scheme, address = base.partition("://")[0], urlsplit(base)
    if address.password:
        raise ConfigurationError(
            f"The URL {scheme}://{address.hostname} contains a password.",
            "Use a key; a password would be stored with the name of each document.",
        )
    try:
        from fsspec import get_filesystem_class  # noqa: PLC0415 - an extra

        cls = get_filesystem_class(scheme)
    except ImportError as error:
        raise ConfigurationError(
            f"{scheme}:// needs libraries that are not installed.",
            "Install them with: pip install 'chordwise[remote]'",
        ) from error
    login = cls._get_kwargs_from_urls(base) if scheme == "sftp" else {}
    return cls(skip_instance_cache=True, **_OPTIONS.get(scheme, {}), **login)


def _status(info: Mapping[str, object]) -> os.stat_result:
    time = next((info[name] for name in _TIMES if info.get(name)), 0.0)
    time = datetime.fromtimestamp(time, UTC) if isinstance(time, float) else time
    time_ns = (time - _EPOCH) // _MICROSECOND * 1000 if isinstance(time, datetime) else 0
    mode = _KINDS.get(str(info["type"]), stat.S_IFCHR)
    version = crc32(str(info.get("ETag") or info.get("etag")).encode())
    size = info.get("size")
    size = size if isinstance(size, int) else 0
    numbers = (mode, version, 0, 1, 0, 0, size, *[time_ns // 10**9] * 3)
    return os.stat_result(numbers, {"st_mtime_ns": time_ns})
