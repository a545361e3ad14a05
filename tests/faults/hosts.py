"""Hosts of an experiment: network namespaces of this machine, each with a cable that can be cut.

Processes of a host reach the servers through proxies at the machine's end of its cable, and have a
home of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.faults.cluster import Cluster
from tests.faults.members import Member, Members
from tests.faults.proxy import proxy_to
from tests.faults.servers import address_through

_numbers = count(1)


@dataclass(slots=True, kw_only=True)
class Host:
    """A host with its processes."""

    name: str
    cable: str
    cluster: Cluster
    environment: dict[str, str]
    members: list[Member] = field(default_factory=list)

    def start(self, role: str) -> Member:
        """Start a worker or a scheduler on this host."""
        everywhere = self.cluster.members
        of_host = Members(
            folder=everywhere.folder,
            environment={**everywhere.environment, **self.environment},
            prefix=("ip", "netns", "exec", self.name),
            all=everywhere.all,
        )
        self.members.append(of_host.start(role, ""))
        return self.members[-1]

    def cut(self) -> None:
        """Cut the cable: packets in both directions are lost, and no connection is closed."""
        _ip("link", "set", self.cable, "down")
        assert not self.reaches_servers()
        for member in self.members:
            member.disturbed += 1

    def reaches_servers(self) -> bool:
        """Return whether a process on this host can connect to the database."""
        url = make_url(self.environment["CHORDWISE_DATABASE_URL"])
        program = f"import socket; socket.create_connection(({url.host!r}, {url.port}), 1)"
        inside = ("ip", "netns", "exec", self.name, sys.executable, "-c", program)
        return subprocess.run(inside, check=False, capture_output=True).returncode == 0

    def reconnect(self) -> None:
        """Connect the cable again."""
        _ip("link", "set", self.cable, "up")
        assert self.reaches_servers()

    def kill(self) -> None:
        """Lose the host with all of its processes."""
        for member in self.members:
            member.kill()


@contextmanager
def host(cluster: Cluster) -> Iterator[Host]:
    """Add a host for the block; skip the test without permission for network namespaces."""
    number = next(_numbers) + 8 * (os.getpid() % 30)
    name, cable, inside = (f"cw{kind}{os.getpid()}-{number}"[:15] for kind in "hci")
    here, there = (f"10.213.{number % 256}.{end}" for end in (1, 2))
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be created")
    try:
        _ip("link", "add", cable, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("addr", "add", f"{here}/24", "dev", cable)
        _ip("link", "set", cable, "up")
        for command in (
            f"addr add {there}/24 dev {inside}",
            f"link set {inside} up",
            "link set lo up",
        ):
            _ip("-netns", name, *command.split())
        with ExitStack() as stack:
            database, broker, provider = (
                stack.enter_context(proxy_to(target, here)).port
                for target in (
                    cluster.database.target,
                    cluster.broker.target,
                    cluster.provider.target,
                )
            )
            url = address_through(database, cluster.database, cluster.name)
            home = Path(f"{cluster.folder}/{name}")
            (home / "tmp").mkdir(parents=True)
            yield Host(
                name=name,
                cable=cable,
                cluster=cluster,
                environment={
                    "CHORDWISE_HOME": str(home),
                    "TMPDIR": str(home / "tmp"),
                    "CHORDWISE_DATABASE_URL": url.replace("127.0.0.1", here),
                    "CHORDWISE_BROKER_URL": f"redis://:{cluster.broker.password}@{here}:{broker}/0",
                    "CHORDWISE_MODELS__PEER__BASE_URL": f"http://{here}:{provider}/v1",
                },
            )
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)  # noqa: S607 - on the path
