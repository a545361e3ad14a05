"""I5 of the oracle: secrets appear nowhere, and texts of documents in no log or message."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import redis

from chordwise.embedded.postgres import programs
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster


def planted_secrets(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Search for keys and passwords in all output, logs and stores."""
    places = {**_visible(cluster), "the database": _dump(cluster)}
    for secret, value in cluster.secrets.items():
        for place, text in places.items():
            if value and value in text:
                yield f"{secret} appears in {place}"


def text_of_documents(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Search for the canary outside of the database."""
    for place, text in _visible(cluster).items():
        if cluster.documents.canary in text:
            yield f"a document's text appears in {place}"


def _visible(cluster: Cluster) -> Mapping[str, str]:
    texts = {member.log.name: member.text() for member in cluster.members.all}
    texts.update(_server_logs(cluster.folder / "home" / "logs"))
    texts.update(_server_logs(cluster.database.data.parent / "logs"))
    texts["the commands' output"] = "\n".join(cluster.spoken)
    with cluster.broker.client() as client:
        texts["the broker"] = "\n".join(_broker_texts(client))
    return texts


def _server_logs(folder: Path) -> Iterator[tuple[str, str]]:
    for log in sorted(folder.glob("*.log*")):
        yield f"the server's {log.name}", log.read_text("utf-8", errors="replace")


def _dump(cluster: Cluster) -> str:
    dump = subprocess.run(
        [
            str(programs() / "pg_dump"),
            f"--dbname={cluster.database.postgres.url(cluster.name)}",
        ],
        capture_output=True,
        check=True,
        env={"PATH": os.defpath},
        timeout=60,
    )
    return dump.stdout.decode(errors="replace")


def _broker_texts(client: redis.Redis) -> Iterator[str]:
    """Yield every key and value as text, with the bodies of messages decoded."""
    for key in client.scan_iter(count=1_000):
        yield str(key)
        for value in _values(client, key):
            yield value.decode(errors="replace")
            yield _unpacked(value)


def _values(client: redis.Redis, key: bytes) -> list[bytes]:
    match client.type(key):
        case b"string":
            values: object = [client.get(key)]
        case b"list":
            values = client.lrange(key, 0, -1)
        case b"set":
            values = client.smembers(key)
        case b"zset":
            values = client.zrange(key, 0, -1)
        case b"hash":
            values = [part for pair in client.hgetall(key).items() for part in pair]
        case _:
            values = []
    return [value for value in cast("Iterable[object]", values) if isinstance(value, bytes)]


def _unpacked(value: bytes) -> str:
    """Return the body of a message as text; empty if the value is no message."""
    try:
        message = json.loads(value)
        # In the hash `unacked`, a message is the first of three.
        message = message[0] if isinstance(message, list) and message else message
        return base64.b64decode(message["body"]).decode(errors="replace")
    except (ValueError, TypeError, KeyError, binascii.Error):
        return ""
