"""An S3 server (moto) and an SFTP server (asyncssh) on loopback, each with a folder for a test."""

from __future__ import annotations

import asyncio
import gc
import logging
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import asyncssh
import boto3
import fsspec
from moto.server import ThreadedMotoServer

from chordwise import remote

HOST = "127.0.0.1"


class FileServer(Protocol):
    """A folder on a server, as its other clients use it."""

    url: str

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""


class Bucket:
    """A bucket of the S3 server at `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self._name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.url = f"s3://{self._name}"
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 - the server accepts any
        )
        self._client.create_bucket(Bucket=self._name)

    def write(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=name, Body=content)

    def read(self, name: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self._name, Key=name)["Body"].read()
        return content

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._name, Key=name)

    def names(self) -> list[str]:
        listed = self._client.list_objects_v2(Bucket=self._name).get("Contents", [])
        return sorted(entry["Key"] for entry in listed)


class MemoryBucket:
    """A bucket in the memory of fsspec, which stands for the buckets of other providers."""

    def __init__(self) -> None:
        self._name = f"bucket-{uuid.uuid4().hex[:8]}"
        self._files = fsspec.filesystem("memory")
        self.url = f"memory://{self._name}"

    def write(self, name: str, content: bytes) -> None:
        self._files.pipe_file(f"{self._name}/{name}", content)

    def read(self, name: str) -> bytes:
        content: bytes = self._files.cat_file(f"{self._name}/{name}")
        return content

    def remove(self, name: str) -> None:
        self._files.rm_file(f"{self._name}/{name}")

    def names(self) -> list[str]:
        return [str(name).removeprefix(f"/{self._name}/") for name in self._files.find(self._name)]


class SftpFolder:
    """A folder that the SFTP server at `port` shows; the file `known_hosts` has its key."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"sftp://{HOST}:{port}{folder}"

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def link(self, name: str, target: str) -> None:
        (self.folder / name).symlink_to(target)

    def names(self) -> list[str]:
        files = (path for path in self.folder.rglob("*") if not path.is_dir())
        return sorted(str(path.relative_to(self.folder)) for path in files)


@contextmanager
def new_connections() -> Iterator[None]:
    """Connect again in the block, and forget its connections, which libraries do not close."""
    remote.file_system.cache_clear()
    try:
        yield
    finally:
        remote.file_system.cache_clear()
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """Run an S3 server, and yield its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        yield f"http://{HOST}:{server.get_host_and_port()[1]}"
    finally:
        server.stop()


class _AnyUser(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        del username
        return False


@contextmanager
def sftp_port(home: Path) -> Iterator[int]:
    """Run an SFTP server whose key is in `home/.ssh/known_hosts`, and yield its port."""
    ready, key = Event(), asyncssh.generate_private_key("ssh-ed25519")
    ports: list[int] = []
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        ends.append(lambda: loop.call_soon_threadsafe(end.set))
        async with asyncssh.listen(
            HOST, 0, server_factory=_AnyUser, server_host_keys=[key], sftp_factory=True
        ) as acceptor:
            ports.append(acceptor.get_port())
            ready.set()
            await end.wait()

    thread = Thread(target=lambda: asyncio.run(serve()), name="sftp", daemon=True)
    thread.start()
    assert ready.wait(10)
    ssh = home / ".ssh"
    ssh.mkdir(exist_ok=True)
    line = f"[{HOST}]:{ports[0]} {key.export_public_key().decode()}"
    (ssh / "known_hosts").write_text(line, "utf-8")
    try:
        yield ports[0]
    finally:
        ends[0]()
        thread.join(10)
